-- Who may do what. Nobody writes the tables; whoever may call a function changes what that function changes.
--
-- viewer: look. app: ask where to read and record what was done. operator: everything else.

REVOKE ALL ON SCHEMA cutover FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA cutover FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA cutover FROM PUBLIC;
GRANT USAGE ON SCHEMA cutover TO cutover_viewer, cutover_app, cutover_operator;
GRANT SELECT ON cutover.shadow_table, cutover.dual_write_config, cutover.dual_write_stats, cutover.dirty_key, cutover.audit_log,
    cutover.ladder_rung, cutover.traffic_routing_config, cutover.new_table, cutover.operation_sample, cutover.cutover_performance_metrics, cutover.health_check,
    cutover.sql_installation TO cutover_viewer, cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.name_of(regclass), cutover.shadow_of(text),
    cutover.check_shadow_table(text), cutover.audit_hash(cutover.audit_log), cutover.microseconds(timestamptz), cutover.verify_audit(),
    cutover.validate_table_consistency(text, text, integer), cutover.get_dual_write_performance_summary(integer), cutover.get_cutover_status_dashboard(),
    cutover.generate_cutover_report(text, integer), cutover.health_trend(text, interval), cutover.recommended_order(),
    cutover.operation_figures(text, timestamptz, bigint), cutover.written_tables(regclass)
    TO cutover_viewer, cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.create_shadow_table(text, text, jsonb), cutover.shadow_words(regclass, regclass, jsonb),
    cutover.column_words(regclass, regclass, jsonb, text), cutover.try_words(regclass, regclass, jsonb, jsonb), cutover.search_path_of(regclass),
    cutover.shadow_functions(regclass, regclass, text[], text[], jsonb), cutover.shadow_text(regclass, regclass, text[], text[], jsonb),
    cutover.register_shadow_table(text, regclass, regclass, text[], text[], jsonb, jsonb),
    cutover.make_triggers(cutover.shadow_table, text), cutover.enable_dual_write(text, text), cutover.disable_dual_write(text, text), cutover.dual_write_function(cutover.shadow_table, text),
    cutover.note_enabled(text, text), cutover.note_disabled(text, text),
    cutover.mark_dirty(text, jsonb[], text), cutover.note_dual_write(text, text, text, double precision),
    cutover.drain(text, integer), cutover.backfill_step(text, integer), cutover.start_gradual_cutover(text, integer), cutover.advance_cutover_stage(text, boolean, text),
    cutover.emergency_rollback(text, text), cutover.emergency_stop_all_cutover(text), cutover.configure_cutover(text, jsonb, text), cutover.set_ladder(text, jsonb),
    cutover.perform_cutover_health_check(text), cutover.run_automated_safety_check(), cutover.roll_up_operations(integer, boolean, text),
    cutover.prune_cutover_metrics(interval, integer), cutover.set_metrics_retention(interval), cutover.reset_cutover_state(text, boolean),
    cutover.rollback_cutover_system(boolean), cutover.run_cutover_system_tests()
    TO cutover_operator;
-- Completion: what runs with the rights of the tables' owner, and what notes it down.
GRANT EXECUTE ON FUNCTION cutover.complete_cutover(text, boolean), cutover.refuse_missing_layers(cutover.shadow_table), cutover.refuse_not_last(text), cutover.exchange_alone(text), cutover.refuse_not_owner(cutover.shadow_table),
    cutover.refuse_obstacles(text),
    cutover.refuse_unready(cutover.traffic_routing_config), cutover.refuse_no_way_back(cutover.shadow_table), cutover.exchange(cutover.shadow_table, bigint, text, text),
    cutover.tables_to_lock(cutover.shadow_table), cutover.hold_off_vacuum(cutover.shadow_table), cutover.lock_all(cutover.shadow_table), cutover.bring_alone(cutover.shadow_table), cutover.in_the_way(cutover.shadow_table), cutover.bring_queued(cutover.shadow_table), cutover.bring_dirty(text, integer), cutover.queued(text, integer),
    cutover.swap(cutover.shadow_table, boolean), cutover.swap_statements(cutover.shadow_table, name, name, name, boolean),
    cutover.sequence_statements(record, text, text), cutover.exchange_names(text, regclass, regclass), cutover.pair_functions(cutover.shadow_table),
    cutover.refuse_old_partition(), cutover.carry_rights(regclass, regclass), cutover.carry_policies(regclass, regclass),
    cutover.note_swap(text, bigint, text, regclass, text[], text, jsonb), cutover.read_at_primary(text, text), cutover.go_back(text, text),
    cutover.drop_shadow_table(text, boolean), cutover.note_dropped(text, text), cutover.validate_foreign_keys(text)
    TO cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.check_completion(text), cutover.mentions(text, regclass, text), cutover.hanging_on(regclass), cutover.to_carry(cutover.shadow_table),
    cutover.column_pairs(cutover.shadow_table), cutover.unlike_columns(regclass, regclass), cutover.unlike_columns_of(oid, oid, regclass, regclass),
    cutover.column_order(regclass), cutover.foreign_keys(cutover.shadow_table), cutover.index_pairs(cutover.shadow_table),
    cutover.statistics_pairs(cutover.shadow_table), cutover.sequences(cutover.shadow_table), cutover.policy_statement(oid, regclass, text, text, text),
    cutover.other_name(cutover.shadow_table, boolean), cutover.shadow_name(cutover.shadow_table), cutover.unvalidated(text),
    cutover.left_to_validate(text)
    TO cutover_viewer, cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.is_promoted(text), cutover.is_new_table(text), cutover.name_parts(text), cutover.table_named(text), cutover.refuse(text, text, text)
    TO cutover_viewer, cutover_app, cutover_operator;
GRANT EXECUTE ON PROCEDURE cutover.backfill(text, integer, integer) TO cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.bucket(text, text), cutover.should_route_to_shadow(text, text), cutover.should_route_to_shadow(text, text, text)
    TO cutover_viewer, cutover_app, cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.record_cutover_operation(text, text, integer, boolean, boolean) TO cutover_app, cutover_operator;
