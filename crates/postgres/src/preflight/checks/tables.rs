//! What the plan says of tables is about tables that exist.
//!
//! A pattern with a slip of the pen leaves a table out, or in, that nobody meant; a column that is misspelled is shown.

use cutover_core::{
    Side,
    plan::{TableSettings, nearest, spell},
};

use super::super::{
    Check, Context, Probe, Severity, Verdict,
    finding::{Draft, Fix, Inconclusive},
    text,
};
use crate::{
    PgError,
    catalogue::{QualifiedName, Table, USER_RELATION, tables_in},
    coverage::{Coverage, left_out, matches},
};

pub(crate) const CHECK: Check = Check {
    name: "tables",
    about: "a pattern or name in [tables] or [[table]] that matches nothing says something else than was meant",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    drafts.extend(unmatched(context).await?);
    drafts.extend(unknown(context).await?);
    drafts.extend(stays_behind(context).await?);
    Ok(drafts)
}

/// Patterns without a match. Once the cutover has begun they can't be mended any more, and need not be: a table that was
/// left out may be dropped.
async fn unmatched(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let patterns: Vec<_> = context.plan.tables.filter.patterns().collect();
    if patterns.is_empty() {
        return Ok(None);
    }
    let from = format!(
        "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND {USER_RELATION}"
    );
    let conditions: Vec<String> =
        patterns.iter().map(|(_, pattern)| format!("COALESCE(pg_catalog.bool_or({}), false)", matches(pattern))).collect();
    let rows =
        context.source.query("matching the plan's patterns", &format!("SELECT ARRAY[{}] {from}", conditions.join(", ")), &[]).await?;
    let matched: Vec<bool> = rows.first().map(|row| row.get(0)).unwrap_or_default();
    let lost: Vec<_> = patterns.iter().zip(matched).filter(|(_, matched)| !matched).map(|(pattern, _)| pattern).collect();
    if lost.is_empty() {
        return Ok(None);
    }
    let rows = context.source.query("listing relations", &format!("SELECT n.nspname::text, c.relname::text {from}"), &[]).await?;
    let known: Vec<String> = rows.iter().map(|row| spelled(row.get(0), row.get(1))).collect();
    let evidence = lost.iter().map(|(list, pattern)| {
        let pattern = pattern.to_string();
        format!("{list}: {pattern}{}", meant(&pattern, &known))
    });
    let severity = if context.prepared { Severity::Info } else { Severity::Error };
    let draft = Draft::new(severity, Side::Source, "patterns in [tables] of the plan match nothing at the source").evidence(evidence);
    let advice = "mend or remove them. A name with capitals or dots goes into double quotes: 'public.\"Orders\"'";
    Ok(Some(if context.prepared { draft } else { draft.fix(Fix::advice(advice)) }))
}

fn spelled(schema: &str, name: &str) -> String {
    format!("{}.{}", spell(schema), spell(name))
}

fn meant(word: &str, known: &[String]) -> String {
    nearest(word, known.iter().map(String::as_str)).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// Sections `[[table]]` about tables or columns that do not exist, or about tables that are left out.
async fn unknown(context: &Context<'_>) -> Result<Vec<Draft>, Inconclusive> {
    let settings = &context.plan.tables.settings;
    if settings.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |error: PgError| Inconclusive::at(Side::Source, &error);
    let all = tables_in(context.source.client, &Coverage::all()).await.map_err(failed)?;
    let covered = context.source.facts.tables()?;
    let known: Vec<String> = all.iter().map(|table| spelled(&table.name.schema, &table.name.name)).collect();
    let (mut wrong, mut idle) = (Vec::new(), Vec::new());
    for one in settings {
        let name = spelled(&one.schema, &one.name);
        match all.iter().find(|table| table.name == named(one)) {
            None => wrong.push(format!("{name}: there is no such table{}", meant(&name, &known))),
            Some(table) => {
                wrong.extend(unknown_columns(one, table));
                if !covered.iter().any(|covered| covered.name == table.name) {
                    idle.push(name);
                }
            }
        }
    }
    let mut drafts = Vec::new();
    if !wrong.is_empty() {
        let fix = Fix::advice("mend the names; columns are written as they are, without quotes");
        drafts
            .push(Draft::error(Side::Source, "sections [[table]] of the plan name what the source does not have").evidence(wrong).fix(fix));
    }
    if !idle.is_empty() {
        drafts.push(Draft::info(Side::Source, "sections [[table]] of the plan are about tables that [tables] leaves out").evidence(idle));
    }
    Ok(drafts)
}

fn named(settings: &TableSettings) -> QualifiedName {
    QualifiedName { schema: settings.schema.clone(), name: settings.name.clone() }
}

fn unknown_columns(settings: &TableSettings, table: &Table) -> Vec<String> {
    let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    let unknown = settings.redact.iter().filter(|column| !columns.contains(column));
    unknown.map(|column| format!("{}: there is no column {column} to redact{}", table.name, meant(column, &columns))).collect()
}

/// What is left out, so that nobody is surprised; and that something is left to do.
async fn stays_behind(context: &Context<'_>) -> Result<Vec<Draft>, Inconclusive> {
    let left_out = left_out(context.source.client, &context.coverage).await.map_err(|error| Inconclusive::at(Side::Source, &error))?;
    let left_out: Vec<_> = left_out.into_iter().filter(|relation| relation.kind != "sequence").collect();
    if left_out.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = left_out.iter().map(|relation| relation.bytes).sum();
    let message = format!(
        "[tables] leaves out {} of {}: they stay at the source, where nothing fences them, and {}",
        text::count(left_out.len(), "relation"),
        text::bytes(bytes),
        if context.plan.tables.filter.definitions { "arrive at the target without rows" } else { "do not exist at the target" }
    );
    let evidence = left_out.iter().map(|relation| format!("{}: {}, {}", relation.name, relation.kind, text::bytes(relation.bytes)));
    let mut drafts = vec![Draft::info(Side::Source, message).evidence(evidence)];
    if context.source.facts.tables()?.is_empty() {
        let fix = Fix::advice("include at least one table");
        drafts.push(Draft::error(Side::Source, "[tables] leaves out every table: there is nothing to move").fix(fix));
    }
    Ok(drafts)
}
