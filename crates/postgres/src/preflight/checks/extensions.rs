//! The target can have the source's extensions.
//!
//! The schema refers to their types and functions; where one can't be made, the schema does not load.

use std::collections::HashMap;

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::names::ident;

pub(crate) const CHECK: Check = Check {
    name: "extensions",
    about: "the schema does not load where an extension that it uses can't be made",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// An extension as the target can have it.
struct Offer {
    default_version: String,
    installed: Option<String>,
    /// Whether our role may create it.
    creatable: bool,
}

async fn ask(context: &Context<'_>) -> Verdict {
    let sql = "SELECT extname::text, extversion FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql' ORDER BY 1";
    let rows = context.source.query("listing the source's extensions", sql, &[]).await?;
    let wanted: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let offers = offers(&context.target).await?;
    let mut drafts: Vec<Draft> =
        wanted.iter().filter_map(|(name, version)| judge(&context.target, name, version, offers.get(name))).collect();
    drafts.extend(preloaded(context));
    Ok(drafts)
}

async fn offers(target: &Examined<'_>) -> Result<HashMap<String, Offer>, Inconclusive> {
    let sql = "SELECT a.name::text, a.default_version, a.installed_version, r.rolsuper OR NOT v.superuser \
             OR v.trusted AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') \
         FROM pg_catalog.pg_available_extensions a JOIN pg_catalog.pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version \
         JOIN pg_catalog.pg_roles r ON r.rolname = current_user";
    let rows = target.query("listing the extensions that the target can have", sql, &[]).await?;
    let offer = |row: &tokio_postgres::Row| Offer { default_version: row.get(1), installed: row.get(2), creatable: row.get(3) };
    Ok(rows.iter().map(|row| (row.get(0), offer(row))).collect())
}

fn judge(target: &Examined<'_>, name: &str, version: &str, offer: Option<&Offer>) -> Option<Draft> {
    let Some(offer) = offer else {
        let message = format!("extension {name} {version} is not available at the target");
        let advice = format!(
            "install its package there (on Debian, look with `apt-cache search postgresql-{} {name}`), or drop it at the source if nothing uses it",
            target.facts.major
        );
        return Some(Draft::error(Side::Target, message).fix(Fix::advice(advice)));
    };
    match &offer.installed {
        Some(installed) if is_older(installed, version) => {
            let message = format!("extension {name} is older at the target: {installed}, and {version} at the source");
            Some(Draft::warning(Side::Target, message).fix(Fix::sql(Side::Target, [format!("ALTER EXTENSION {} UPDATE;", ident(name))])))
        }
        Some(_) => None,
        None if !offer.creatable => {
            let message = format!("extension {name} has to be made by a superuser at the target, and our role is none");
            Some(
                Draft::error(Side::Target, message)
                    .fix(Fix::sql(Side::Target, [format!("CREATE EXTENSION IF NOT EXISTS {};", ident(name))])),
            )
        }
        None if is_older(&offer.default_version, version) => {
            let message = format!("extension {name} would be older at the target: {}, and {version} at the source", offer.default_version);
            let advice = "install a newer package of it at the target; what the newer version added is missing otherwise";
            Some(Draft::warning(Side::Target, message).fix(Fix::advice(advice)))
        }
        None => None,
    }
}

/// Compares `1.10` and `1.9` by their numbers. What is no number decides nothing.
fn is_older(version: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> { text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect() };
    numbers(version) < numbers(than)
}

/// Libraries that the source's server loads at its start. Which they are, only some roles may see.
fn preloaded(context: &Context<'_>) -> Option<Draft> {
    let libraries = |side: Side| context.side(side).facts.settings.text("shared_preload_libraries").map(split);
    let (source, target) = (libraries(Side::Source)?, libraries(Side::Target)?);
    let missing: Vec<String> = source.into_iter().filter(|library| !target.contains(library)).collect();
    if missing.is_empty() {
        return None;
    }
    let message = "libraries that the source loads at its start and the target does not";
    let advice = format!("if they are needed, add to shared_preload_libraries at the target and restart it: {}", missing.join(", "));
    Some(Draft::warning(Side::Target, message).evidence(missing).fix(Fix::advice(advice)))
}

fn split(list: &str) -> Vec<String> {
    list.split(',').map(|library| library.trim().trim_matches('"').to_owned()).filter(|library| !library.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(is_older("1.9", "1.10"));
        assert!(!is_older("1.10", "1.9"));
        assert!(!is_older("2.1", "2.1"));
        assert!(is_older("3.3.2", "3.4"));
        assert!(!is_older("unpackaged", "unpackaged"));
    }

    #[test]
    fn libraries_are_split_as_the_server_does() {
        assert_eq!(split("pg_stat_statements, \"auto_explain\""), ["pg_stat_statements", "auto_explain"]);
        assert!(split("").is_empty());
    }
}
