//! What a collector of traces is told.

use cutover_testkit::eventually;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::StatusCode;
use serde_json::json;

use crate::{
    collector::{Collector, text},
    ground::{LIMIT, answer, command, folder},
    server::Server,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

async fn serve(folder: &std::path::Path, environment: &[(&str, String)]) -> Server {
    let mut command = command(folder, &["--output", "json", "serve", "--listen", "127.0.0.1:0"]);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Server::spawn(command, None).await
}

#[tokio::test]
async fn a_request_is_a_span_in_its_callers_trace_with_the_flags_that_were_evaluated() {
    let (folder, collector) = (folder(), Collector::start().await);
    let server = serve(folder.path(), &collector.environment()).await;
    let within = |request: reqwest::RequestBuilder| request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let flag = "/ofrep/v1/evaluate/flags/database-writes-enabled";
    let context = json!({ "context": { "targetingKey": "pod-1", "database": "old.example" } }).to_string();
    assert_eq!(answer(within(server.post(flag, context))).await.0, StatusCode::OK);
    let asks = json!({ "instance": "pod-1", "incarnation": "i-1" }).to_string();
    // Asked again and again: of interest within somebody's trace alone.
    for _ in 0..3 {
        assert_eq!(answer(server.post("/v1/permits", asks.clone())).await.0, StatusCode::OK);
    }
    assert_eq!(answer(within(server.post("/v1/permits", asks))).await.0, StatusCode::OK);
    assert_eq!(answer(server.get("/v1/journal?after=x")).await.0, StatusCode::BAD_REQUEST);

    eventually(LIMIT, || async { !collector.named("GET /v1/journal").is_empty() }).await.unwrap();
    let spans = collector.named("POST /ofrep/v1/evaluate/flags/{key}");
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id), span.kind()), (TRACE.to_owned(), CALLER.to_owned(), SpanKind::Server));
    let attribute = |name: &str| text(&span.attributes, name);
    assert_eq!(attribute("http.response.status_code").as_deref(), Some("200"));
    assert_eq!((attribute("http.request.method").as_deref(), attribute("url.path").as_deref()), (Some("POST"), Some(flag)));
    let [event] = span.events.as_slice() else { panic!("{:?}", span.events) };
    let said = |name: &str| text(&event.attributes, &format!("feature_flag.{name}")).unwrap_or_default();
    assert_eq!(event.name, "feature_flag.evaluation");
    assert_eq!(
        [said("key"), said("result.reason"), said("context.id"), said("set.id")],
        ["database-writes-enabled", "targeting_match", "pod-1", "shop"]
    );
    assert_eq!(collector.named("POST /v1/permits").len(), 1);
    let journal = &collector.named("GET /v1/journal")[0];
    assert_eq!(
        (hex(&journal.parent_span_id).as_str(), journal.status.clone().unwrap_or_default().code),
        ("", 0),
        "a caller's mistake is none of the server's"
    );
    assert!(collector.services().iter().all(|name| name == "cutover"));
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_away_and_one_that_can_t_be_told_is_named_at_once() {
    let folder = folder();
    let away = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9".to_owned()), ("OTEL_BSP_SCHEDULE_DELAY", "10".to_owned())];
    let server = serve(folder.path(), &away).await;
    for _ in 0..5 {
        assert_eq!(answer(server.get("/v1/journal")).await.0, StatusCode::OK);
    }
    for (name, value, hint) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "nowhere", "http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem", "http://127.0.0.1:4318"),
    ] {
        let output = command(folder.path(), &["audit"])
            .envs([("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1"), (name, value)])
            .output()
            .await
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains(hint), "{name}: {told}");
    }
    let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere"), ("OTEL_SDK_DISABLED", "true")];
    let output = command(folder.path(), &["audit"]).envs(off).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
