//! Leases for clients that check before every write.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
};
use cutover_api::{Code, Permit, PermitRequest, Problem, Side, Writes};
use cutover_core::{
    self as core,
    clients::{Renewal, Who},
};
use tokio::time::{Instant, timeout};

use crate::{
    problem::{NotAllowed, NotUnderstood, Refusal},
    serve::App,
    view::View,
};

/// Gives a lease, takes an acknowledgement, and answers as soon as there is news.
#[utoipa::path(post, path = "/v1/permits", tag = "clients", request_body = PermitRequest, responses(
    (status = 200, description = "What holds, and for how long", body = Permit),
    NotAllowed,
    NotUnderstood,
    (status = 409, description = "An epoch that never was", body = Problem)
))]
pub(crate) async fn permit(State(app): State<App>, request: Result<Json<PermitRequest>, JsonRejection>) -> Result<Json<Permit>, Refusal> {
    let arrived = Instant::now();
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    check(&request)?;
    let renewal = Renewal {
        key: &request.incarnation,
        name: &request.instance,
        who: Who::Keeps { place: request.database.as_deref().and_then(|name| app.places.find(name)), acknowledged: request.acknowledged },
        until_ms: 0,
    };
    let (lease, view) = app.give_lease(&renewal, arrived).map_err(|future| {
        let message = format!("epoch {} is acknowledged, and the newest is {}", future.acknowledged, future.newest);
        Refusal::new(Code::Conflict, message).hint("this server may be behind another one: ask again")
    })?;
    if request.revision == Some(view.revision) {
        let longest = Duration::from_millis(request.wait_ms).min(app.lease / 2);
        let (mut views, mut closing) = (app.watcher.subscribe(), app.closing.clone());
        let news = views.wait_for(|view| Some(view.revision) != request.revision);
        let end = closing.wait_for(|closing| *closing);
        // Which of the three it was makes no difference: what holds now is told.
        let _ = timeout(longest, async {
            tokio::select! { _ = news => {}, _ = end => {} }
        })
        .await;
    }
    Ok(Json(answer(&app, &app.watcher.now(), request.database.as_deref(), lease)))
}

/// Forgets a client that has ended, so that nobody waits for its lease to run out.
#[utoipa::path(delete, path = "/v1/permits/{incarnation}", tag = "clients", params(("incarnation" = String, Path)), responses(
    (status = 204, description = "It has no lease any more"),
    NotAllowed
))]
pub(crate) async fn leave(State(app): State<App>, Path(incarnation): Path<String>) -> StatusCode {
    app.forget(&incarnation);
    StatusCode::NO_CONTENT
}

fn answer(app: &App, view: &View, database: Option<&str>, lease: Duration) -> Permit {
    let flags = app.flags(view);
    let route = flags.route;
    let why = flags.refusal(database);
    Permit {
        cutover: flags.cutover.to_owned(),
        revision: view.revision,
        epoch: route.epoch,
        authority: match route.authority {
            core::Side::Source => Side::Source,
            core::Side::Target => Side::Target,
        },
        writes: match route.writes {
            core::Writes::Open => Writes::Open,
            core::Writes::Held => Writes::Held,
        },
        stage: flags.stage().to_owned(),
        write: why.is_none(),
        why,
        // Rounded down: the client stops first.
        lease_ms: whole_ms(lease),
    }
}

fn check(request: &PermitRequest) -> Result<(), Refusal> {
    let fields = [("instance", request.instance.as_str(), 200), ("incarnation", &request.incarnation, 64)];
    let database = request.database.as_deref().map(|database| ("database", database, 500));
    for (name, text, most) in fields.into_iter().chain(database) {
        if text.is_empty() || text.chars().count() > most || text.chars().any(char::is_control) {
            return Err(Refusal::new(
                Code::BadRequest,
                format!("`{name}` has to have 1 to {most} characters, none of which is a control character"),
            ));
        }
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

/// Rounded down.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
