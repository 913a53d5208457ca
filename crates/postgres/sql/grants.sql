-- Who may do what. Nobody writes the tables; whoever may call a function changes what that function changes.
--
-- viewer: look. app: ask where to read and record what was done. operator: everything else.

REVOKE ALL ON SCHEMA cutover FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA cutover FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA cutover FROM PUBLIC;
GRANT USAGE ON SCHEMA cutover TO cutover_viewer, cutover_app, cutover_operator;
GRANT SELECT ON cutover.shadow_table, cutover.dual_write_config, cutover.dual_write_stats, cutover.dirty_key, cutover.audit_log,
    cutover.ladder_rung, cutover.traffic_routing_config, cutover.operation_sample, cutover.cutover_performance_metrics, cutover.health_check,
    cutover.sql_installation TO cutover_viewer, cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.refuse(text, text, text), cutover.name_of(regclass), cutover.table_named(text), cutover.shadow_of(text),
    cutover.check_shadow_table(text), cutover.audit_hash(cutover.audit_log), cutover.verify_audit(),
    cutover.validate_table_consistency(text, text, integer), cutover.get_dual_write_performance_summary(integer), cutover.get_cutover_status_dashboard(),
    cutover.generate_cutover_report(text, integer), cutover.health_trend(text, interval), cutover.recommended_order(),
    cutover.operation_figures(text, timestamptz, bigint)
    TO cutover_viewer, cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.create_shadow_table(text, text, jsonb), cutover.shadow_words(regclass, regclass, jsonb),
    cutover.column_words(regclass, regclass, jsonb, text), cutover.try_words(regclass, regclass, jsonb, jsonb), cutover.search_path_of(regclass),
    cutover.shadow_functions(regclass, regclass, text[], text[], jsonb), cutover.shadow_text(regclass, regclass, text[], text[], jsonb),
    cutover.register_shadow_table(text, regclass, regclass, text[], text[], jsonb, jsonb),
    cutover.enable_dual_write(text, text), cutover.disable_dual_write(text, text), cutover.dual_write_function(cutover.shadow_table, text),
    cutover.written_tables(regclass), cutover.note_enabled(text, text), cutover.note_disabled(text, text),
    cutover.mark_dirty(text, jsonb[], text), cutover.note_dual_write(text, text, text, double precision),
    cutover.drain(text, integer), cutover.backfill_step(text, integer), cutover.start_gradual_cutover(text, integer), cutover.advance_cutover_stage(text, boolean, text),
    cutover.emergency_rollback(text, text), cutover.emergency_stop_all_cutover(text), cutover.configure_cutover(text, jsonb, text),
    cutover.perform_cutover_health_check(text), cutover.run_automated_safety_check(), cutover.roll_up_operations(integer, boolean),
    cutover.prune_cutover_metrics(interval, integer), cutover.set_metrics_retention(interval), cutover.reset_cutover_state(text, boolean),
    cutover.rollback_cutover_system(boolean), cutover.run_cutover_system_tests()
    TO cutover_operator;
GRANT EXECUTE ON PROCEDURE cutover.backfill(text, integer, integer) TO cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.bucket(text, text), cutover.should_route_to_shadow(text, text), cutover.should_route_to_shadow(text, text, text)
    TO cutover_viewer, cutover_app, cutover_operator;
GRANT EXECUTE ON FUNCTION cutover.record_cutover_operation(text, text, integer, boolean, boolean) TO cutover_app, cutover_operator;
