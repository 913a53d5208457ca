//! Settings of the server that clients see: how values look, how long statements may take, how many may come.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    context::Examined,
    defaults::{Scope, SessionDefault},
    finding::{Draft, Fix},
    text::bytes,
};

pub(crate) const CHECK: Check = Check {
    name: "settings",
    about: "clients that are pointed at a server with other settings get other answers, or none",
    probe: Probe::Facts(judge),
};

/// Settings that sessions begin with and that change answers, with what clients see of them.
const VISIBLE: &[(&str, &str)] = &[
    ("TimeZone", "times with a time zone are shown, and days begin, otherwise"),
    ("DateStyle", "dates are read and shown otherwise"),
    ("IntervalStyle", "intervals are shown otherwise"),
    ("bytea_output", "bytea is shown otherwise"),
    ("extra_float_digits", "floats are shown with other digits"),
    ("standard_conforming_strings", "a backslash in a string means something else"),
    ("backslash_quote", "\\' in a string is refused or not"),
    ("array_nulls", "NULL in an array's text means something else"),
    ("transform_null_equals", "= NULL means something else"),
    ("xmlbinary", "bytea in XML is shown otherwise"),
    ("xmloption", "XML is taken as a document or not"),
    ("lc_messages", "errors are told in another language"),
    ("lc_monetary", "money is shown otherwise"),
    ("lc_numeric", "to_char shows numbers otherwise"),
    ("lc_time", "to_char shows names of days and months otherwise"),
    ("default_text_search_config", "texts are searched by another language's rules"),
    ("client_encoding", "a client that does not say its encoding gets another"),
    ("search_path", "names without a schema mean something else"),
    ("row_security", "policies are applied or refused"),
    ("default_transaction_isolation", "transactions see, and fail on, other things"),
    ("default_transaction_deferrable", "read-only serializable transactions wait or not"),
    ("statement_timeout", "statements are cancelled sooner or later"),
    ("lock_timeout", "waits for locks end sooner or later"),
    ("idle_in_transaction_session_timeout", "sessions idle in a transaction end sooner or later"),
    ("idle_session_timeout", "idle sessions end sooner or later"),
    ("transaction_timeout", "transactions end sooner or later"),
    ("password_encryption", "passwords that are set from now on are kept otherwise, and old clients may not know how to log in"),
];

/// Those of which our own session shows what it was made with, not what the server says.
const OURS: [&str; 11] = [
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "bytea_output",
    "extra_float_digits",
    "client_encoding",
    "search_path",
    "default_transaction_isolation",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
];

/// Settings that limit what a server takes at once; all need a restart.
const LIMITS: [&str; 3] = ["max_connections", "max_prepared_transactions", "max_locks_per_transaction"];

fn judge(context: &Context<'_>) -> Verdict {
    let here = context.authority.unwrap_or(Side::Source);
    let (here, there) = (context.side(here), context.side(here.other()));
    Ok([visible(here, there), smaller(here, there), less_memory(here, there), without_tls(here, there)].into_iter().flatten().collect())
}

fn visible(here: &Examined<'_>, there: &Examined<'_>) -> Option<Draft> {
    let mut lines = Vec::new();
    let mut statements = Vec::new();
    for (name, seen) in VISIBLE {
        let (Some(ours), Some(other)) = (value(here, name), value(there, name)) else { continue };
        if normal(&ours) != normal(&other) {
            lines.push(format!("{name} is {} at the {} and {} at the {}: {seen}", shown(&ours), here.side, shown(&other), there.side));
            statements.push(SessionDefault { scope: Scope::Server, name: (*name).to_owned(), value: ours }.set_sql());
        }
    }
    statements.push("SELECT pg_catalog.pg_reload_conf();".to_owned());
    let message = format!("settings that clients see differ between the servers: {}", lines.len());
    (!lines.is_empty()).then(|| Draft::warning(there.side, message).evidence(lines).fix(Fix::sql(there.side, statements)))
}

/// What the server gives a session that asks for nothing; none where that can't be known.
fn value(side: &Examined<'_>, name: &str) -> Option<String> {
    let from_file = side.facts.defaults.iter().find(|setting| setting.scope == Scope::Server && setting.name.eq_ignore_ascii_case(name));
    match from_file {
        Some(setting) if OURS.contains(&name) => Some(setting.value.clone()),
        None if OURS.contains(&name) => {
            side.facts.sees_server_defaults.then(|| side.facts.settings.built_in(name).map(str::to_owned)).flatten()
        }
        _ => side.facts.settings.text(name).map(str::to_owned),
    }
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "empty" } else { value }
}

/// One spelling of a value: times in milliseconds, everything else in small letters.
fn normal(value: &str) -> String {
    let value = value.trim().to_ascii_lowercase();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let factor = match value[digits..].trim() {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return value.split_whitespace().collect(),
    };
    value[..digits].parse::<u64>().map_or(value, |number| (number * factor).to_string())
}

fn smaller(here: &Examined<'_>, there: &Examined<'_>) -> Option<Draft> {
    let number = |side: &Examined<'_>, name| side.facts.settings.number(name);
    let lower: Vec<(&str, i64, i64)> = LIMITS
        .iter()
        .filter_map(|name| Some((*name, number(here, name)?, number(there, name)?)))
        .filter(|(_, ours, other)| other < ours)
        .collect();
    let lines = lower.iter().map(|(name, ours, other)| format!("{name} is {ours} at the {} and {other} at the {}", here.side, there.side));
    let statements = lower.iter().map(|(name, ours, _)| format!("ALTER SYSTEM SET {name} = {ours}; -- then restart the server"));
    let message = "the server takes less at once: clients that find no place are refused";
    (!lower.is_empty()).then(|| Draft::warning(there.side, message).evidence(lines).fix(Fix::sql(there.side, statements)))
}

fn less_memory(here: &Examined<'_>, there: &Examined<'_>) -> Option<Draft> {
    let of = |side: &Examined<'_>| side.facts.settings.bytes("work_mem");
    let (ours, other) = (of(here)?, of(there)?);
    let message = format!(
        "work_mem is {} at the {} and {} at the {}: large sorts go to disk and plans change",
        bytes(ours),
        here.side,
        bytes(other),
        there.side
    );
    let sql = [format!("ALTER SYSTEM SET work_mem = '{}kB';", ours / 1024), "SELECT pg_catalog.pg_reload_conf();".to_owned()];
    (other * 2 < ours).then(|| Draft::warning(there.side, message).fix(Fix::sql(there.side, sql)))
}

fn without_tls(here: &Examined<'_>, there: &Examined<'_>) -> Option<Draft> {
    let on = |side: &Examined<'_>| side.facts.settings.text("ssl").map(|value| value == "on");
    let message = "the server does not encrypt: clients with sslmode=require or higher can't connect";
    let advice = "give it a certificate (ssl_cert_file, ssl_key_file), then set ssl = on";
    (on(here)? && !on(there)?).then(|| Draft::warning(there.side, message).fix(Fix::advice(advice)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_spelling() {
        assert_eq!(normal("30s"), normal("30000ms"));
        assert_eq!(normal("0"), "0");
        assert_eq!(normal("ISO, MDY"), normal("iso,mdy"));
        assert_ne!(normal("UTC"), normal("Europe/Berlin"));
        assert_ne!(normal("1min"), normal("1s"));
    }
}
