//! Traces, for whoever collects them: set up by OpenTelemetry's own variables, and off where none names a collector.
//!
//! The library reads most of them itself (headers, time limits, sampling, batches, the service's name); here is what decides
//! whether there are traces at all, and how the collector is reached.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use cutover_engine::traces::TARGET;
use http::{Request, Response};
use opentelemetry::{Key, global, trace::TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, Tracer},
};
use reqwest::Url;
use tokio::runtime::Handle;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    registry::LookupSpan,
};

use crate::output::Failure;

/// How long the last spans may take to be told of when the command ends.
const LAST: Duration = Duration::from_secs(2);

/// A longer answer is none of a collector's. Unit: bytes.
const MOST_BODY: usize = 1 << 20;

/// Tells a collector, until it is dropped.
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// As the environment says; none where it names no collector.
    pub(crate) fn from_env(runtime: &Handle) -> Result<Option<Self>, Failure> {
        let Some(endpoint) = endpoint() else { return Ok(None) };
        match of_traces("PROTOCOL").as_deref() {
            None | Some("http/protobuf") => {}
            Some(other) => {
                let failure = Failure::usage(format!("OTEL_EXPORTER_OTLP_PROTOCOL: `{other}` is not spoken here"));
                return Err(failure.with_hint("http/protobuf is; collectors listen for it on port 4318"));
            }
        }
        let wrong = |why: String| {
            Failure::usage(format!("traces can't be told: {why}")).with_hint("http://127.0.0.1:4318, as OTEL_EXPORTER_OTLP_ENDPOINT")
        };
        let url = Url::parse(&endpoint).map_err(|error| wrong(format!("`{endpoint}`: {error}")))?;
        let client = Client { http: client(&url).map_err(wrong)?, runtime: runtime.clone() };
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_http_client(client);
        let exporter = exporter.build().map_err(|error| wrong(error.to_string()))?;
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Some(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build())))
    }

    /// What is meant for a collector, and nothing of the logs.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let tracer: Tracer = self.0.tracer("cutover");
        let layer =
            OpenTelemetryLayer::new(tracer).with_location(false).with_threads(false).with_target(false).with_tracked_inactivity(false);
        layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST) {
            tracing::debug!(%error, "the collector could not be told of the last spans");
        }
    }
}

/// Reaches the collector on the command's own threads: the library's thread for batches has no reactor.
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold a secret.
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        self.runtime.spawn(async move { send(&http, request).await }).await?
    }
}

async fn send(http: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = http.execute(request.try_into()?).await?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MOST_BODY {
            return Err(format!("the collector's answer is longer than {MOST_BODY} bytes").into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::builder().status(answer.status()).body(Bytes::from(body))?;
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

fn client(url: &Url) -> Result<reqwest::Client, String> {
    let ca = of_traces("CERTIFICATE").map(|path| std::fs::read(&path).map_err(|error| format!("{path}: {error}"))).transpose()?;
    let tls = cutover_wire::trust(url, ca.as_deref()).map_err(|error| error.to_string())?;
    let limit = of_traces("TIMEOUT").and_then(|ms| ms.parse().ok()).map_or(Duration::from_secs(10), Duration::from_millis);
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).redirect(reqwest::redirect::Policy::none()).timeout(limit);
    builder.build().map_err(|error| error.to_string())
}

/// Where the collector is, if there is one and traces are not turned off.
fn endpoint() -> Option<String> {
    let off = variable("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
    let elsewhere = variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter != "otlp");
    of_traces("ENDPOINT").filter(|_| !off && !elsewhere)
}

/// A setting of traces alone goes before one of all that is collected.
fn of_traces(setting: &str) -> Option<String> {
    variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{setting}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{setting}")))
}

/// An empty variable is as good as none.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn resource() -> Resource {
    let named = Resource::builder().build();
    let unnamed = named.get(&Key::from_static_str("service.name")).is_none_or(|name| name.as_str().starts_with("unknown_service"));
    let builder = Resource::builder().with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if unnamed { builder.with_service_name("cutover") } else { builder }.build()
}
