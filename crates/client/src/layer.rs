//! A tower layer that lets requests write only while this process may.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Client, Refused, WriteGuard};

/// What a refused request is told.
const BODY: &str = r#"{"error":"Database maintenance in progress"}"#;

type Predicate = dyn Fn(&Method, &Uri) -> bool + Send + Sync;

/// Refuses requests that write while this process may not, with 503, `Retry-After` and
/// `{"error":"Database maintenance in progress"}`; others pass. One that is let in holds a [`WriteGuard`] until the inner
/// service has answered.
///
/// ```no_run
/// use std::time::Duration;
/// use axum::{Router, routing::post};
/// use cutover_client::{Client, WriteGateLayer};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::from_env().connect().await?;
/// let app: Router = Router::new()
///     .route("/orders", post(|| async { "ordered" }))
///     .layer(WriteGateLayer::new(client).hold_for(Duration::from_secs(2)));
/// # let _ = app; Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct WriteGateLayer {
    client: Client,
    within: Duration,
    writes: Arc<Predicate>,
}

impl WriteGateLayer {
    /// Requests with POST, PUT, PATCH or DELETE count as writes, and are refused at once.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let writes = |method: &Method, _: &Uri| [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
        Self { client, within: Duration::ZERO, writes: Arc::new(writes) }
    }

    /// Says which requests write, by their method and address.
    #[must_use]
    pub fn writes(mut self, predicate: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static) -> Self {
        self.writes = Arc::new(predicate);
        self
    }

    /// Holds requests that write for at most so long before they are refused, where waiting may help. Each takes its place
    /// in memory meanwhile: stay under the callers' own time-out, and limit how many there may be.
    #[must_use]
    pub fn hold_for(mut self, most: Duration) -> Self {
        self.within = most;
        self
    }
}

impl fmt::Debug for WriteGateLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteGateLayer").field("client", &self.client).field("within", &self.within).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for WriteGateLayer {
    type Service = WriteGate<S>;

    fn layer(&self, inner: S) -> WriteGate<S> {
        WriteGate { layer: self.clone(), inner }
    }
}

/// The service that [`WriteGateLayer`] makes.
#[derive(Clone, Debug)]
pub struct WriteGate<S> {
    layer: WriteGateLayer,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for WriteGate<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<&'static str>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !(self.layer.writes)(request.method(), request.uri()) {
            return Box::pin(self.inner.call(request));
        }
        // The clone may not be ready; the one that was asked is.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            // Dropped after the call, also where the caller goes away.
            let _guard = match layer.enter().await {
                Ok(guard) => guard,
                Err(refused) => return Ok(refusal(&refused)),
            };
            inner.call(request).await
        })
    }
}

impl WriteGateLayer {
    async fn enter(&self) -> Result<WriteGuard<'_>, Refused> {
        if self.within.is_zero() { self.client.write() } else { self.client.write_within(self.within).await }
    }
}

fn refusal<R: From<&'static str>>(refused: &Refused) -> Response<R> {
    let mut response = Response::new(R::from(BODY));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(refused.retry_after)));
    response
}

/// Rounded up, and at least one: at once is what was just refused.
fn whole_seconds(length: Duration) -> u64 {
    (length.as_secs() + u64::from(length.subsec_nanos() > 0)).max(1)
}
