//! Starts and ends a server.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    ops::Deref,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_LENGTH},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use cutover_api::{Code, header::REQUEST_ID};
use cutover_core::clients::{Flags, FutureEpoch, Places, Renewal, Report};
use cutover_engine::Cutover;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::Instrument;

use crate::{
    ServerError,
    drive::Wheel,
    events::Tickets,
    health, ofrep, openapi,
    problem::{self, Refusal},
    tokens::{TokenFile, Tokens},
    view::{REST, View, Watcher},
};

/// Bodies larger than this are refused. Unit: bytes.
const MOST_BODY: usize = 64 * 1024;

/// A request that has not been read and answered by then is given up; what waits for news has a shorter limit of its own.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// How long a connection may take to send a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How often the file of tokens is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How a server is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate and its key, where it speaks TLS.
    pub tls: Option<Tls>,
    /// The file of tokens.
    pub tokens: TokenFile,
    /// Whether it may be reached from outside without any token.
    pub without_tokens: bool,
    /// How long an answer may be relied on.
    pub lease: Duration,
    /// The names under which instances know the databases.
    pub places: Places,
    /// How long requests under way may go on when the server is asked to end.
    pub grace: Duration,
}

/// Files in PEM form.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A server that listens.
pub struct Running {
    address: SocketAddr,
    name: String,
    app: App,
    handle: Handle<SocketAddr>,
    closing: watch::Sender<bool>,
    grace: Duration,
    tasks: JoinSet<io::Result<()>>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new request, has what is driven undone or finished, lets requests under way end, and returns when they have,
    /// or their time is over.
    ///
    /// # Errors
    /// If it had ended before, of itself.
    pub async fn close(mut self) -> Result<(), ServerError> {
        self.closing.send_replace(true);
        self.app.wheel.rest().await;
        self.handle.graceful_shutdown(Some(self.grace));
        let ended = self.ended().await;
        // Else a driver waits until the last lease is over.
        self.tasks.shutdown().await;
        if self.app.report().clients == 0 {
            self.app.cutover.forget_server(&self.name).await?;
        }
        ended
    }

    /// Returns when it has ended.
    ///
    /// # Errors
    /// What ended it.
    pub async fn ended(&mut self) -> Result<(), ServerError> {
        let listen = |source| ServerError::Listen { address: self.address.to_string(), source };
        match self.tasks.join_next().await {
            Some(Ok(done)) => done.map_err(listen),
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => Ok(()),
        }
    }
}

/// What all requests share.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) cutover: Cutover,
    pub(crate) watcher: Watcher,
    pub(crate) tokens: Tokens,
    /// Whether nobody needs a token while there is none.
    pub(crate) open: bool,
    pub(crate) lease: Duration,
    pub(crate) places: Places,
    pub(crate) metrics: health::Metrics,
    pub(crate) tickets: Tickets,
    pub(crate) wheel: Wheel,
    pub(crate) closing: watch::Receiver<bool>,
    /// Told when a driver may be waiting for what we have to say.
    news: Notify,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    /// What is said by a view, as sure as it is now.
    pub(crate) fn flags(&self, view: &View) -> Flags<'_> {
        let fresh = !self.watcher.fresh_for().is_zero();
        Flags { cutover: &self.cutover.plan().name, route: view.route, fresh, places: &self.places }
    }

    /// Gives a client a lease, which counts from `arrived`, and says what it may act on meanwhile.
    pub(crate) fn give_lease(&self, renewal: &Renewal<'_>, arrived: Instant) -> Result<(Duration, View), FutureEpoch> {
        let (lease, caught_up) = self.watcher.lend(renewal, arrived)?;
        if caught_up {
            self.news.notify_one();
        }
        Ok((lease, self.watcher.now()))
    }

    pub(crate) fn forget(&self, key: &str) {
        self.watcher.leave(key);
        self.news.notify_one();
    }

    /// The sum of all clients.
    pub(crate) fn report(&self) -> Report {
        let report = self.watcher.report();
        self.metrics.clients.set(report.clients.cast_signed());
        self.metrics.behind.set(report.behind.cast_signed());
        self.metrics.astray.set(report.astray.cast_signed());
        report
    }
}

/// Starts a server. What can be known beforehand to be wrong is said before it listens.
///
/// # Errors
/// See [`ServerError`].
pub async fn serve(cutover: Cutover, options: Options) -> Result<Running, ServerError> {
    let tokens = Tokens::open(options.tokens.clone())?;
    let open = options.listen.ip().is_loopback() || options.without_tokens;
    if tokens.is_unused() && !open {
        return Err(ServerError::Open(options.listen.to_string()));
    }
    let tls = match &options.tls {
        Some(tls) => Some(certificates(tls).await?),
        None => None,
    };
    let failed = |source| ServerError::Listen { address: options.listen.to_string(), source };
    let listener = TcpListener::bind(options.listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let name = format!("{address} {}", hex::encode(rand::random::<[u8; 4]>()));
    let started = Instant::now();
    // Before the journal is read: see `Cutover::report`.
    cutover.report(&name, 0, options.lease, &Report::default()).await?;
    let (watcher, follower) = Watcher::open(&cutover, options.lease, started).await?;
    let (closing, closes) = watch::channel(false);
    let app = App(Arc::new(Inner {
        cutover,
        watcher,
        tokens,
        open,
        lease: options.lease,
        places: options.places,
        metrics: health::Metrics::new(),
        tickets: Tickets::new(),
        wheel: Wheel::default(),
        closing: closes,
        news: Notify::new(),
    }));
    let handle = Handle::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(listen(listener, tls, handle.clone(), router(app.clone())).map_err(failed)?);
    tasks.spawn({
        let app = app.clone();
        async move {
            app.watcher.follow(&app.cutover, follower, app.lease / 8).await;
            Ok(())
        }
    });
    tasks.spawn(tell_drivers(app.clone(), name.clone()));
    tasks.spawn(look_after_tokens(app.clone()));
    Ok(Running { address, name, app, handle, closing, grace: options.grace, tasks })
}

/// Writes down what we and our clients have heard: often enough for the leases, and at once when a driver may wait for it.
async fn tell_drivers(app: App, name: String) -> io::Result<()> {
    let mut views = app.watcher.subscribe();
    let mut tick = tokio::time::interval(app.lease / 8);
    let mut epoch = views.borrow().route.epoch;
    for beat in 1.. {
        let asked_at = Instant::now();
        match app.cutover.report(&name, beat, app.lease, &app.report()).await {
            Ok(()) => app.watcher.reported(asked_at),
            Err(error) => {
                tracing::warn!(%error, "what the clients have heard can't be written down");
                tokio::time::sleep(REST).await;
            }
        }
        tokio::select! {
            _ = tick.tick() => {}
            () = app.news.notified() => {}
            view = views.wait_for(|view| view.route.epoch != epoch) => epoch = view.map_or(epoch, |view| view.route.epoch),
        }
    }
    Ok(())
}

async fn look_after_tokens(app: App) -> io::Result<()> {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        if let Err(error) = app.tokens.look() {
            tracing::warn!(%error, "the tokens stay as they were");
        }
    }
}

fn listen(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    handle: Handle<SocketAddr>,
    router: Router,
) -> io::Result<impl Future<Output = io::Result<()>>> {
    let mut server = axum_server::from_tcp(listener)?.handle(handle);
    // Who sends a request's head byte by byte is not waited for.
    let timer = hyper_util::rt::TokioTimer::new();
    server.http_builder().http1().timer(timer).header_read_timeout(HEAD_LIMIT);
    let service = router.into_make_service();
    Ok(async move {
        match tls {
            Some(tls) => server.acceptor(axum_server::tls_rustls::RustlsAcceptor::new(tls)).serve(service).await,
            None => server.serve(service).await,
        }
    })
}

async fn certificates(tls: &Tls) -> Result<RustlsConfig, ServerError> {
    // Two libraries of ours may bring two providers; which of them counts has to be said, and may have been.
    rustls::crypto::ring::default_provider().install_default().ok();
    RustlsConfig::from_pem_file(&tls.certificate, &tls.key)
        .await
        .map_err(|error| ServerError::Tls(format!("{} and {}: {error}", tls.certificate.display(), tls.key.display())))
}

/// All routes, each with what it wants of a caller, and around them what every request goes through.
fn router(app: App) -> Router {
    openapi::routes(&app)
        .fallback(async || Refusal::new(Code::NotFound, "there is nothing here").hint("GET /openapi.json lists what there is"))
        .method_not_allowed_fallback(async || Refusal::new(Code::MethodNotAllowed, "not with this method"))
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(from_fn_with_state(app.clone(), attend))
        .with_state(app)
}

/// Names a request, limits how long it may take, counts it, and gives refusals their form.
async fn attend(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let path = request.uri().path().to_owned();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let streams = path.ends_with("/events");
    let begun = Instant::now();
    // What is logged meanwhile says for whom.
    let work = next.run(request).instrument(tracing::error_span!("request", request_id = id, path));
    let mut response = if streams { work.await } else { timeout(REQUEST_LIMIT, work).await.unwrap_or_else(|_| too_slow()) };
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        response = refuse(response, &path, &id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), value);
    }
    app.metrics.count(matched.as_deref().unwrap_or("none"), response.status().as_u16());
    tracing::debug!(request_id = id, path, status = status.as_u16(), ms = begun.elapsed().as_millis(), "answered");
    response
}

fn too_slow() -> Response {
    Refusal::new(Code::Timeout, format!("the request took longer than {} s", REQUEST_LIMIT.as_secs())).into_response()
}

/// The body of a refusal, ours or a library's.
fn refuse(mut response: Response, path: &str, id: &str) -> Response {
    if response.extensions().get::<ofrep::Said>().is_some() {
        return response;
    }
    let refusal = response.extensions_mut().remove::<Refusal>();
    let refusal = refusal.unwrap_or_else(|| Refusal::new(problem::code(response.status()), reason(response.status())));
    let mut refused = if path.starts_with("/ofrep/") { ofrep::refuse(path, refusal) } else { refusal.named(id.to_owned()).into_response() };
    // Such as which methods are allowed.
    let headers = response.headers().iter().filter(|(name, _)| *name != CONTENT_LENGTH);
    for (name, value) in headers {
        refused.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    refused
}

fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is larger than 64 kB",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "the body has to be application/json",
        _ => status.canonical_reason().unwrap_or("refused"),
    }
}

/// The client's name for the request, if it is one, or a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let sound = |id: &&str| !id.is_empty() && id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    given.filter(sound).map_or_else(|| hex::encode(rand::random::<[u8; 8]>()), str::to_owned)
}
