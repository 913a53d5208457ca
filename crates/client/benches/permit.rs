//! What a check costs, beside a lease that is kept over HTTP: `cargo bench -p cutover-client`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the terminal that may fail")]
#![allow(dead_code, unreachable_pub, reason = "the server of the tests can do more")]

#[path = "../tests/lease/server.rs"]
mod server;

use std::{
    hint::black_box,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use cutover_client::{Client, Operation, OperationOutcome, Side};

const ROUNDS: usize = 500;

/// So few that some rounds are not interrupted, also where the machine has other work.
const CALLS: u32 = 20_000;

type Call = fn(&Client);

const LONG: &str = match std::str::from_utf8(&[b'x'; 200]) {
    Ok(text) => text,
    Err(_) => "",
};

const CALLED: &[(&str, Call)] = &[
    ("may_write()", |client| {
        black_box(client.may_write());
    }),
    ("write() and drop", |client| drop(black_box(client.write()))),
    ("write().into_owned() and drop", |client| drop(black_box(client.write().map(cutover_client::WriteGuard::into_owned)))),
    ("read_from(), by key", |client| {
        black_box(client.read_from(black_box("orders"), black_box("123e4567-e89b-12d3-a456-426614174000")));
    }),
    ("read_from(), a key of 200", |client| {
        black_box(client.read_from(black_box("orders"), black_box(LONG)));
    }),
    ("read_from(), in a switch", |client| {
        black_box(client.read_from(black_box("database"), black_box("123e4567-e89b-12d3-a456-426614174000")));
    }),
    ("record()", |client| {
        let took = Duration::from_micros(black_box(123));
        client.record(&Operation { unit: "orders", name: "get", store: Side::Source, took, outcome: OperationOutcome::Ok });
    }),
    ("route()", |client| drop(black_box(client.route()))),
];

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_server, client) = runtime.block_on(async {
        let server = server::Server::start(Duration::from_secs(60)).await;
        server.split(&[("database", 0), ("orders", 5_000)]);
        let client = server.client().connect().await.unwrap();
        (server, client)
    });
    assert!(client.may_write());
    println!("ns per call: the best and the median of {ROUNDS} rounds of {CALLS} calls on each thread");
    for (name, call) in CALLED {
        for threads in [1, 2] {
            let mut rounds: Vec<_> = (0..ROUNDS).map(|_| nanos(&client, *call, threads)).collect();
            rounds.sort_by(f64::total_cmp);
            println!("{name:<30} {threads} threads: {:>6.1} {:>6.1}", rounds[0], rounds[ROUNDS / 2]);
        }
    }
    assert!(client.may_write(), "the lease ran out while it was measured");
}

/// The mean over the calls of the slowest thread.
fn nanos(client: &Client, call: Call, threads: usize) -> f64 {
    let ready = Arc::new(Barrier::new(threads));
    let threads: Vec<_> = (0..threads)
        .map(|_| {
            let (client, ready) = (client.clone(), ready.clone());
            thread::spawn(move || {
                ready.wait();
                let began = Instant::now();
                for _ in 0..CALLS {
                    call(black_box(&client));
                }
                began.elapsed()
            })
        })
        .collect();
    let slowest = threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap_or_default();
    slowest.as_nanos() as f64 / f64::from(CALLS)
}
