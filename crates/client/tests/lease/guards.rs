//! Writes under way, acknowledgements, and goodbyes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use cutover_client::{Client, Reason};
use cutover_core::{Side, Writes};
use cutover_testkit::eventually;

use crate::{LONG, SHORT, SOON, server::Server};

#[tokio::test(flavor = "multi_thread")]
async fn a4_an_acknowledgement_waits_for_the_writes_that_are_under_way() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    let guard = client.write().unwrap();
    let other = client.write().unwrap().into_owned();
    server.change(Side::Source, Writes::Held);
    eventually(SOON, || async { !client.may_write() }).await.unwrap();
    assert!(!guard.is_still_valid() && guard.epoch() == 0);
    // The client has heard, and asked again without an acknowledgement.
    eventually(SOON, || async { server.heard().last().is_some_and(|heard| heard["revision"] == 2) }).await.unwrap();
    drop(guard);
    assert_eq!(server.report().behind, 1, "one write is still under way");

    let began = Instant::now();
    tokio::task::spawn_blocking(move || drop(other)).await.unwrap();
    eventually(SOON, || async { server.report().behind == 0 }).await.unwrap();
    assert!(began.elapsed() < LONG / 6, "told at once, not with the next renewal: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_no_thread_writes_under_an_older_epoch_when_the_newer_is_acknowledged() {
    const THREADS: usize = 4;
    const CHANGES: u64 = 300;
    // What each thread has under way: its epoch and one, or zero.
    let under_way: Arc<[AtomicU64; THREADS]> = Arc::default();
    let wrong = Arc::new(AtomicBool::new(false));
    let (seen, is_wrong) = (under_way.clone(), wrong.clone());
    let server = Server::listened_to(LONG, move |request| {
        let acknowledged = request["acknowledged"].as_u64().unwrap_or_default();
        let older = |slot: &AtomicU64| (1..=acknowledged).contains(&slot.load(Ordering::SeqCst));
        is_wrong.fetch_or(seen.iter().any(older), Ordering::SeqCst);
    })
    .await;
    let client = server.client().connect().await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (client, under_way, done) = (client.clone(), under_way.clone(), done.clone());
            std::thread::spawn(move || write_on(&client, &under_way[thread], &done))
        })
        .collect();
    for _ in 0..CHANGES / 2 {
        for writes in [Writes::Held, Writes::Open] {
            let epoch = server.change(Side::Source, writes);
            eventually(SOON, || async { server.report().behind == 0 }).await.unwrap();
            assert_eq!(client.route().unwrap().epoch, epoch);
        }
    }
    done.store(true, Ordering::SeqCst);
    let written: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    assert!(!wrong.load(Ordering::SeqCst), "a write was under way under an older epoch than was acknowledged");
    assert!(written > CHANGES, "{written} writes");
}

fn write_on(client: &Client, under_way: &AtomicU64, done: &AtomicBool) -> u64 {
    let mut written = 0;
    while !done.load(Ordering::SeqCst) {
        match client.write() {
            Ok(guard) => {
                under_way.store(guard.epoch() + 1, Ordering::SeqCst);
                std::thread::yield_now();
                under_way.store(0, Ordering::SeqCst);
                written += 1;
            }
            Err(_) => std::thread::yield_now(),
        }
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_says_goodbye_when_the_last_handle_and_the_last_write_are_gone() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    let clone = client.clone();
    let guard = client.write().unwrap().into_owned();
    drop(client);
    assert!(clone.may_write(), "a handle is left");
    drop(clone);
    eventually(SOON, || async { !guard.is_still_valid() }).await.unwrap();
    assert_eq!((server.goodbyes(), server.report().clients), (0, 1), "its write is under way");
    drop(guard);
    eventually(SOON, || async { server.goodbyes() == 1 && server.report().clients == 0 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_client_refuses_and_waits_no_longer_than_its_lease() {
    let server = Server::start(SHORT).await;
    let client = server.client().connect().await.unwrap();
    let guard = client.write().unwrap().into_owned();
    let began = Instant::now();
    client.clone().close().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(client.write().unwrap_err().reason, Reason::Closed);
    assert_eq!(server.goodbyes(), 0, "its write is under way: its lease has to run out");
    drop(guard);
    assert_eq!(client.changed(client.route().as_ref()).await, client.route(), "there is nothing more to wait for");
}
