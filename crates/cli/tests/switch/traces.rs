//! A switch as whoever collects traces sees it.

use std::collections::BTreeMap;

use cutover_testkit::eventually;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;

use crate::{
    collector::Collector,
    server::{LIMIT, Server, answer},
    world::World,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn a_switch_over_http_is_one_trace_from_whoever_asked_to_each_action() {
    let (world, collector) = (World::new().await, Collector::start().await);
    let mut command = world.command(&["--output", "json", "serve", "--listen", "127.0.0.1:0"]);
    command.envs(collector.environment());
    let server = Server::spawn(command, None).await;
    let asked =
        server.post("/v1/run", json!({ "reason": "CHG-7" }).to_string()).header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    assert_eq!(answer(asked).await.0.as_u16(), 202);
    eventually(LIMIT * 4, || async { !collector.named("run").is_empty() }).await.unwrap();
    assert_eq!(world.authority().await, "target");

    let spans = collector.spans();
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (&span.span_id, span)).collect();
    let above = |span: &Span| by_id.get(&span.parent_span_id).map(|span| span.name.clone()).unwrap_or_default();
    let line = |name: &str| {
        let span = spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}"));
        let parent = by_id.get(&span.parent_span_id).copied().unwrap_or(span);
        (above(parent), parent.name.clone())
    };
    assert_eq!(line("CloseGate(Source)"), ("run".to_owned(), "fence".to_owned()));
    assert_eq!(line("run"), (String::new(), "POST /v1/run".to_owned()));
    let ours: Vec<_> =
        spans.iter().filter(|span| span.trace_id == spans.iter().find(|span| span.name == "run").unwrap().trace_id).collect();
    let hex: String = ours[0].trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, TRACE);
    assert!(ours.iter().all(|span| span.status.clone().unwrap_or_default().code == 0), "nothing failed");
    let [fence, open] = ["fence", "open"].map(|name| ours.iter().find(|span| span.name == name).unwrap());
    assert!(fence.end_time_unix_nano <= open.start_time_unix_nano);
}
