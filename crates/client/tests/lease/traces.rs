//! What an application's traces show of the SDK.

use std::time::Duration;

use cutover_core::{Side, Writes};
use cutover_testkit::eventually;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::{LONG, SOON, server::Server};

#[tokio::test]
async fn a_write_that_was_held_is_a_span_and_one_that_was_refused_an_event_of_the_applications() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    drop(client.write_within(SOON).await.unwrap());
    assert_eq!(exporter.get_finished_spans().unwrap(), [], "a write that was not held costs nothing");

    server.change(Side::Source, Writes::Held);
    eventually(SOON, || async { !client.may_write() }).await.unwrap();
    tracing::info_span!("order").in_scope(|| drop(client.write().unwrap_err()));
    client.write_within(Duration::ZERO).await.unwrap_err();
    let (opened, ()) = tokio::join!(client.write_within(SOON), async {
        server.change(Side::Source, Writes::Open);
    });
    drop(opened.unwrap());

    let spans = exporter.get_finished_spans().unwrap();
    let told: Vec<_> = spans
        .iter()
        .map(|span| (span.name.as_ref(), span.events.len(), span.attributes.iter().any(|of| of.key.as_str() == "refused")))
        .collect();
    assert_eq!(told, [("order", 1, false), ("cutover.hold", 1, true), ("cutover.hold", 0, false)]);
    let event = &spans[0].events.events[0];
    assert_eq!(event.name, "feature_flag.evaluation");
    let why = event.attributes.iter().find(|attribute| attribute.key.as_str() == "error.message").unwrap();
    assert!(why.value.as_str().contains("held"), "{why:?}");
}
