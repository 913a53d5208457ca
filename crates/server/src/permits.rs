//! Leases, for clients that check before every write, and for agents that lend to clients of their own.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
};
use cutover_api::{AgentPermit, AgentRequest, ClientSum, Code, Permit, PermitRequest, PlaceName, Problem};
use cutover_core::clients::{FutureEpoch, MOST_NAMES, Place, Renewal, Report, Who};
use tokio::time::Instant;

use crate::{
    front::{Front, Known, View, whole_ms},
    problem::{NotAllowed, NotUnderstood, Refusal},
    words,
};

/// More clients than this no agent has.
const MOST_CLIENTS: u64 = 10_000_000;

/// Gives a lease, takes an acknowledgement, and answers as soon as there is news.
#[utoipa::path(post, path = "/v1/permits", tag = "clients", request_body = PermitRequest, responses(
    (status = 200, description = "What holds, and for how long", body = Permit),
    NotAllowed,
    NotUnderstood,
    (status = 409, description = "An epoch that never was", body = Problem),
    (status = 503, description = "An agent that has not heard from its server yet", body = Problem)
))]
pub(crate) async fn permit(
    State(front): State<Front>,
    request: Result<Json<PermitRequest>, JsonRejection>,
) -> Result<Json<Permit>, Refusal> {
    let arrived = Instant::now();
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    let database = request.database.as_deref();
    let named = [("instance", request.instance.as_str(), 200), ("incarnation", &request.incarnation, 64)];
    for (name, text, most) in named.into_iter().chain(database.map(|database| ("database", database, 500))) {
        line(name, text, most)?;
    }
    let place = database.and_then(|name| front.now().places.find(name));
    let who = Who::Keeps { place, acknowledged: request.acknowledged };
    let renewal = Renewal { key: &clients_key(&request.incarnation), name: &request.instance, who, until_ms: 0 };
    let known = Known { revision: request.revision, tables: request.tables };
    let (lease, view) = lend(&front, &renewal, arrived, known, request.wait_ms).await?;
    let flags = front.flags(&view);
    let why = flags.refusal(database);
    Ok(Json(Permit {
        cutover: flags.cutover.to_owned(),
        revision: view.revision,
        epoch: view.route.epoch,
        authority: words::side(view.route.authority),
        writes: words::writes(view.route.writes),
        units: view.units.iter().map(words::unit).collect(),
        tables: view.tables.version,
        stage: flags.stage().to_owned(),
        write: why.is_none(),
        why,
        lease_ms: whole_ms(lease),
    }))
}

/// Gives an agent a lease, takes the sum of its clients, and answers as soon as there is news.
#[utoipa::path(post, path = "/v1/agents", tag = "clients", request_body = AgentRequest, responses(
    (status = 200, description = "What holds, and for how long", body = AgentPermit),
    NotAllowed,
    NotUnderstood,
    (status = 409, description = "An epoch that never was", body = Problem),
    (status = 503, description = "An agent that has not heard from its server yet", body = Problem)
))]
pub(crate) async fn agent(
    State(front): State<Front>,
    request: Result<Json<AgentRequest>, JsonRejection>,
) -> Result<Json<AgentPermit>, Refusal> {
    let arrived = Instant::now();
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    line("instance", &request.instance, 200)?;
    line("incarnation", &request.incarnation, 64)?;
    let report = request.clients.map(sum).transpose()?;
    let who = Who::Agent { beat: request.beat, report: report.as_ref() };
    let renewal = Renewal { key: &agents_key(&request.incarnation), name: &request.instance, who, until_ms: 0 };
    let known = Known { revision: request.revision, tables: request.tables };
    let (lease, view) = lend(&front, &renewal, arrived, known, request.wait_ms).await?;
    let place = |(name, place)| PlaceName { name, side: if let Place::At(side) = place { Some(words::side(side)) } else { None } };
    Ok(Json(AgentPermit {
        cutover: view.cutover.to_string(),
        revision: view.revision,
        epoch: view.route.epoch,
        authority: words::side(view.route.authority),
        writes: words::writes(view.route.writes),
        units: view.units.iter().map(words::unit).collect(),
        tables: view.tables.version,
        places: view.places.names().map(place).collect(),
        lease_ms: whole_ms(lease),
    }))
}

/// Forgets a client that has ended, so that nobody waits for its lease to run out.
#[utoipa::path(delete, path = "/v1/permits/{incarnation}", tag = "clients", params(("incarnation" = String, Path)), responses(
    (status = 204, description = "It has no lease any more"),
    NotAllowed
))]
pub(crate) async fn leave(State(front): State<Front>, Path(incarnation): Path<String>) -> StatusCode {
    front.forget(&clients_key(&incarnation));
    StatusCode::NO_CONTENT
}

/// Forgets an agent that has ended and whose clients have no lease any more.
#[utoipa::path(delete, path = "/v1/agents/{incarnation}", tag = "clients", params(("incarnation" = String, Path)), responses(
    (status = 204, description = "It has no lease any more"),
    NotAllowed
))]
pub(crate) async fn agent_leaves(State(front): State<Front>, Path(incarnation): Path<String>) -> StatusCode {
    front.forget(&agents_key(&incarnation));
    StatusCode::NO_CONTENT
}

/// Whatever somebody calls itself, it is taken for nobody of another kind.
fn clients_key(incarnation: &str) -> String {
    format!("client {incarnation}")
}

fn agents_key(incarnation: &str) -> String {
    format!("agent {incarnation}")
}

/// Lends, waits for news, and says by which view to answer.
async fn lend(front: &Front, renewal: &Renewal<'_>, arrived: Instant, known: Known, wait_ms: u64) -> Result<(Duration, View), Refusal> {
    if front.now().cutover.is_empty() {
        return Err(Refusal::new(Code::Unavailable, "this agent has not heard from its server yet").hint("its log says why; ask again"));
    }
    let (lease, view) = front.lend(renewal, arrived).map_err(|FutureEpoch { acknowledged, newest }| {
        let message = format!("epoch {acknowledged} is acknowledged, and the newest is {newest}");
        Refusal::new(Code::Conflict, message).hint("this server may be behind another one: ask again")
    })?;
    if known.differs(view.version()) {
        return Ok((lease, view));
    }
    front.news(known, Duration::from_millis(wait_ms).min(front.lease / 2)).await;
    Ok((lease, front.now()))
}

fn sum(told: ClientSum) -> Result<Report, Refusal> {
    let ClientSum { epoch, clients, behind, astray, unknown, names } = told;
    if [clients, behind, astray, unknown].iter().any(|many| *many > MOST_CLIENTS) || names.len() > MOST_NAMES {
        let message = format!("`clients` has to hold at most {MOST_CLIENTS} of each kind, and at most {MOST_NAMES} names");
        return Err(Refusal::new(Code::BadRequest, message));
    }
    names.iter().try_for_each(|name| line("names", name, 300))?;
    Ok(Report { epoch, clients, behind, astray, unknown, names, ..Report::default() })
}

pub(crate) fn line(name: &str, text: &str, most: usize) -> Result<(), Refusal> {
    if text.is_empty() || !words::is_line(text, most) {
        let message = format!("`{name}` has to have 1 to {most} characters, none of which is a control character");
        return Err(Refusal::new(Code::BadRequest, message));
    }
    Ok(())
}

pub(crate) fn unreadable(rejection: &JsonRejection) -> Refusal {
    let code = match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        _ => Code::BadRequest,
    };
    Refusal::new(code, rejection.body_text())
}
