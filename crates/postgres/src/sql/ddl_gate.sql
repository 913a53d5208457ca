-- Where we may (only a superuser creates event triggers): definitions pass the gate too, and a table made while the
-- gates are armed gets one of its own at once. Where we may not, the catalogue is looked at before and after the gate
-- is closed.

-- Fires in every session, whatever its search_path; so it reads nothing but the gate.
CREATE OR REPLACE FUNCTION cutover.pass_ddl_gate() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1129665584, pg_backend_pid() & 15);
    IF pg_sequence_last_value('cutover.gate') & 1 = 0 AND NOT cutover.has_pass() THEN
        RAISE EXCEPTION USING
            ERRCODE = 'read_only_sql_transaction',
            MESSAGE = format('%s: a cutover has fenced this database', tg_tag),
            HINT = 'Definitions can be changed at the side that is in charge. To mend the one that follows, begin the session with: '
                   'SELECT cutover.let_pass(''by hand'')';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION cutover.arm_new_table() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    v_table oid;
BEGIN
    -- One by one: a look through all tables for each new one would be felt where there are thousands.
    FOR v_table IN SELECT d.objid FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_class'::regclass
    LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM cutover.unarmed u WHERE u.table_oid = v_table);
        EXECUTE format('CREATE TRIGGER cutover_gate BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
                       'FOR EACH STATEMENT EXECUTE FUNCTION cutover.pass_gate()', v_table::regclass);
    END LOOP;
END
$$;

DROP EVENT TRIGGER IF EXISTS cutover_ddl_gate;
CREATE EVENT TRIGGER cutover_ddl_gate ON ddl_command_start EXECUTE FUNCTION cutover.pass_ddl_gate();
DROP EVENT TRIGGER IF EXISTS cutover_arm_new_table;
CREATE EVENT TRIGGER cutover_arm_new_table ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
    EXECUTE FUNCTION cutover.arm_new_table();
