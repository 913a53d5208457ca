//! What the command line tells, over HTTP: status, steps, findings, the journal.

use axum::{
    Json,
    extract::{Query, State},
};
use cutover_api::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    problem::{NotAllowed, Refusal},
    serve::App,
};

/// Entries that one answer holds at most.
const MOST_ENTRIES: usize = 1000;

/// No further entry is put into an answer that is longer. One entry can have a megabyte. Unit: bytes.
const LONG: usize = 4 << 20;

/// Where everything stands: journal, both databases, streams, traffic, and in `shadow_tables` what `/v1/shadow-tables` answers. What
/// `cutover status --output json` tells.
#[utoipa::path(get, path = "/v1/status", tag = "look", responses(
    (status = 200, description = "Where everything stands", body = Object),
    NotAllowed,
    (status = 503, description = "The journal can't be read", body = Problem)
))]
pub(crate) async fn status(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let mut status = serde_json::to_value(app.cutover.status().await.map_err(Refusal::of)?).map_err(|error| Refusal::internal(&error))?;
    if let Some(tables) = app.front.board.look()? {
        status["shadow_tables"] = serde_json::to_value(tables).map_err(|error| Refusal::internal(&error))?;
    }
    Ok(Json(status))
}

/// The same as lines for a person, in a JSON string.
#[utoipa::path(get, path = "/v1/status/text", tag = "look", responses(
    (status = 200, description = "Where everything stands, as `cutover status` tells it", body = String, content_type = "application/json"),
    NotAllowed,
    (status = 503, description = "The journal can't be read", body = Problem)
))]
pub(crate) async fn status_text(State(app): State<App>) -> Result<Json<String>, Refusal> {
    let status = app.cutover.status().await.map_err(Refusal::of)?;
    let told = std::iter::once((app.tell.status)(&status)).chain(app.front.board.text());
    Ok(Json(told.collect::<Vec<_>>().join("\n")))
}

/// Every step in order, with the exact statement or call. Executes nothing; asks the source what the plan leaves out.
#[utoipa::path(get, path = "/v1/steps", tag = "look", responses(
    (status = 200, description = "Every step, the plan's checks, and what is left out", body = Steps),
    NotAllowed,
    (status = 503, description = "The journal can't be read", body = Problem)
))]
pub(crate) async fn steps(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let described = app.cutover.describe().await.map_err(Refusal::of)?;
    if let Some(error) = &described.left_out_unknown {
        tracing::warn!(error, "what is left out can't be told");
    }
    json(&described)
}

/// What the cutover did: its pauses, who asked for them and why. From the journal alone.
#[utoipa::path(get, path = "/v1/report", tag = "look", responses(
    (status = 200, description = "What it did", body = Report),
    NotAllowed,
    (status = 404, description = "The cutover has not begun", body = Problem),
    (status = 503, description = "The journal can't be read", body = Problem)
))]
pub(crate) async fn report(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    let account = app.cutover.account().await.map_err(Refusal::of)?;
    let nothing = || Refusal::new(Code::NotFound, "this cutover has not begun").hint("`cutover run --until ready` begins it");
    json(&account.ok_or_else(nothing)?)
}

/// What is in the way of the cutover, and how to mend it. Asks both databases, and changes nothing.
#[utoipa::path(post, path = "/v1/check", tag = "look", responses(
    (status = 200, description = "Every finding", body = Findings),
    NotAllowed,
    (status = 409, description = "There is nothing to check any more, or the plan covers other tables than the cutover", body = Problem),
    (status = 503, description = "A database can't be reached", body = Problem)
))]
pub(crate) async fn check(State(app): State<App>) -> Result<Json<Findings>, Refusal> {
    let findings = app.cutover.check().await.map_err(Refusal::of)?;
    let blocking = findings.iter().filter(|finding| finding.blocks()).count();
    let findings = findings.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(|error| Refusal::internal(&error))?;
    Ok(Json(Findings { blocking, findings }))
}

/// The journal's entries, oldest first.
#[utoipa::path(get, path = "/v1/journal", tag = "look", params(
    ("after" = Option<i64>, Query, minimum = 0, description = "Those behind the entry with this number"),
    ("limit" = Option<i32>, Query, minimum = 0, maximum = 65535, description = "At most so many; 1,000 where none is given, and never more. Fewer where they are long: ask on behind the last one")
), responses(
    (status = 200, description = "Entries", body = Journal),
    (status = 400, description = "Not understood", body = Problem),
    NotAllowed,
    (status = 503, description = "The journal can't be read", body = Problem)
))]
pub(crate) async fn journal(State(app): State<App>, Query(page): Query<Page>) -> Result<Json<Journal>, Refusal> {
    let entries = app.cutover.entries().await.map_err(Refusal::of)?;
    let after = page.after.map_or(0, u64::from);
    let newest = entries.last().map_or(0, |entry| entry.seq);
    let wanted = entries.iter().filter(|entry| entry.seq > after).take(page.limit.map_or(MOST_ENTRIES, usize::from).min(MOST_ENTRIES));
    let (mut page, mut bytes) = (Vec::new(), 0);
    for entry in wanted {
        let entry = serde_json::to_value(entry).map_err(|error| Refusal::internal(&error))?;
        bytes += entry.to_string().len();
        page.push(entry);
        if bytes > LONG {
            break;
        }
    }
    Ok(Json(Journal { journal: app.cutover.journal_location(), newest, entries: page }))
}

/// Whether the journal is as it was written: its chain is computed anew, and replayed.
#[utoipa::path(get, path = "/v1/journal/audit", tag = "look", responses(
    (status = 200, description = "What was found", body = Audit),
    NotAllowed,
    (status = 503, description = "The journal can't be read", body = Problem)
))]
pub(crate) async fn audit(State(app): State<App>) -> Result<Json<Audit>, Refusal> {
    let verified = app.cutover.audit().await.map_err(Refusal::of)?;
    Ok(Json(match verified {
        Ok(verified) => Audit { intact: true, head: Some(verified.head.to_string()), what: None },
        Err(tampered) => Audit { intact: false, head: None, what: Some(tampered.to_string()) },
    }))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    after: Option<Count>,
    limit: Option<u16>,
}

/// A number of an entry, as the store can have it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Count(u64);

impl TryFrom<i64> for Count {
    type Error = std::num::TryFromIntError;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        u64::try_from(number).map(Self)
    }
}

impl From<Count> for u64 {
    fn from(count: Count) -> Self {
        count.0
    }
}

/// What `cutover plan --output json` tells.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only what it documents is used")]
pub(crate) struct Steps {
    /// The plan's name.
    plan: String,
    /// Every step, in order.
    #[schema(value_type = Vec<Object>)]
    steps: Vec<Value>,
    /// The plan's own checks.
    #[schema(value_type = Vec<Object>)]
    checks: Vec<Value>,
    /// Which tables the plan covers.
    #[schema(value_type = Object)]
    tables: Value,
    /// What stays at the source, the largest first; null where the source can't be asked.
    #[schema(value_type = Option<Vec<Object>>)]
    left_out: Value,
}

/// What `cutover report --output json` tells.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only what it documents is used")]
pub(crate) struct Report {
    /// Where the cutover stands, by the journal.
    #[schema(value_type = Object)]
    state: Value,
    /// Every pause, the oldest first.
    #[schema(value_type = Vec<Object>)]
    pauses: Vec<Value>,
    /// Entries of the journal.
    entries: u64,
}

/// Findings of the preflight.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Findings {
    /// How many of them are in the way.
    blocking: usize,
    /// As `cutover check --output json` tells them.
    #[schema(value_type = Vec<Object>)]
    findings: Vec<Value>,
}

/// A page of the journal.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Journal {
    /// Where the journal is, as the server reaches it.
    journal: String,
    /// The number of the newest entry that there is.
    newest: u64,
    /// As `cutover audit --output json` tells them.
    #[schema(value_type = Vec<Object>)]
    entries: Vec<Value>,
}

/// Whether the journal was changed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Audit {
    /// Whether no entry was changed, removed, moved or slipped in.
    intact: bool,
    /// The newest entry's hash: keep it elsewhere to rule out that all of it was computed anew.
    head: Option<String>,
    /// What was found to be wrong.
    what: Option<String>,
}

fn json(value: &impl Serialize) -> Result<Json<Value>, Refusal> {
    serde_json::to_value(value).map(Json).map_err(|error| Refusal::internal(&error))
}
