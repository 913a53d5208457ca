//! A server that is out of reach, restarts, is behind, or has enough.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use cutover_client::Reason;
use cutover_core::{Side, Writes};
use cutover_testkit::{Proxy, eventually};

use crate::{
    LONG, SHORT, SOON,
    server::{NEW, Server, client},
};

/// What the issue allows beyond the lease.
const GRACE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a7_cut_off_writes_are_refused_within_the_lease_and_reads_stay_where_they_are() {
    let server = Server::start(SHORT).await;
    let proxy = Proxy::start(server.address.clone()).await.unwrap();
    let client = client(&proxy.address()).connect().await.unwrap();
    let route = client.route().unwrap();
    for silently in [true, false] {
        eventually(SOON, || async { client.may_write() }).await.unwrap();
        let began = Instant::now();
        if silently {
            proxy.stall().await.unwrap();
        } else {
            proxy.cut().await;
        }
        eventually(SOON, || async { !client.may_write() }).await.unwrap();
        assert!(began.elapsed() < SHORT + GRACE, "refused after {:?}", began.elapsed());
        let refused = client.write().unwrap_err();
        assert!(matches!(refused.reason, Reason::CutOff { .. }), "{refused:?}");
        assert_eq!(client.route().unwrap(), route);
        // Nobody may write by now; so the server may go on without this client.
        eventually(SOON, || async { server.report().clients == 0 }).await.unwrap();
        assert!(!client.may_write());
        proxy.restore().await.unwrap();
    }
    eventually(SOON, || async { client.may_write() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_goes_on_with_the_client_and_one_that_is_behind_opens_nothing() {
    let first = Server::start(SHORT).await;
    let proxy = Proxy::start(first.address.clone()).await.unwrap();
    let client = client(&proxy.address()).connect().await.unwrap();
    first.change(Side::Source, Writes::Held);
    eventually(SOON, || async { !client.may_write() && first.report().behind == 0 }).await.unwrap();

    let behind = Server::start(SHORT).await;
    proxy.lead_to(behind.address.clone()).await.unwrap();
    // It has never heard of the epoch that is acknowledged, and says so each time.
    eventually(SOON, || async { behind.heard().len() >= 3 }).await.unwrap();
    assert!(!client.may_write());
    assert_eq!(client.route().unwrap().epoch, 1);

    behind.change(Side::Source, Writes::Held);
    let epoch = behind.change(Side::Source, Writes::Open);
    eventually(SOON, || async { client.may_write() }).await.unwrap();
    assert_eq!(client.write().unwrap().epoch(), epoch);
    eventually(SOON, || async { behind.report().behind == 0 }).await.unwrap();
    assert_eq!(behind.report().clients, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_change_reaches_a_client_that_waits_at_once() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    let route = client.route();
    server.change(Side::Source, Writes::Held);
    let held = client.changed(route.as_ref()).await.unwrap();
    assert_eq!((held.epoch, held.writes), (1, cutover_client::Writes::Held));
    assert_eq!(client.write().unwrap_err().reason, Reason::Held);

    let waiting = client.clone();
    let writer = tokio::spawn(async move { waiting.write_within(LONG).await.map(|guard| guard.epoch()) });
    // Held back for twenty seconds, were it not for the news.
    eventually(SOON, || async { server.heard().last().is_some_and(|heard| heard["acknowledged"] == 1) }).await.unwrap();
    let began = Instant::now();
    server.change(Side::Source, Writes::Open);
    assert_eq!(writer.await.unwrap().unwrap(), 2);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_held_for_too_long_is_refused() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    server.change(Side::Source, Writes::Held);
    eventually(SOON, || async { !client.may_write() }).await.unwrap();
    let began = Instant::now();
    let refused = client.write_within(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Held);
    assert!(began.elapsed() >= Duration::from_millis(100) && began.elapsed() < SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a13_a_process_at_the_wrong_database_is_refused_at_once_whatever_it_waits() {
    let server = Server::start(LONG).await;
    let old = server.client().connect().await.unwrap();
    let new = server.client().database(NEW).connect().await.unwrap();
    assert!(old.may_write());
    let refused = new.write_within(LONG).await.unwrap_err();
    assert!(matches!(&refused.reason, Reason::WrongDatabase { why } if why.contains("source")), "{refused:?}");

    server.change(Side::Source, Writes::Held);
    server.change(Side::Target, Writes::Open);
    eventually(SOON, || async { new.may_write() && !old.may_write() }).await.unwrap();
    assert!(matches!(old.write().unwrap_err().reason, Reason::WrongDatabase { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_asked_again_and_never_in_a_tight_loop() {
    let server = Server::start(SHORT).await;
    let client = server.client().connect().await.unwrap();
    server.refuse(Some(StatusCode::SERVICE_UNAVAILABLE));
    let before = server.heard().len();
    let began = Instant::now();
    eventually(SOON, || async { server.heard().len() >= before + 20 }).await.unwrap();
    // While the lease lasts, a pause is 25 ms or so; then a second.
    let pauses = server.heard().len() - before - 1;
    assert!(began.elapsed() >= Duration::from_millis(12) * pauses as u32, "{pauses} pauses in {:?}", began.elapsed());
    let refused = client.write().unwrap_err();
    assert!(refused.to_string().contains("not now"), "the server's words: {refused}");
    server.refuse(None);
    eventually(SOON, || async { client.may_write() }).await.unwrap();
}
