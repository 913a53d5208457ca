//! The tower layer in front of a small application.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode, header},
    routing::any,
};
use cutover_client::WriteGateLayer;
use cutover_core::{Side, Writes};
use cutover_testkit::eventually;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::{LONG, SOON, server::Server};

/// The requests that have come to the inner service, and those that it may answer.
struct Work {
    came: AtomicUsize,
    may_go: Semaphore,
}

impl Work {
    fn new(may_go: usize) -> Arc<Self> {
        Arc::new(Self { came: AtomicUsize::new(0), may_go: Semaphore::new(may_go) })
    }

    async fn done(self: Arc<Self>) -> &'static str {
        self.came.fetch_add(1, Ordering::SeqCst);
        self.may_go.acquire().await.unwrap().forget();
        "done"
    }
}

fn application(layer: WriteGateLayer, work: Arc<Work>) -> Router {
    let work = move || work.done();
    Router::new().route("/", any(work.clone())).route("/search", any(work)).layer(layer)
}

async fn send(application: &Router, method: Method, path: &str) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    application.clone().oneshot(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_refused_write_is_503_with_the_exact_body_and_reads_pass() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    let is_search = |method: &Method, uri: &axum::http::Uri| *method == Method::POST && uri.path() != "/search";
    let application = application(WriteGateLayer::new(client.clone()), Work::new(100));
    let except_search = {
        let layer = WriteGateLayer::new(client.clone()).writes(is_search);
        self::application(layer, Work::new(100))
    };
    assert_eq!(send(&application, Method::POST, "/").await.status(), StatusCode::OK);

    server.change(Side::Source, Writes::Held);
    eventually(SOON, || async { !client.may_write() }).await.unwrap();
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let response = send(&application, method, "/").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let body = to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(body, r#"{"error":"Database maintenance in progress"}"#);
    }
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        assert_eq!(send(&application, method, "/").await.status(), StatusCode::OK);
    }
    assert_eq!(send(&except_search, Method::POST, "/search").await.status(), StatusCode::OK);
    assert_eq!(send(&except_search, Method::POST, "/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_request_is_under_way_until_the_inner_service_has_answered_or_its_caller_is_gone() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    let work = Work::new(0);
    let application = application(WriteGateLayer::new(client.clone()), work.clone());
    let requests = [application.clone(), application]
        .map(|application| tokio::spawn(async move { send(&application, Method::POST, "/").await.status() }));
    eventually(SOON, || async { work.came.load(Ordering::SeqCst) == 2 }).await.unwrap();
    server.change(Side::Source, Writes::Held);
    eventually(SOON, || async { !client.may_write() }).await.unwrap();
    assert_eq!(server.report().behind, 1);
    let [answered, gone] = requests;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    work.may_go.add_permits(1);
    assert_eq!(answered.await.unwrap(), StatusCode::OK);
    eventually(SOON, || async { server.report().behind == 0 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_a_request_can_be_held_until_writes_are_open() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    let layer = |most| application(WriteGateLayer::new(client.clone()).hold_for(most), Work::new(100));
    let (patient, hasty) = (layer(LONG), layer(Duration::from_millis(50)));
    server.change(Side::Source, Writes::Held);
    eventually(SOON, || async { !client.may_write() }).await.unwrap();
    let held = tokio::spawn(async move { send(&patient, Method::POST, "/").await.status() });
    assert_eq!(send(&hasty, Method::POST, "/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!held.is_finished());
    server.change(Side::Source, Writes::Open);
    assert_eq!(held.await.unwrap(), StatusCode::OK);
}
