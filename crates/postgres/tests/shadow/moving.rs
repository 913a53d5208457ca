//! Rows on their way: while they are written, and when they are not brought at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cutover_postgres::shadow;
use cutover_testkit::Seed;
use rand::{RngExt, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::ground::{Ground, MAJORS, number, run, text};

/// One statement or transaction of an application, of every kind that writes.
async fn write(client: &Client, random: &mut StdRng) {
    let id = random.random_range(1..=400);
    let sql = match random.random_range(0..10) {
        0 => "INSERT INTO projects (first, last, price) VALUES ('new', 'one', 1.01)".to_owned(),
        1 => "INSERT INTO projects (first, last, price) SELECT 'many', i::text, i FROM generate_series(1, 20) i".to_owned(),
        2 => format!("UPDATE projects SET last = last || 'x', changed_at = now() WHERE id = {id}"),
        3 => format!("UPDATE projects SET price = price + 1 WHERE id BETWEEN {id} AND {id} + 20"),
        4 => format!("DELETE FROM projects WHERE id = {id}"),
        5 => format!(
            "INSERT INTO projects (id, first, last, price) OVERRIDING SYSTEM VALUE VALUES ({id}, 'again', 'and', 2), ({id} + 1, 'again', 'and', 3)
             ON CONFLICT (id) DO UPDATE SET first = 'upserted', price = EXCLUDED.price"
        ),
        6 => format!("UPDATE projects SET id = DEFAULT WHERE id = {id}"),
        7 => format!("BEGIN; UPDATE projects SET first = 'never' WHERE id = {id}; DELETE FROM projects WHERE id = {id} + 1; ROLLBACK"),
        8 => format!(
            "BEGIN; DELETE FROM projects WHERE id = {id}; INSERT INTO projects (id, first, last) OVERRIDING SYSTEM VALUE VALUES ({id}, 'back', 'again')
                 ON CONFLICT DO NOTHING; SAVEPOINT a; UPDATE projects SET last = 'no' WHERE id = {id}; ROLLBACK TO a; COMMIT"
        ),
        _ => format!("WITH gone AS (DELETE FROM projects WHERE id = {id} RETURNING first, last) INSERT INTO projects (first, last) SELECT first, last FROM gone"),
    };
    if let Err(error) = client.batch_execute(&sql).await {
        let state = error.code().map(|state| state.code().to_owned());
        // Two applications may stand in each other's way: that is theirs, with or without a shadow.
        assert_eq!(state.as_deref(), Some("40P01"), "{sql}: {error:?}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// C44: whatever is written while the shadow is filled, and in whatever order, both are the same when it rests.
#[tokio::test]
async fn c44_a_shadow_that_is_filled_under_every_kind_of_write_loses_and_invents_nothing() {
    let seed = Seed::from_env_or_random();
    for (major, mode) in [(13, "sync"), (15, "async"), (15, "sync"), (18, "sync"), (18, "async")] {
        let ground = Ground::moving(major, &format!("load_{mode}"), 400, mode).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for number in 0..4_u32 {
            let (client, stop, mut random) = (ground.another("shop").await, stop.clone(), seed.derive(u64::from(number + 4 * major)).rng());
            writers.spawn(async move {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) || written < 100 {
                    write(&client, &mut random).await;
                    written += 1;
                }
            });
        }
        let other = ground.another("owner").await;
        let drainer = async {
            for _ in 0..200 {
                shadow::drain(&other, "cutover", "projects", 50).await.unwrap();
            }
        };
        let filler = async { while !shadow::backfill_step(&ground.owner, "cutover", "projects", 20).await.unwrap().done {} };
        tokio::join!(drainer, filler);
        stop.store(true, Ordering::Relaxed);
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        ground.settle().await;
        assert_eq!(ground.different().await, 0, "{major} {mode}");
        assert_eq!(ground.validate().await.0, "same", "{major} {mode}");
        assert_eq!(number(&ground.admin, "SELECT count(*) FROM cutover.dual_write_stats WHERE NOT success").await, 0, "{major} {mode}");
    }
}

#[tokio::test]
async fn rows_that_are_being_written_are_not_waited_for_and_come_when_they_are_not() {
    for major in MAJORS {
        let ground = Ground::moving(major, "written", 10, "sync").await;
        run(&ground.shop, "BEGIN; UPDATE projects SET last = 'changed' WHERE id = 3; DELETE FROM projects WHERE id = 4").await;
        // Ends, though both rows are locked.
        while !shadow::backfill_step(&ground.owner, "cutover", "projects", 100).await.unwrap().done {}
        let queued = "SELECT key ->> 0, why FROM cutover.dirty_key ORDER BY 1";
        assert_eq!(text(&ground.admin, queued).await, "3|being written\n4|being written");
        assert_eq!(ground.validate().await.0, "inconclusive", "what is queued is not known");
        run(&ground.shop, "ROLLBACK").await;
        assert_eq!(ground.different().await, 2, "the trigger's work was rolled back with theirs");
        ground.settle().await;
        assert_eq!((ground.different().await, ground.validate().await.0.as_str()), (0, "same"));
    }
}

#[tokio::test]
async fn a_row_that_is_written_anew_while_its_key_is_drained_is_not_taken_away() {
    let ground = Ground::moving(15, "anew", 3, "sync").await;
    ground.settle().await;
    run(&ground.admin, "INSERT INTO projects_shadow VALUES (77, 'left over', 1, now()); SELECT cutover.mark_dirty('projects', ARRAY['[\"77\"]'::jsonb], 'by hand')").await;
    run(&ground.shop, "BEGIN; INSERT INTO projects (id, first, last) OVERRIDING SYSTEM VALUE VALUES (77, 'new', 'one')").await;
    let (brought, queued) = shadow::drain(&ground.owner, "cutover", "projects", 10).await.unwrap();
    assert_eq!((brought, queued), (0, 1), "its row in the shadow is being written");
    run(&ground.shop, "COMMIT").await;
    ground.settle().await;
    assert_eq!((ground.different().await, number(&ground.admin, "SELECT count(*) FROM projects_shadow").await), (0, 4));
}

#[tokio::test]
async fn c26_what_is_written_while_it_is_off_comes_with_the_next_backfill() {
    let ground = Ground::moving(18, "off", 20, "sync").await;
    ground.settle().await;
    for _ in 0..2 {
        run(&ground.owner, "SELECT cutover.disable_dual_write('projects', 'for a while')").await;
    }
    run(&ground.shop, "UPDATE projects SET last = 'off' WHERE id <= 5; DELETE FROM projects WHERE id = 6; INSERT INTO projects (first, last) VALUES ('c', 'd')").await;
    assert_eq!(ground.different().await, 7);
    for _ in 0..2 {
        run(&ground.owner, "SELECT cutover.enable_dual_write('projects')").await;
    }
    ground.settle().await;
    assert_eq!(ground.different().await, 0);
    let audit = "SELECT string_agg(action || coalesce(' ' || reason, ''), ', ' ORDER BY seq) FROM cutover.audit_log";
    let told = "create_shadow_table, enable_dual_write, backfilled, disable_dual_write for a while, enable_dual_write, backfilled";
    assert_eq!(text(&ground.owner, audit).await, told, "what changes nothing is no decision");
}

#[tokio::test]
async fn the_whole_backfill_is_one_call_in_plain_sql_too() {
    for major in MAJORS {
        let ground = Ground::moving(major, "plain_sql", 2_500, "sync").await;
        run(&ground.owner, "CALL cutover.backfill('projects', p_batch => 300, p_rows_per_second => 100000)").await;
        assert_eq!(ground.different().await, 0);
        assert_eq!(text(&ground.owner, "SELECT backfill_rows, backfilled_at IS NOT NULL FROM cutover.dual_write_config").await, "2500|t");
    }
}

#[tokio::test]
async fn c27_each_planted_difference_is_counted_and_nothing_to_compare_is_no_score() {
    let ground = Ground::moving(15, "planted", 1_000, "sync").await;
    assert_eq!(ground.validate().await, ("different".to_owned(), Some("0.0000".to_owned()), [1_000, 0, 0, 0, 1_000, 0]), "an empty shadow");
    ground.settle().await;
    assert_eq!(ground.validate().await, ("same".to_owned(), Some("100.0000".to_owned()), [1_000, 1_000, 1_000, 0, 0, 0]));
    run(
        &ground.admin,
        "UPDATE projects_shadow SET cents = cents + 1 WHERE id = 7; DELETE FROM projects_shadow WHERE id IN (8, 9);
        INSERT INTO projects_shadow VALUES (-1, 'ghost', 0, now())",
    )
    .await;
    assert_eq!(ground.validate().await, ("different".to_owned(), Some("99.6003".to_owned()), [1_000, 999, 997, 1, 2, 1]));
    run(&ground.admin, "ANALYZE projects").await;
    let sample = "SELECT verdict, primary_count < 1000, missing_in_shadow + inconsistent_records <= 3 FROM cutover.validate_table_consistency('projects', 'projects_shadow', 300)";
    assert!(["same|t|t", "different|t|t", "inconclusive|t|t"].contains(&text(&ground.owner, sample).await.as_str()), "some blocks of both");
    run(&ground.shop, "TRUNCATE projects").await;
    assert_eq!(ground.validate().await, ("inconclusive".to_owned(), None, [0; 6]));
}
