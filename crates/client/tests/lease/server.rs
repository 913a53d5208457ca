//! A server that speaks the lease protocol by the core's own rules: what it says and counts is what `cutover serve` does.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{delete, post},
};
use cutover_client::{Builder, Client};
use cutover_core::{
    Route, Side, Writes,
    clients::{Clients, Flags, Place, Places, Renewal, Report, Unit, Who},
    plan::DatabaseUrl,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

pub(crate) const OLD: &str = "postgres://app:secret@old/shop";
pub(crate) const NEW: &str = "postgres://app:secret@new/shop";

/// Ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// Is called with each request, before it is answered.
type Listener = dyn Fn(&Value) + Send + Sync;

pub(crate) struct Shared {
    view: watch::Sender<View>,
    clients: Mutex<Clients>,
    places: Places,
    lease: Duration,
    since: Instant,
    /// Every request, in order, and `null` for a goodbye.
    heard: Mutex<Vec<Value>>,
    /// Every request that tells of operations, in order.
    told: Mutex<Vec<Value>>,
    listener: Box<Listener>,
}

#[derive(Clone)]
struct View {
    revision: u64,
    route: Route,
    /// Told; of older servers none.
    units: Vec<Unit>,
    /// What is answered instead.
    refuses: Option<StatusCode>,
}

impl Server {
    pub(crate) async fn start(lease: Duration) -> Self {
        Self::listened_to(lease, |_| ()).await
    }

    pub(crate) async fn listened_to(lease: Duration, listener: impl Fn(&Value) + Send + Sync + 'static) -> Self {
        let urls = [OLD, NEW].map(|url| DatabaseUrl::parse(url).unwrap());
        let places = Places::new([&urls[0], &urls[1]], [("pool".to_owned(), Place::Through)]).unwrap();
        let view = watch::Sender::new(View { revision: 1, route: Route::default(), units: vec![], refuses: None });
        let shared = Shared {
            view,
            clients: Mutex::default(),
            places,
            lease,
            since: Instant::now(),
            heard: Mutex::default(),
            told: Mutex::default(),
            listener: Box::new(listener),
        };
        let shared = Arc::new(shared);
        let app = Router::new().route("/v1/permits", post(permit)).route("/v1/permits/{incarnation}", delete(leave));
        let app = app.route("/v1/operations", post(operations));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = app.with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, task }
    }

    pub(crate) fn client(&self) -> Builder {
        client(&self.address)
    }

    /// A change of the route, under a new epoch, which is returned.
    pub(crate) fn change(&self, authority: Side, writes: Writes) -> u64 {
        self.shared.view.send_modify(|view| {
            view.revision += 1;
            view.route = Route { epoch: view.route.epoch + 1, authority, writes };
        });
        self.shared.view.borrow().route.epoch
    }

    /// A change of where reads go, under a new epoch.
    pub(crate) fn split(&self, units: &[(&str, u16)]) {
        self.shared.view.send_modify(|view| {
            view.revision += 1;
            view.route.epoch += 1;
            view.units = units
                .iter()
                .map(|(name, target_reads)| Unit { name: (*name).to_owned(), target_reads: *target_reads, table: None })
                .collect();
        });
    }

    /// Answers every request so from now on; none: as it should.
    pub(crate) fn refuse(&self, status: Option<StatusCode>) {
        self.shared.view.send_modify(|view| view.refuses = status);
    }

    /// What is written down for the driver.
    pub(crate) fn report(&self) -> Report {
        let route = self.shared.view.borrow().route;
        self.shared.clients.lock().unwrap().report(self.shared.now_ms(), route.epoch, route.authority)
    }

    pub(crate) fn heard(&self) -> Vec<Value> {
        self.shared.heard.lock().unwrap().clone()
    }

    pub(crate) fn told(&self) -> Vec<Value> {
        self.shared.told.lock().unwrap().clone()
    }

    pub(crate) fn goodbyes(&self) -> usize {
        self.heard().iter().filter(|heard| heard.is_null()).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap()
    }

    fn hear(&self, request: &Value) {
        self.heard.lock().unwrap().push(request.clone());
        (self.listener)(request);
    }
}

/// A client of whatever listens there, connected to the old database.
pub(crate) fn client(address: &str) -> Builder {
    Client::builder(format!("http://{address}")).token("token").database(OLD).connect_within(Duration::from_secs(20))
}

async fn permit(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(request): Json<Value>) -> (StatusCode, Json<Value>) {
    shared.hear(&request);
    let problem = |code: &str| Json(json!({ "code": code, "message": "not now", "request_id": "1" }));
    if headers.get("authorization").is_none_or(|token| token != "Bearer token") {
        return (StatusCode::UNAUTHORIZED, problem("UNAUTHORIZED"));
    }
    let view = shared.view.borrow().clone();
    if let Some(status) = view.refuses {
        return (status, problem("UNAVAILABLE"));
    }
    let database = request["database"].as_str();
    let until_ms = shared.now_ms() + shared.lease.as_millis() as u64;
    let renewal = Renewal {
        key: request["incarnation"].as_str().unwrap(),
        name: request["instance"].as_str().unwrap(),
        who: Who::Keeps { place: database.and_then(|name| shared.places.find(name)), acknowledged: request["acknowledged"].as_u64() },
        until_ms,
    };
    if shared.clients.lock().unwrap().renew(&renewal, view.route.epoch).is_err() {
        return (StatusCode::CONFLICT, problem("CONFLICT"));
    }
    let mut views = shared.view.subscribe();
    let wait = Duration::from_millis(request["wait_ms"].as_u64().unwrap());
    let news = views.wait_for(|view| Some(view.revision) != request["revision"].as_u64() || view.refuses.is_some());
    // What holds then is told, news or not.
    let _ = timeout(wait, news).await;
    let View { revision, route, units, .. } = shared.view.borrow().clone();
    let flags = Flags { cutover: "shop", route, units: &units, fresh: true, places: &shared.places };
    let why = flags.refusal(database);
    let told = |unit: &Unit| json!({ "name": unit.name, "target_reads": unit.target_reads });
    let mut answer = json!({
        "cutover": "shop", "revision": revision, "epoch": route.epoch, "authority": route.authority,
        "writes": if route.writes == Writes::Open { "open" } else { "held" }, "stage": flags.stage(),
        "write": why.is_none(), "why": why, "lease_ms": shared.lease.as_millis() as u64,
    });
    if !units.is_empty() {
        answer["units"] = units.iter().map(told).collect();
    }
    (StatusCode::OK, Json(answer))
}

async fn leave(State(shared): State<Arc<Shared>>, Path(incarnation): Path<String>) -> StatusCode {
    shared.hear(&Value::Null);
    shared.clients.lock().unwrap().leave(&incarnation);
    StatusCode::NO_CONTENT
}

async fn operations(State(shared): State<Arc<Shared>>, Json(request): Json<Value>) -> StatusCode {
    shared.told.lock().unwrap().push(request);
    shared.view.borrow().refuses.unwrap_or(StatusCode::NO_CONTENT)
}
