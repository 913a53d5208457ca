//! How a server or an agent listens, what every request goes through, and how it ends.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
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
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::Instrument;

use crate::{
    ServerError, flagd,
    front::{Front, Manners},
    ofrep,
    problem::{self, Refusal},
    tokens::{TokenFile, Tokens},
    traces,
};

/// Bodies larger than this are refused. Unit: bytes.
pub(crate) const MOST_BODY: usize = 64 * 1024;

/// A request that has not been read and answered by then is given up; what waits for news has a shorter limit of its own.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// How long a connection may take to send a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How often the other end of a silent HTTP/2 connection is asked whether it is there.
const PING: Duration = Duration::from_secs(15);

/// How often the file of tokens is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How a server or an agent is to be run.
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
    /// How long an answer may be relied on, at most.
    pub lease: Duration,
    /// How long requests under way may go on when it is asked to end.
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

/// A place to listen at, taken before anything is told to anybody.
pub(crate) struct Door {
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    grace: Duration,
    closing: watch::Sender<bool>,
}

/// What listens.
pub(crate) struct House {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    closing: watch::Sender<bool>,
    grace: Duration,
    /// What goes on beside it. The first to end ends all.
    pub(crate) tasks: JoinSet<Result<(), ServerError>>,
}

impl Door {
    /// What can be known beforehand to be wrong is said before it listens.
    pub(crate) async fn open(options: &Options) -> Result<(Self, Manners), ServerError> {
        let tokens = Tokens::open(options.tokens.clone())?;
        let open = options.listen.ip().is_loopback() || options.without_tokens;
        if tokens.is_unused() && !open {
            return Err(ServerError::Open(options.listen.to_string()));
        }
        let tls = match &options.tls {
            Some(tls) => Some(certificates(tls).await?),
            None => None,
        };
        let listener = TcpListener::bind(options.listen).map_err(|source| cannot_listen(options.listen, source))?;
        let (closing, closes) = watch::channel(false);
        let manners = Manners { tokens, open, lease: options.lease, closing: closes };
        Ok((Self { listener, tls, grace: options.grace, closing }, manners))
    }

    pub(crate) fn address(&self) -> Result<SocketAddr, ServerError> {
        self.listener.local_addr().map_err(|source| cannot_listen(SocketAddr::from(([0; 4], 0)), source))
    }

    /// Lets requests in.
    pub(crate) fn welcome(self, front: &Front, routes: Router) -> Result<House, ServerError> {
        let address = self.address()?;
        let failed = move |source| cannot_listen(address, source);
        self.listener.set_nonblocking(true).map_err(failed)?;
        let handle = Handle::new();
        let mut tasks = JoinSet::new();
        let server = listen(self.listener, self.tls, handle.clone(), attended(front, routes)).map_err(failed)?;
        tasks.spawn(async move { server.await.map_err(failed) });
        tasks.spawn(look_after_tokens(front.clone()));
        Ok(House { address, handle, closing: self.closing, grace: self.grace, tasks })
    }
}

impl House {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells everybody that it ends; streams and waiting requests end now.
    pub(crate) fn closing(&self) {
        self.closing.send_replace(true);
    }

    /// Takes no new request, and comes back when those under way have ended, or their time is over.
    pub(crate) async fn close(mut self) -> Result<(), ServerError> {
        self.closing();
        self.handle.graceful_shutdown(Some(self.grace));
        let ended = self.ended().await;
        self.tasks.shutdown().await;
        ended
    }

    /// Comes back when it has ended of itself.
    pub(crate) async fn ended(&mut self) -> Result<(), ServerError> {
        match self.tasks.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => Ok(()),
        }
    }
}

fn cannot_listen(address: SocketAddr, source: io::Error) -> ServerError {
    ServerError::Listen { address: address.to_string(), source }
}

async fn look_after_tokens(front: Front) -> Result<(), ServerError> {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        if let Err(error) = front.tokens.look() {
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
    server.http_builder().http1().timer(timer.clone()).header_read_timeout(HEAD_LIMIT);
    // A stream whose reader is gone without a word would be told on and on.
    server.http_builder().http2().timer(timer).keep_alive_interval(PING).keep_alive_timeout(HEAD_LIMIT);
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

/// Around the routes, what every request goes through.
fn attended(front: &Front, routes: Router) -> Router {
    routes
        .fallback(async || Refusal::new(Code::NotFound, "there is nothing here").hint("GET /openapi.json lists what there is"))
        .method_not_allowed_fallback(async || Refusal::new(Code::MethodNotAllowed, "not with this method"))
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(from_fn_with_state(front.clone(), attend))
}

/// Names a request, limits how long it may take, counts it, and gives refusals their form.
async fn attend(State(front): State<Front>, request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let path = request.uri().path().to_owned();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (streams, grpc) = (path.ends_with("/events"), flagd::is_grpc(request.headers()));
    let begun = Instant::now();
    let span = traces::request(&request, matched.as_deref());
    // What is logged meanwhile says for whom.
    let work = next.run(request).instrument(tracing::error_span!("request", request_id = id, path)).instrument(span.clone());
    let mut response = if streams { work.await } else { timeout(REQUEST_LIMIT, work).await.unwrap_or_else(|_| too_slow()) };
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        response = refuse(response, &path, &id, grpc);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), value);
    }
    traces::answered(&span, &response);
    front.metrics.count(matched.as_deref().unwrap_or("none"), response.status().as_u16());
    tracing::debug!(request_id = id, path, status = status.as_u16(), ms = begun.elapsed().as_millis(), "answered");
    response
}

fn too_slow() -> Response {
    Refusal::new(Code::Timeout, format!("the request took longer than {} s", REQUEST_LIMIT.as_secs())).into_response()
}

/// The body of a refusal, ours or a library's.
fn refuse(mut response: Response, path: &str, id: &str, grpc: bool) -> Response {
    if response.extensions().get::<ofrep::Said>().is_some() {
        return response;
    }
    let refusal = response.extensions_mut().remove::<Refusal>();
    let refusal = refusal.unwrap_or_else(|| Refusal::new(problem::code(response.status()), reason(response.status())));
    if grpc {
        return flagd::refuse(&refusal);
    }
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
