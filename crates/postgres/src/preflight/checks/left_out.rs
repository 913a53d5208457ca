//! What reaches across the border that `[tables]` draws.
//!
//! A partition or an heir is written to through its parent, past a gate that stands before one of the two only. A
//! foreign key, a view or a policy needs what it refers to. A sequence that feeds both sides counts twice.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Severity, Verdict,
    finding::{Draft, Fix, Inconclusive},
};

pub(crate) const CHECK: Check = Check {
    name: "left_out",
    about: "what is covered may need what is left out, or be written to through it",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    if context.plan.tables.filter.is_all() {
        return Ok(Vec::new());
    }
    let mut drafts = Vec::new();
    drafts.extend(families(context).await?);
    drafts.extend(foreign_keys(context).await?);
    drafts.extend(needed(context).await?);
    drafts.extend(named_by_triggers(context).await?);
    drafts.extend(shared_sequences(context).await?);
    Ok(drafts)
}

/// What begins each query: the relations that are left out.
fn with_outside(context: &Context<'_>, rest: &str) -> String {
    format!(
        "WITH outside AS MATERIALIZED (SELECT c.oid, n.nspname, c.relname, c.relkind FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {}) {rest}",
        context.coverage.outside()
    )
}

/// What was decided when the schema was copied can't be mended any more, and does no more harm.
fn severity(context: &Context<'_>) -> Severity {
    if context.prepared { Severity::Warning } else { Severity::Error }
}

async fn families(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = with_outside(
        context,
        "SELECT i.inhrelid::regclass::text, i.inhparent::regclass::text, c.relispartition, i.inhrelid IN (SELECT oid FROM outside) \
         FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relkind IN ('r', 'p', 'f') \
         WHERE (i.inhrelid IN (SELECT oid FROM outside)) <> (i.inhparent IN (SELECT oid FROM outside)) ORDER BY 1, 2",
    );
    let rows = context.source.query("looking for partitions and heirs across the border", &sql, &[]).await?;
    let line = |row: &tokio_postgres::Row| {
        let (child, parent): (String, String) = (row.get(0), row.get(1));
        let relation = if row.get(2) { "is a partition of" } else { "inherits from" };
        let (one, other) = if row.get(3) { ("left out", "covered") } else { ("covered", "left out") };
        format!("{child} ({one}) {relation} {parent} ({other})")
    };
    let message = "[tables] parts tables from their partitions or heirs: what is written to the one reaches the other, past its gate";
    let fix = Fix::advice("leave the whole family out, or none of it");
    Ok((!rows.is_empty()).then(|| Draft::error(Side::Source, message).evidence(rows.iter().map(line)).fix(fix)))
}

async fn foreign_keys(context: &Context<'_>) -> Result<Vec<Draft>, Inconclusive> {
    let sql = with_outside(
        context,
        "SELECT k.conrelid::regclass::text, pg_catalog.format('%I', k.conname), k.confrelid::regclass::text, k.conrelid IN (SELECT oid FROM outside) \
         FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0 \
             AND (k.conrelid IN (SELECT oid FROM outside)) <> (k.confrelid IN (SELECT oid FROM outside)) ORDER BY 1, 2",
    );
    let rows = context.source.query("looking for foreign keys across the border", &sql, &[]).await?;
    let (inwards, outwards): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.get::<_, bool>(3));
    let lines = |rows: &[&tokio_postgres::Row]| -> Vec<String> {
        rows.iter().map(|row| format!("{}: {} refers to {}", row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, &str>(2))).collect()
    };
    let mut drafts = Vec::new();
    if !outwards.is_empty() && context.plan.tables.cut_foreign_keys {
        let message = "foreign keys of covered tables refer to tables that are left out: the target does without them (`cut_foreign_keys`), \
            and at the source they are not checked for what comes from the target";
        drafts.push(Draft::warning(Side::Target, message).evidence(lines(&outwards)));
    } else if !outwards.is_empty() {
        let message = "foreign keys of covered tables refer to tables that are left out: they can't be built at the target";
        let advice = "include those tables in [tables] of the plan, or set cut_foreign_keys = true there: then the target does without these constraints";
        drafts.push(Draft::new(severity(context), Side::Source, message).evidence(lines(&outwards)).fix(Fix::advice(advice)));
    }
    if !inwards.is_empty() {
        let message = "foreign keys of tables that are left out refer to covered tables: once the target is in charge, rows that they refer to \
            can go away, and nothing at the source checks or cascades that";
        let advice = "include those tables in [tables] of the plan, or drop the constraints at the source before the switch";
        drafts.push(Draft::warning(Side::Source, message).evidence(lines(&inwards)).fix(Fix::advice(advice)));
    }
    Ok(drafts)
}

/// Views, defaults, policies, functions, types and columns that depend on what is left out, by the catalogue.
async fn needed(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = with_outside(
        context,
        ", wanted AS (SELECT 'pg_catalog.pg_class'::regclass AS classid, oid FROM outside \
             UNION ALL SELECT 'pg_catalog.pg_type'::regclass, x.oid FROM pg_catalog.pg_type t \
                 CROSS JOIN LATERAL (VALUES (t.oid), (t.typarray)) x (oid) WHERE t.typrelid IN (SELECT oid FROM outside) AND x.oid <> 0), \
         needs AS (SELECT DISTINCT d.classid, d.objid, w.classid AS wanted_class, w.oid AS wanted, COALESCE( \
                 CASE WHEN d.classid = 'pg_catalog.pg_class'::regclass THEN d.objid END, \
                 (SELECT r.ev_class FROM pg_catalog.pg_rewrite r WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid), \
                 (SELECT a.adrelid FROM pg_catalog.pg_attrdef a WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid), \
                 (SELECT p.polrelid FROM pg_catalog.pg_policy p WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid), \
                 (SELECT t.tgrelid FROM pg_catalog.pg_trigger t WHERE d.classid = 'pg_catalog.pg_trigger'::regclass AND t.oid = d.objid), \
                 (SELECT k.conrelid FROM pg_catalog.pg_constraint k WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid)) AS owner \
             FROM pg_catalog.pg_depend d JOIN wanted w ON w.classid = d.refclassid AND w.oid = d.refobjid WHERE d.deptype = 'n' \
                 AND NOT (d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass) \
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k \
                     WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid AND k.contype = 'f')) \
         SELECT pg_catalog.format('%s needs %s', \
             CASE WHEN s.classid = 'pg_catalog.pg_rewrite'::regclass THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, s.owner, 0) \
                  ELSE pg_catalog.pg_describe_object(s.classid, s.objid, 0) END, pg_catalog.pg_describe_object(s.wanted_class, s.wanted, 0)) \
         FROM needs s WHERE s.owner IS NULL OR s.owner NOT IN (SELECT oid FROM outside) ORDER BY 1",
    );
    let found = context.source.lines("looking for what needs what is left out", &sql).await?;
    if found.is_empty() {
        return Ok(None);
    }
    if context.plan.tables.filter.definitions {
        let message = "what is covered reads tables that are left out, and finds them without rows at the target";
        return Ok(Some(Draft::warning(Side::Source, message).evidence(found)));
    }
    let message = "what is covered needs what is left out: it can't be made at the target";
    let advice = "in [tables] of the plan: include what is needed, or leave out the views that need it, or set definitions = true, \
        so that the target has what is left out, without rows; or drop what needs it";
    Ok(Some(Draft::new(severity(context), Side::Source, message).evidence(found).fix(Fix::advice(advice))))
}

/// The body of a function is text to the server. A trigger that writes into a table that is not there fails every write
/// to its own table, so its text is looked at.
async fn named_by_triggers(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = with_outside(
        context,
        &format!(
            ", used AS MATERIALIZED (SELECT DISTINCT t.tgfoid, c.oid FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal AND t.tgname <> 'cutover_gate' AND {}) \
             SELECT pg_catalog.format('%s: its trigger runs %s, which names %I.%I', u.oid::regclass, p.oid::regprocedure, o.nspname, o.relname) \
             FROM used u JOIN pg_catalog.pg_proc p ON p.oid = u.tgfoid JOIN outside o ON o.relkind <> 'S' \
                 AND p.prosrc ~* ('\\m' || pg_catalog.regexp_replace(o.relname, '([^[:alnum:]_])', '\\\\\\1', 'g') || '\\M') ORDER BY 1",
            context.source.covered
        ),
    );
    let found = context.source.lines("looking for what triggers name", &sql).await?;
    if found.is_empty() || context.plan.tables.filter.definitions {
        return Ok(None);
    }
    let message =
        "functions of triggers on covered tables name what is left out: if they use it, every write to those tables fails at the target";
    let advice = "include what they name in [tables] of the plan, or set definitions = true there, so that the target has it without rows";
    Ok(Some(Draft::warning(Side::Source, message).evidence(found).fix(Fix::advice(advice))))
}

/// A sequence moves when a covered table uses it.
async fn shared_sequences(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let sql = with_outside(
        context,
        &format!(
            "SELECT DISTINCT pg_catalog.format('%I.%I, used by %s', n.nspname, c.relname, a.adrelid::regclass) \
             FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef a ON a.oid = d.objid JOIN pg_catalog.pg_class c ON c.oid = d.refobjid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass \
                 AND d.refclassid = 'pg_catalog.pg_class'::regclass AND c.relkind = 'S' AND a.adrelid IN (SELECT oid FROM outside) AND {} ORDER BY 1",
            context.source.covered
        ),
    );
    let found = context.source.lines("looking for sequences that both sides use", &sql).await?;
    let message = "sequences move with covered tables, and tables that are left out take values from them as well: after a switch each side \
        counts on its own, and a way back sets the source's";
    let fix = Fix::advice("give the tables that are left out a sequence of their own");
    Ok((!found.is_empty()).then(|| Draft::warning(Side::Source, message).evidence(found).fix(fix)))
}
