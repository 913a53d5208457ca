//! What happens, as it happens: server-sent events.

use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{FromRef, FromRequestParts, Query, State},
    http::{HeaderMap, request::Parts},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use cutover_api::{Code, Problem};
use cutover_journal::Entry;
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{broadcast, broadcast::error::RecvError, watch};

use crate::{
    front::{Front, Version, View},
    problem::{NotAllowed, Refusal},
    read::Count,
    serve::App,
    story::Told,
};

/// How often a silent stream says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// For how long a ticket opens a stream.
const TICKET_LIFE: Duration = Duration::from_secs(300);

/// Which events are wanted.
#[derive(Debug, Deserialize)]
pub(crate) struct After {
    /// Those behind the entry with this number.
    after: Option<Count>,
}

/// Each entry of the journal, each route, and what a driver in this server tells, as it comes.
#[utoipa::path(get, path = "/v1/events", tag = "look", params(
    ("after" = Option<i64>, Query, minimum = 0, description = "Begins behind the entry with this number; 0 for all. Else with what comes from now on"),
    ("last-event-id" = Option<String>, Header, description = "The same, as a browser says it when it connects again")
), responses(
    (status = 200, description = "Server-sent events: `entry` for each journal entry, `route` for the route behind it; of what this server drives `step`, `progress`, `waiting`, `note`, `warning`, `outcome`; `shadow_table` for each table with a shadow that stands somewhere else, and for all at the beginning", body = String, content_type = "text/event-stream"),
    (status = 400, description = "Not understood", body = Problem),
    NotAllowed,
    (status = 503, description = "The journal can't be read", body = Problem)
))]
pub(crate) async fn journal(State(app): State<App>, Query(after): Query<After>, headers: HeaderMap) -> Result<Response, Refusal> {
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    // Subscribed first: nothing is missed between what is read and what is told.
    let live = app.story.told();
    let after = resumed.or(after.after.map(u64::from)).unwrap_or_else(|| app.front.now().revision);
    let reader = Reader { ready: VecDeque::new(), told: after, behind: true, live, closing: app.front.closing.clone(), app };
    let events = stream::unfold(reader, |mut reader| async move { Some((Ok::<_, Infallible>(reader.next().await?), reader)) });
    Ok(sse(events))
}

/// A stream whose reader wants to hear that anything has changed, and asks for it then.
pub(crate) fn changes(front: &Front) -> Response {
    struct Changes {
        views: watch::Receiver<View>,
        closing: watch::Receiver<bool>,
        told: Option<Version>,
    }
    let changes = Changes { views: front.subscribe(), closing: front.closing.clone(), told: None };
    let events = stream::unfold(changes, |mut changes| async move {
        let told = changes.told;
        let next = async { changes.views.wait_for(|view| Some(view.version()) != told).await.ok().map(|view| view.version()) };
        let version = tokio::select! {
            version = next => version?,
            _ = changes.closing.wait_for(|closing| *closing) => return None,
        };
        changes.told = Some(version);
        let data = json!({ "type": "refetchEvaluation", "lastModified": seconds(SystemTime::now()) });
        Some((Ok::<_, Infallible>(Event::default().id(version.to_string()).data(data.to_string())), changes))
    });
    sse(events)
}

fn sse(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

/// Reads the journal for one stream: what was before from the store, what is new as it is told.
struct Reader {
    ready: VecDeque<Event>,
    /// The newest entry that was told.
    told: u64,
    /// Whether the store may hold more.
    behind: bool,
    live: broadcast::Receiver<Told>,
    closing: watch::Receiver<bool>,
    app: App,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if std::mem::take(&mut self.behind) {
                // A reader that hears nothing more connects again, and says where it was.
                for entry in self.app.cutover.entries().await.ok()? {
                    self.tell(&entry);
                }
                continue;
            }
            let live = tokio::select! {
                live = self.live.recv() => live,
                _ = self.closing.wait_for(|closing| *closing) => return None,
            };
            match live {
                Ok(Told::Entry(entry)) => self.tell(&entry),
                Ok(Told::Notice { kind, data }) => return Some(Event::default().event(kind).data(data.to_string())),
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn tell(&mut self, entry: &Entry) {
        if entry.seq <= self.told {
            return;
        }
        self.told = entry.seq;
        let event = |kind: &str, data: &serde_json::Value| Event::default().event(kind).id(entry.seq.to_string()).data(data.to_string());
        if let Ok(data) = serde_json::to_value(entry) {
            self.ready.push_back(event("entry", &data));
        }
        let view = self.app.front.now();
        if view.revision == entry.seq {
            self.ready.push_back(event("route", &json!(view.route)));
        }
    }
}

/// Opens one kind of stream for a short time: it stands in an address, where a token must not.
#[derive(Debug)]
pub(crate) struct Tickets {
    key: [u8; 32],
}

impl Tickets {
    pub(crate) fn new() -> Self {
        Self { key: rand::random() }
    }

    pub(crate) fn make(&self) -> String {
        let until = seconds(SystemTime::now() + TICKET_LIFE);
        format!("{until}-{}", self.sign(until))
    }

    fn is_good(&self, ticket: &str, now: u64) -> bool {
        let Some((until, signature)) = ticket.split_once('-') else { return false };
        until.parse().is_ok_and(|until| now < until && signature == self.sign(until))
    }

    /// The key stands before and behind, so that nothing can be added. What is compared is a hash that nobody can choose.
    fn sign(&self, until: u64) -> String {
        let inner = Sha256::new().chain_update(self.key).chain_update(until.to_be_bytes()).finalize();
        hex::encode(Sha256::new().chain_update(self.key).chain_update(inner).finalize())
    }
}

/// A request with a good ticket.
pub(crate) struct Ticket;

#[derive(Deserialize)]
struct TicketQuery {
    #[serde(default)]
    ticket: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Ticket
where
    Front: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<TicketQuery>::try_from_uri(&parts.uri).map(|Query(query)| query.ticket).unwrap_or_default();
        if Front::from_ref(state).tickets.is_good(&query, seconds(SystemTime::now())) {
            return Ok(Self);
        }
        Err(Refusal::new(Code::Unauthorized, "the ticket is not known, or has expired")
            .hint("ask for all flags again: the answer names a new address"))
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_a_time_and_for_nobody_else() {
        let tickets = Tickets::new();
        let ticket = tickets.make();
        let now = seconds(SystemTime::now());
        assert!(tickets.is_good(&ticket, now));
        assert!(!tickets.is_good(&ticket, now + TICKET_LIFE.as_secs() + 1), "it has expired");
        assert!(!Tickets::new().is_good(&ticket, now), "another server made it");
        let longer = ticket.replacen(ticket.split('-').next().unwrap(), &(now + 9_999).to_string(), 1);
        for forged in ["", "-", &longer, &ticket[..ticket.len() - 1]] {
            assert!(!tickets.is_good(forged, now), "{forged}");
        }
    }
}
