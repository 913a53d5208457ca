//! A collector of traces: what it is told is kept.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::Span,
};
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinHandle};

/// Ends when it is dropped.
pub(crate) struct Collector {
    pub(crate) address: String,
    told: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    task: JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let told = Arc::<Mutex<Vec<_>>>::default();
        let app = Router::new().route("/v1/traces", post(take)).with_state(told.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, told, task }
    }

    /// What has it told at once, in its environment.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        [("OTEL_EXPORTER_OTLP_ENDPOINT", self.address.clone()), ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned())]
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let told = self.told.lock().unwrap();
        told.iter().flat_map(|told| &told.resource_spans).flat_map(|of| &of.scope_spans).flat_map(|of| of.spans.clone()).collect()
    }

    pub(crate) fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }

    /// Who tells.
    pub(crate) fn services(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let resources = told.iter().flat_map(|told| &told.resource_spans).filter_map(|of| of.resource.as_ref());
        resources.filter_map(|resource| text(&resource.attributes, "service.name")).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(told): State<Arc<Mutex<Vec<ExportTraceServiceRequest>>>>, body: Bytes) -> StatusCode {
    told.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
    StatusCode::OK
}

/// An attribute, as text.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone();
    match value {
        Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }) => Some(text),
        Some(AnyValue { value: Some(any_value::Value::IntValue(number)) }) => Some(number.to_string()),
        _ => None,
    }
}
