//! What a journal promises, asked of every backend; then what each backend promises by itself.

#[cfg(test)]
mod backend;
#[cfg(test)]
mod child;
#[cfg(test)]
mod commit_proxy;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod roster;
#[cfg(test)]
mod sqlite;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tampering;

/// Runs each of the functions as a test of every backend.
macro_rules! on_every_backend {
    ($($module:ident::$name:ident),* $(,)?) => {
        #[cfg(test)]
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::$module::$name(crate::backend::Backend::sqlite()).await;
            })*
        }

        #[cfg(test)]
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::$module::$name(crate::backend::Backend::postgres().await).await;
            })*
        }
    };
}

on_every_backend! {
    suite::c35_an_entry_has_time_user_and_reason_and_reads_back_as_it_was,
    suite::c35_replaying_gives_what_the_live_run_saw,
    suite::i4_an_append_elsewhere_than_at_the_newest_entry_does_nothing,
    suite::i4_an_append_is_all_or_nothing,
    suite::i4_what_is_read_after_a_dropped_append_is_final,
    suite::i4_what_was_acknowledged_outlives_kill_9,
    suite::i3_an_epoch_never_falls,
    suite::i9_of_many_racing_appenders_exactly_one_wins,
    suite::i9_one_drives_at_a_time,
    suite::i9_a_killed_driver_frees_the_plan_at_once,
    suite::tail_wakes_at_once_and_gives_up_in_time,
    suite::plans_share_a_store_and_nothing_else,
    suite::what_cant_be_stored_is_refused,
    suite::a_draft_is_recognised_in_its_entry,
    roster::a_server_s_row_reads_as_it_was_written_last,
    roster::rows_wake_at_once_and_give_up_in_time,
    roster::a_row_is_nobody_elses_and_no_part_of_the_chain,
    roster::rows_of_a_day_ago_go_when_a_new_server_comes,
    roster::a_row_that_cant_be_stored_or_read_is_refused,
    roster::a_journal_of_the_first_format_gets_the_roster_and_keeps_its_entries,
    tampering::c35_a_changed_body_is_found,
    tampering::c35_a_body_that_is_no_json_is_found,
    tampering::c35_a_changed_actor_is_found,
    tampering::c35_a_removed_entry_is_found,
    tampering::c35_removed_newest_entries_are_found,
    tampering::c35_swapped_entries_are_found,
    tampering::c35_a_forged_newest_entry_is_found,
    tampering::c35_nothing_is_appended_to_a_journal_whose_end_was_changed,
    tampering::c35_honest_hands_cant_change_or_remove_entries,
}
