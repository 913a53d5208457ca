//! Comparing both sides: a resource of its own beside what is driven, because whoever has to go back at once must not have to wait
//! for it. One at a time in a server; where it mends rows it drives, and the journal says whether it may.

use axum::{Json, extract::State, http::StatusCode};
use cutover_api::{Code, Drive, Outcome, Problem, VerifyRequest};
use cutover_engine::{Cutover, EngineResult, Failpoint, Found, Report, Wanted};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    auth::Caller,
    drive::{Asked, Listener, MOST_REASON, Wheel, outcome_of},
    permits::unreadable,
    problem::{NotAllowed, NotUnderstood, Refusal},
    serve::App,
    words,
};

/// Rows that may be mended at most: each that can't be is in the answer.
const MOST_REPAIRS: u32 = 10_000;

/// What is verified, or was verified last.
#[derive(Debug, Default)]
pub(crate) struct Bench {
    pub(crate) wheel: Wheel,
    found: watch::Sender<Option<Value>>,
}

/// How far a verification is, and what it found.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Verification {
    #[serde(flatten)]
    drive: Drive,
    /// As `cutover verify --output json` tells it; null while it goes on, and where it ended without.
    #[schema(value_type = Option<Object>)]
    found: Option<Value>,
}

/// Compares both sides, row by row, while they move, and asks them the plan's own checks. Where it is asked to, it makes rows
/// equal at the side that follows.
#[utoipa::path(post, path = "/v1/verify", tag = "verify", request_body = VerifyRequest, responses(
    (status = 202, description = "It compares; GET /v1/verify says how far it is and what it found", body = Drive),
    NotAllowed,
    NotUnderstood,
    (status = 409, description = "This server verifies already", body = Problem),
    (status = 503, description = "The server is closing", body = Problem)
))]
pub(crate) async fn begin(
    State(app): State<App>,
    caller: Caller,
    request: Asked<VerifyRequest>,
) -> Result<(StatusCode, Json<Drive>), Refusal> {
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    let (wanted, reason) = (understood(&app.cutover, &request)?, request.reason);
    app.refuse_when_closing()?;
    let drive = Drive { verb: "verify".to_owned(), actor: caller.name, reason, elapsed_ms: 0, told: None, outcome: None };
    let interrupt = app.bench.wheel.begin(None, drive.clone())?;
    app.bench.found.send_replace(None);
    tokio::spawn(work(app, wanted, drive.clone(), interrupt));
    Ok((StatusCode::ACCEPTED, Json(drive)))
}

/// What this server verifies, or verified last, and what it found: rows of the databases, by their keys.
#[utoipa::path(get, path = "/v1/verify", tag = "verify", responses(
    (status = 200, description = "How far it is; what it found once it has ended, of each kind the first 1,000", body = Verification),
    NotAllowed,
    (status = 404, description = "It has verified nothing yet", body = Problem)
))]
pub(crate) async fn look(State(app): State<App>) -> Result<Json<Verification>, Refusal> {
    let drive = app.bench.wheel.now().ok_or_else(nothing)?;
    let found = app.bench.found.borrow().clone().filter(|_| drive.outcome.is_some());
    Ok(Json(Verification { drive, found }))
}

/// Stops verifying. What was compared so far is not kept.
#[utoipa::path(delete, path = "/v1/verify", tag = "verify", responses(
    (status = 202, description = "It stops; GET /v1/verify says when it has", body = Drive),
    NotAllowed,
    (status = 404, description = "It has verified nothing yet", body = Problem)
))]
pub(crate) async fn stop(State(app): State<App>, caller: Caller) -> Result<(StatusCode, Json<Drive>), Refusal> {
    tracing::info!(actor = caller.name, "asked to stop verifying");
    app.bench.wheel.stop();
    app.bench.wheel.now().map(|drive| (StatusCode::ACCEPTED, Json(drive))).ok_or_else(nothing)
}

fn nothing() -> Refusal {
    Refusal::new(Code::NotFound, "this server has verified nothing yet").hint("POST /v1/verify begins")
}

fn understood(cutover: &Cutover, request: &VerifyRequest) -> Result<Wanted, Refusal> {
    let bad = |what: &str, hint: &str| Err(Refusal::new(Code::BadRequest, what).hint(hint));
    let tables = request.tables.iter().map(|name| cutover_engine::table(name)).collect::<Result<Vec<_>, _>>();
    let tables = tables.map_err(|what| Refusal::new(Code::BadRequest, what).hint("write schema.table, without quotes"))?;
    let wanted = Wanted { tables, only_checks: request.only_checks, values: request.values, repair: request.repair };
    if wanted.only_checks && (!wanted.tables.is_empty() || wanted.values || wanted.repair.is_some()) {
        return bad(
            "`only_checks` compares no tables, so it goes with neither `tables` nor `values` nor `repair`",
            "leave one of them away",
        );
    }
    if wanted.only_checks && cutover.checks_of(&wanted).is_empty() {
        return bad("the plan has no checks", "write one as a section [[check]]: a name and one query");
    }
    if wanted.repair.is_some_and(|most| !(1..=MOST_REPAIRS).contains(&most)) {
        return bad(
            "`repair` is the most rows that may be mended, here 1 to 10,000",
            "`cutover verify --repair` at the server's own machine mends more",
        );
    }
    if wanted.repair.is_some() && request.reason.trim().is_empty() {
        return bad("`reason` is empty", "say in a few words why rows are repaired, for the journal");
    }
    words::is_line(&request.reason, MOST_REASON).then_some(wanted).ok_or_else(crate::drive::bad_reason)
}

async fn work(app: App, wanted: Wanted, asked: Drive, interrupt: watch::Receiver<bool>) {
    let listener = Listener { story: &app.story, wheel: &app.bench.wheel };
    let by = || drive(&asked, &listener, interrupt.clone());
    let mut found = Found::default();
    let done = find(&app.cutover, &wanted, by, &mut found).await;
    let outcome = match (&done, found.shortfall()) {
        (Err(error), _) => outcome_of(error, "verify"),
        (Ok(()), None) => Outcome { code: 0, message: None, hint: None },
        (Ok(()), Some(short)) => Outcome { code: short.code, message: Some(short.message), hint: short.hint },
    };
    if done.is_ok() {
        app.bench.found.send_replace(serde_json::to_value(found.bounded()).ok());
    }
    app.story.tell("verified", json!(outcome));
    app.bench.wheel.end(outcome);
}

fn drive<'a>(asked: &Drive, report: &'a dyn Report, interrupt: watch::Receiver<bool>) -> cutover_engine::Drive<'a> {
    let (actor, reason) = (asked.actor.clone(), asked.reason.clone());
    cutover_engine::Drive { actor, reason, report, interrupt, failpoint: Failpoint::default() }
}

async fn find<'a>(cutover: &Cutover, wanted: &Wanted, by: impl Fn() -> cutover_engine::Drive<'a>, found: &mut Found) -> EngineResult<()> {
    if !wanted.only_checks {
        let tables = found.tables.insert(cutover.compare(&by(), wanted).await?);
        if wanted.repair.is_some() && tables.differences_total > 0 {
            found.repair = Some(cutover.mend(by(), wanted, tables).await?);
        }
    }
    for check in cutover.checks_of(wanted) {
        found.checks.push(cutover.ask(&by(), check).await?);
    }
    Ok(())
}
