//! What the clients say: the statements that `pg_stat_statements` has counted at their side.

use super::{
    super::{
        context::{Context, Examined},
        finding::Inconclusive,
    },
    text::Text,
};
use crate::names::ident;

/// Statements that are read, the most frequent first; `pg_stat_statements.max` is 5000 unless somebody raised it.
const MOST: i64 = 10_000;

/// Characters of one statement that are read.
const LONGEST: usize = 100_000;

/// For how long calls must have been counted for "nobody uses it" to mean something: a day has all hours in it.
const LONG_ENOUGH_S: f64 = 86_400.0;

/// What was counted, or why nothing was.
pub(super) struct Statements {
    pub(super) all: Vec<Statement>,
    /// Why what nobody said may be used all the same; none where it was looked for long enough.
    pub(super) doubt: Option<String>,
    /// What was counted and left out, for a note.
    pub(super) left_out: Option<String>,
}

/// A statement with its numbers.
pub(super) struct Statement {
    /// `queryid`.
    pub(super) id: i64,
    pub(super) role: String,
    pub(super) calls: i64,
    /// As it was normalised: `$1` for each constant.
    pub(super) sql: String,
    pub(super) text: Text,
    pub(super) trial: Trial,
}

/// What a server said when it was asked to prepare a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// It was not asked, or could not tell.
    Unknown,
    /// It prepares it.
    Works,
    /// It does not, and the clients' own side does.
    Fails(String),
}

impl Statement {
    /// For evidence.
    pub(super) fn describe(&self) -> String {
        let calls = if self.calls == 1 { "1 call".to_owned() } else { format!("{} calls", self.calls) };
        format!("statement {}, {calls} by {}: {}", self.id, self.role, self.text.shown())
    }

    /// What `accept` calls it.
    pub(super) fn name(&self) -> String {
        format!("statement {}", self.id)
    }
}

impl Statements {
    fn none(doubt: impl Into<String>) -> Self {
        Self { all: Vec::new(), doubt: Some(doubt.into()), left_out: None }
    }

    pub(super) async fn read(context: &Context<'_>, side: &Examined<'_>) -> Result<Self, Inconclusive> {
        let sql = "SELECT n.nspname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
             WHERE e.extname = 'pg_stat_statements'";
        let Some(schema) = side.lines("looking for pg_stat_statements", sql).await?.into_iter().next() else {
            return Ok(Self::none(format!(
                "the {} has no pg_stat_statements in this database, so what clients say is not known",
                side.side
            )));
        };
        let sql = format!(
            "SELECT COALESCE(s.queryid, 0), COALESCE(r.rolname::text, s.userid::text), s.calls, pg_catalog.left(s.query, {LONGEST}), \
                 s.queryid IS NULL, COALESCE(r.rolname = current_user, false) \
             FROM {}.pg_stat_statements s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.userid \
             WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) \
             ORDER BY s.calls DESC LIMIT {MOST}",
            ident(&schema)
        );
        let rows = match side.client.query(&sql, &[]).await {
            Ok(rows) => rows,
            // Not preloaded, or not for us: then nothing is known, which is no reason to stop.
            Err(error) => {
                let reason = error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned());
                return Ok(Self::none(format!("pg_stat_statements of the {} can't be read: {reason}", side.side)));
            }
        };
        let ours_count = context.plan.application_roles.contains(&side.facts.role.name);
        let (mut all, mut hidden, mut ours, mut cut) = (Vec::new(), 0, 0, 0);
        for row in &rows {
            let sql: Option<String> = row.get(3);
            match sql {
                _ if row.get::<_, bool>(5) && !ours_count => ours += 1,
                Some(sql) if !row.get::<_, bool>(4) => {
                    cut += usize::from(sql.chars().count() >= LONGEST);
                    let text = Text::read(&sql);
                    all.push(Statement { id: row.get(0), role: row.get(1), calls: row.get(2), sql, text, trial: Trial::Unknown });
                }
                _ => hidden += 1,
            }
        }
        let left_out = (ours > 0).then(|| {
            format!(
                "{ours} statements of our own role `{}` are not looked at: name it in [application] roles if clients use it too",
                side.facts.role.name
            )
        });
        let doubt = match () {
            () if hidden > 0 => {
                Some(format!("{hidden} statements of pg_stat_statements are hidden from our role: GRANT pg_read_all_stats"))
            }
            () if cut > 0 => Some(format!("{cut} statements are longer than {LONGEST} characters and were not read to their end")),
            () => since(side, &schema).await?,
        };
        Ok(Self { all, doubt, left_out })
    }
}

/// Since when calls are counted, where that is not long enough or not known, or less frequent statements were forgotten.
async fn since(side: &Examined<'_>, schema: &str) -> Result<Option<String>, Inconclusive> {
    let view = format!("{}.pg_stat_statements_info", ident(schema));
    let known = "SELECT pg_catalog.to_regclass($1::text) IS NOT NULL, \
         COALESCE(pg_catalog.current_setting('pg_stat_statements.track', true), 'top')";
    let rows = side.query("looking since when calls are counted", known, &[&view]).await?;
    if rows.iter().any(|row| row.get::<_, String>(1) == "none") {
        return Ok(Some("pg_stat_statements.track is none: nothing is counted".to_owned()));
    }
    if !rows.iter().any(|row| row.get::<_, bool>(0)) {
        return Ok(Some("since when pg_stat_statements counts is not known before version 1.9 of it".to_owned()));
    }
    let sql = format!(
        "SELECT dealloc, pg_catalog.to_char(stats_reset AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI UTC'), \
             pg_catalog.date_part('epoch', pg_catalog.now() - stats_reset)::float8 FROM {view}"
    );
    let rows = side.query("looking since when calls are counted", &sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(Some("since when pg_stat_statements counts is not known".to_owned())) };
    let (forgotten, when): (i64, String) = (row.get(0), row.get(1));
    Ok(if row.get::<_, f64>(2) < LONG_ENOUGH_S {
        Some(format!("pg_stat_statements counts only since {when}"))
    } else if forgotten > 0 {
        Some(format!(
            "pg_stat_statements, which counts since {when}, has forgotten less frequent statements {forgotten} times: raise pg_stat_statements.max"
        ))
    } else {
        None
    })
}
