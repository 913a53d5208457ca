//! What one check costs in the application's own process: the SDK's, and those of flag libraries that evaluate there.

#[cfg(feature = "peers")]
mod flagd;
#[cfg(feature = "peers")]
mod unleash;

// The server that the SDK's own tests ask: a real switch never splits reads, which is what is to be measured.
#[path = "../../../../crates/client/tests/lease/server.rs"]
#[allow(dead_code, unreachable_pub, reason = "the server of the tests can do more")]
mod server;

use std::{
    collections::BTreeMap,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Args;
use cutover_client::Client;
use tokio::runtime::Runtime;

/// How long a round of calls should take, about: so short that most are not interrupted, also where the machine has other work.
const ROUND: Duration = Duration::from_millis(10);

/// The keys that are asked for in turn; so many that no small cache holds them. A power of two.
const KEYS: usize = 4096;

/// The unit, and the flag, whose reads are split.
const UNIT: &str = "orders";

/// What an instance is connected to, in the words of the server of the tests.
#[cfg(feature = "peers")]
const DATABASE: &str = server::OLD;

#[derive(Args)]
pub(crate) struct Permit {
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// A folder to put a peer's file of flags into.
    #[arg(long)]
    folder: PathBuf,
}

/// By what is asked and by how many threads: by who answers, nanoseconds a call, one for each round.
type Seen = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

/// Makes so many calls.
type Calls = Box<dyn Fn(u32) + Send + Sync>;

/// One who answers.
struct Answerer {
    name: &'static str,
    asked: &'static str,
    calls: Calls,
}

impl Permit {
    pub(crate) fn run(self) -> Result<Seen> {
        let runtime = Runtime::new()?;
        let (_server, client) = runtime.block_on(ours())?;
        let answerers: Vec<_> = of_ours(&client).into_iter().chain(of_peers(&runtime, &self.folder)?).collect();
        let mut seen = Seen::new();
        for threads in [1, 2] {
            let many: Vec<u32> = answerers.iter().map(|answerer| enough(&answerer.calls)).collect();
            // By turns, so that what drifts hits all alike.
            for _ in 0..self.rounds {
                for (answerer, many) in answerers.iter().zip(&many) {
                    let asked = format!("{}, {threads} thread{}", answerer.asked, if threads == 1 { "" } else { "s" });
                    seen.entry(asked).or_default().entry(answerer.name.to_owned()).or_default().push(nanos(
                        &answerer.calls,
                        *many,
                        threads,
                    ));
                }
            }
        }
        ensure!(client.may_write(), "the lease ran out while it was measured");
        Ok(seen)
    }
}

async fn ours() -> Result<(server::Server, Client)> {
    let server = server::Server::start(Duration::from_secs(60)).await;
    server.split(&[("database", 0), (UNIT, 5_000)]);
    let client = server.client().connect().await?;
    ensure!(client.may_write(), "the server refuses writes");
    Ok((server, client))
}

fn of_ours(client: &Client) -> Vec<Answerer> {
    let (keys, name) = (keys(), "cutover");
    let (asks, writes, reads) = (client.clone(), client.clone(), client.clone());
    vec![
        Answerer {
            name,
            asked: "may this instance write",
            calls: Box::new(move |many| (0..many).for_each(|_| assert!(black_box(&asks).may_write()))),
        },
        Answerer {
            name,
            asked: "a guard over a write, taken and dropped",
            calls: Box::new(move |many| (0..many).for_each(|_| drop(black_box(black_box(&writes).write())))),
        },
        Answerer {
            name,
            asked: "where does a read of this key go",
            calls: Box::new(move |many| {
                for at in 0..many as usize {
                    black_box(black_box(&reads).read_from(UNIT, black_box(&keys[at % KEYS])));
                }
            }),
        },
    ]
}

#[cfg(feature = "peers")]
fn of_peers(runtime: &Runtime, folder: &Path) -> Result<Vec<Answerer>> {
    Ok(flagd::answerers(runtime, folder)?.into_iter().chain(unleash::answerers()?).collect())
}

#[cfg(not(feature = "peers"))]
fn of_peers(_: &Runtime, _: &Path) -> Result<Vec<Answerer>> {
    Ok(Vec::new())
}

/// Keys of customers.
fn keys() -> Vec<String> {
    (0..KEYS).map(|at| format!("123e4567-e89b-12d3-a456-{at:012x}")).collect()
}

/// So many calls that they take about a [`ROUND`].
fn enough(calls: &Calls) -> u32 {
    let mut many = 16;
    loop {
        let begun = Instant::now();
        calls(many);
        if begun.elapsed() >= ROUND || many > u32::MAX / 4 {
            return many;
        }
        many *= 2;
    }
}

/// The mean over the calls of the slowest thread.
fn nanos(calls: &Calls, many: u32, threads: usize) -> f64 {
    let ready = Barrier::new(threads);
    let slowest = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    ready.wait();
                    let begun = Instant::now();
                    calls(many);
                    begun.elapsed()
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or_default()
    });
    slowest.as_nanos() as f64 / f64::from(many)
}
