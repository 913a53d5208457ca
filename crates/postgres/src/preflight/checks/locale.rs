//! Encoding and collation: the same text at both sides, in the same order.
//!
//! Text that the target's encoding can't hold stops the copy. Where text sorts differently, range partitions and
//! queries with ORDER BY come out differently. A collation that changed under an index has damaged it already: duplicates
//! that a unique index let through stop the build of that index at the target.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    facts::Database,
    finding::{Draft, Fix, Inconclusive},
};
use crate::names::ident;

pub(crate) const CHECK: Check = Check {
    name: "locale",
    about: "text that the target's encoding can't hold stops the copy, and another collation sorts differently",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

async fn ask(context: &Context<'_>) -> Verdict {
    let (source, target) = (&context.source.facts.database, &context.target.facts.database);
    let mut drafts = Vec::new();
    drafts.extend(encoding(&source.encoding, &target.encoding));
    drafts.extend(collation(source, target));
    drafts.extend(context.sides().into_iter().filter_map(changed));
    drafts.extend(missing(context).await?);
    Ok(drafts)
}

fn encoding(source: &str, target: &str) -> Option<Draft> {
    if source == target {
        return None;
    }
    let message = format!("the source's encoding is {source}, the target's {target}");
    let fix = Fix::advice(format!("make the target's database with ENCODING '{source}' TEMPLATE template0"));
    // Everything can be said in UTF8, except what was never said to be in any encoding.
    Some(if target == "UTF8" && source != "SQL_ASCII" {
        Draft::warning(Side::Target, format!("{message}: text is converted on the way, and lengths in bytes change")).fix(fix)
    } else {
        Draft::error(Side::Target, format!("{message}: text that it can't hold stops the copy or the stream")).fix(fix)
    })
}

fn collation(source: &Database, target: &Database) -> Option<Draft> {
    let described = [describe(source), describe(target)];
    if described[0] == described[1] {
        return None;
    }
    let message = "text sorts differently at the target: queries with ORDER BY, and range partitions by text, come out differently";
    let evidence = [format!("source: {}", described[0]), format!("target: {}", described[1])];
    let advice = "make the target's database with the source's locale and provider, TEMPLATE template0";
    Some(Draft::warning(Side::Target, message).evidence(evidence).fix(Fix::advice(advice)))
}

fn describe(database: &Database) -> String {
    let provider = match database.provider.as_str() {
        "i" => "icu",
        "b" => "builtin",
        _ => "libc",
    };
    let locale = database.locale.as_ref().map(|locale| format!(", locale {locale}")).unwrap_or_default();
    format!("{provider}, collate {}, ctype {}{locale}", normalise(&database.collate), normalise(&database.ctype))
}

/// `en_US.UTF-8` and `en_US.utf8` are one locale.
fn normalise(locale: &str) -> String {
    match locale.split_once('.') {
        Some((language, encoding)) => format!("{language}.{}", encoding.to_lowercase().replace('-', "")),
        None => locale.to_owned(),
    }
}

fn changed(side: &Examined<'_>) -> Option<Draft> {
    let (then, now) = side.facts.database.collation_versions.as_ref().filter(|(then, now)| then != now)?;
    let database = ident(&side.facts.database.name);
    let message = format!("the collation was version {then} when the database was made and is {now} now: indexes on text may be damaged");
    let fix = [format!("REINDEX DATABASE {database};"), format!("ALTER DATABASE {database} REFRESH COLLATION VERSION;")];
    Some(Draft::warning(side.side, message).fix(Fix::sql(side.side, fix)))
}

/// The server's own collations that columns name and the target lacks; the user's own come with the schema.
async fn missing(context: &Context<'_>) -> Result<Option<Draft>, Inconclusive> {
    let covered = &context.source.covered;
    let sql = format!(
        "SELECT l.collname::text, pg_catalog.min(pg_catalog.format('%I.%I.%I', n.nspname, c.relname, a.attname)) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
         WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND l.collnamespace = 'pg_catalog'::regnamespace \
             AND l.collname NOT IN ('default', 'C', 'POSIX') AND {covered} GROUP BY 1 ORDER BY 1"
    );
    let rows = context.source.query("looking at collations", &sql, &[]).await?;
    let used: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let names: Vec<&str> = used.iter().map(|(name, _)| name.as_str()).collect();
    let sql = "SELECT w::text FROM pg_catalog.unnest($1::text[]) w WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_collation l \
         WHERE l.collname = w AND l.collnamespace = 'pg_catalog'::regnamespace \
           AND l.collencoding IN (-1, (SELECT encoding FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())))";
    let rows = context.target.query("looking for collations", sql, &[&names]).await?;
    let missing: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let evidence = used.iter().filter(|(name, _)| missing.contains(name)).map(|(name, column)| format!("{name}, e.g. for {column}"));
    let advice = "install the locale in the target's operating system, then run SELECT pg_import_system_collations('pg_catalog') there";
    Ok(Some(
        Draft::error(Side::Target, "collations that columns use do not exist at the target").evidence(evidence).fix(Fix::advice(advice)),
    ))
}

#[cfg(test)]
mod tests {
    use super::{super::super::Severity, *};

    #[test]
    fn spellings_of_one_locale_are_one() {
        assert_eq!(normalise("en_US.UTF-8"), normalise("en_US.utf8"));
        assert_ne!(normalise("en_US.UTF-8"), normalise("de_DE.UTF-8"));
        assert_eq!(normalise("C"), "C");
    }

    #[test]
    fn everything_fits_into_utf8_but_what_is_unknown() {
        let severity = |source, target| encoding(source, target).map(|draft| draft.finish("c").severity);
        assert_eq!(severity("UTF8", "UTF8"), None);
        assert_eq!(severity("LATIN1", "UTF8"), Some(Severity::Warning));
        assert_eq!(severity("SQL_ASCII", "UTF8"), Some(Severity::Error));
        assert_eq!(severity("UTF8", "LATIN1"), Some(Severity::Error));
    }
}
