//! A small real HTTP server that stands in for a service: it speaks the documented shapes over a state of its own, and
//! does what services do when they have a bad day.

pub(crate) mod consul;
pub(crate) mod flagsmith;
pub(crate) mod launchdarkly;
pub(crate) mod split;
pub(crate) mod unleash;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub(crate) const TOKEN: &str = "hunter2";

/// What a service does with a request, over its state. A copy of the state is what a replica that is behind knows.
pub(crate) trait Api: Clone + PartialEq + Send + 'static {
    /// Whether the request shows the right token.
    fn lets_in(headers: &HeaderMap) -> bool;

    /// How it tells what went wrong.
    fn complaint(status: u16) -> Value;

    /// Does it.
    fn answer(&mut self, request: &Request) -> Reply;

    /// What the service's own SDK makes of the flag for an instance that gives this name of its database.
    fn says(&self, database: &str) -> bool;

    /// Somebody changes the flag by hand: it is open to everybody.
    fn opened_by_hand(&mut self);
}

/// A request, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Decoded.
    pub(crate) path: Vec<String>,
    pub(crate) query: HashMap<String, String>,
    pub(crate) content_type: String,
    pub(crate) body: Value,
    /// Whether it has waited for a change for as long as it wants to.
    pub(crate) waited: bool,
}

pub(crate) enum Reply {
    Json(u16, Value),
    Index(u64, Value),
    /// As soon as something changes, or after this.
    Later(Duration),
}

pub(crate) fn ok(body: Value) -> Reply {
    Reply::Json(200, body)
}

/// What goes wrong with the next requests, one each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Passes,
    /// Nothing is done, and this is answered; with `Retry-After` where there is one.
    Status(u16, Option<u64>),
    /// A page of a proxy.
    NoJson,
    /// Nothing is done, and nobody answers.
    Hangs,
    /// It is done, but the answer is lost.
    Lost,
    /// If it reads, it is answered from a replica that has not heard of the last change.
    Stale,
    /// It is done, and right after that somebody opens the flag by hand.
    Meddled,
}

pub(crate) struct Double<S> {
    pub(crate) url: String,
    desk: Arc<Desk<S>>,
    server: JoinHandle<()>,
}

struct Desk<S> {
    held: Mutex<Held<S>>,
    changes: watch::Sender<u64>,
}

struct Held<S> {
    state: S,
    before: S,
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    /// What every request meets once something has changed.
    then: Option<Fault>,
    requests: Vec<Request>,
    /// Each state that ever was, for who asks it.
    history: Vec<S>,
}

impl<S: Api> Double<S> {
    pub(crate) async fn start(state: S) -> Self {
        let held = Held {
            before: state.clone(),
            history: vec![state.clone()],
            state,
            faults: VecDeque::new(),
            always: None,
            then: None,
            requests: Vec::new(),
        };
        let desk = Arc::new(Desk { held: Mutex::new(held), changes: watch::channel(0).0 });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve::<S>).with_state(Arc::clone(&desk));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, desk, server }
    }

    /// What the next requests meet, in place of what was to come.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.held().faults = faults.into_iter().collect();
    }

    /// From now on every request, or none any more.
    pub(crate) fn fail_always(&self, fault: Option<Fault>) {
        self.held().always = fault;
    }

    /// From the next change on.
    pub(crate) fn fail_once_changed(&self, fault: Fault) {
        self.held().then = Some(fault);
    }

    pub(crate) fn state(&self) -> S {
        self.held().state.clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut S)) {
        self.desk.change(&mut self.held(), change);
    }

    /// What was asked since the last call.
    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.held().requests)
    }

    /// Every state since the last call, the one before it first.
    pub(crate) fn take_history(&self) -> Vec<S> {
        let mut held = self.held();
        let last = held.state.clone();
        std::mem::replace(&mut held.history, vec![last])
    }

    fn held(&self) -> MutexGuard<'_, Held<S>> {
        self.desk.held.lock().unwrap()
    }
}

impl<S> Drop for Double<S> {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl<S: Api> Desk<S> {
    fn change<T>(&self, held: &mut Held<S>, change: impl FnOnce(&mut S) -> T) -> T {
        let before = held.state.clone();
        let outcome = change(&mut held.state);
        if held.state != before {
            held.before = before;
            held.always = held.then.take().or_else(|| held.always.take());
            held.history.push(held.state.clone());
            self.changes.send_modify(|changes| *changes += 1);
        }
        outcome
    }

    /// The answer, from the state or from what was before it.
    fn answer(&self, request: &Request, fault: Option<&Fault>) -> Reply {
        let mut held = self.held.lock().unwrap();
        let reply = match fault {
            Some(Fault::Stale) if request.method == Method::GET => held.before.answer(request),
            _ => self.change(&mut held, |state| state.answer(request)),
        };
        if fault == Some(&Fault::Meddled) {
            self.change(&mut held, S::opened_by_hand);
        }
        reply
    }

    fn next_fault(&self, request: &Request) -> Option<Fault> {
        let mut held = self.held.lock().unwrap();
        held.requests.push(request.clone());
        held.faults.pop_front().or_else(|| held.always.clone())
    }
}

async fn serve<S: Api>(State(desk): State<Arc<Desk<S>>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut request = request(method, &uri, &headers, &body);
    if !S::lets_in(&headers) {
        return json_answer(401, &S::complaint(401));
    }
    let fault = desk.next_fault(&request);
    match &fault {
        Some(Fault::Status(status, retry_after)) => {
            let answer = json_answer(*status, &S::complaint(*status));
            return match retry_after {
                Some(seconds) => ([("retry-after", seconds.to_string())], answer).into_response(),
                None => answer,
            };
        }
        Some(Fault::NoJson) => return (StatusCode::OK, "<html>we are moving</html>").into_response(),
        Some(Fault::Hangs) => std::future::pending::<()>().await,
        _ => {}
    }
    let mut changes = desk.changes.subscribe();
    loop {
        let reply = desk.answer(&request, fault.as_ref());
        if matches!(fault, Some(Fault::Lost)) {
            return json_answer(502, &json!("Bad Gateway"));
        }
        match reply {
            Reply::Json(_, Value::Null) => return StatusCode::OK.into_response(),
            Reply::Json(status, body) => return json_answer(status, &body),
            Reply::Index(index, body) => return ([("x-consul-index", index.to_string())], json_answer(200, &body)).into_response(),
            Reply::Later(wait) => request.waited = tokio::time::timeout(wait, changes.changed()).await.is_err(),
        }
    }
}

fn request(method: Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Request {
    let url = reqwest::Url::parse(&format!("http://double{uri}")).unwrap();
    let path = url.path_segments().unwrap().map(|segment| segment.replace("%20", " ")).collect();
    let query = url.query_pairs().into_owned().collect();
    let content_type = headers.get("content-type").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() };
    Request { method, path, query, content_type, body, waited: false }
}

fn json_answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}
