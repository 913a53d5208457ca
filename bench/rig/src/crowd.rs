//! Clients that keep a lease as the SDK does, each over a connection of its own, and note when each heard that writes are held.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use cutover_api::{Permit, PermitRequest, Writes};
use cutover_wire::pace;
use hyper::{Method, Uri, body::Bytes};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, stdin},
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{one_thread, wire::Wire};

/// So many connect at a time: a server's queue of connections that it has not accepted yet is short.
const AT_ONCE: usize = 32;

/// How long all may take until each has a lease.
const READY_LIMIT: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct Crowd {
    /// Where the server listens.
    #[arg(long)]
    server: SocketAddr,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// What tells the clients of this process from those of another.
    #[arg(long)]
    name: String,
    /// The database that each says it is connected to.
    #[arg(long)]
    database: String,
    /// It ends then, also when standard input does not.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=3_600))]
    seconds: u16,
}

/// What the clients of one process have seen.
#[derive(Default, Serialize)]
pub(crate) struct Seen {
    /// By the epoch under which writes were held: when each client heard of it, in milliseconds since 1970.
    held: BTreeMap<u64, Vec<f64>>,
    /// Requests that failed; each was made again over a new connection.
    failures: u64,
    /// How often one was without a lease after its first.
    lapses: u64,
}

/// What the clients of one process share.
struct Shared {
    crowd: Crowd,
    seen: RefCell<Seen>,
    leased: RefCell<u32>,
    ready: Notify,
    connecting: Semaphore,
}

impl Crowd {
    pub(crate) fn run(self) -> Result<Seen> {
        one_thread()?.block_on(tokio::task::LocalSet::new().run_until(self.play()))
    }

    async fn play(self) -> Result<Seen> {
        let (clients, time) = (self.clients, Duration::from_secs(self.seconds.into()));
        let shared = Rc::new(Shared {
            crowd: self,
            seen: RefCell::default(),
            leased: RefCell::default(),
            ready: Notify::new(),
            connecting: Semaphore::new(AT_ONCE),
        });
        let mut all = JoinSet::new();
        for at in 0..clients {
            all.spawn_local(Client::new(shared.clone(), at).run());
        }
        timeout(READY_LIMIT, shared.ready.notified()).await.context("not every client got a lease in time")?;
        println!("{}", serde_json::json!({ "ready": clients }));
        // Whoever started this lets go of it, or is gone.
        let mut rest = Vec::new();
        timeout(time, stdin().read_to_end(&mut rest)).await.ok();
        all.shutdown().await;
        Ok(shared.seen.take())
    }
}

struct Client {
    shared: Rc<Shared>,
    asks: PermitRequest,
    /// The newest epoch that it has heard of.
    epoch: Option<u64>,
    /// Until when it has a lease.
    until: Option<Instant>,
}

impl Client {
    fn new(shared: Rc<Shared>, at: u32) -> Self {
        let name = format!("{}-{at}", shared.crowd.name);
        let asks = PermitRequest {
            instance: format!("pod-{name}"),
            incarnation: format!("{name:0>32}"),
            database: Some(shared.crowd.database.clone()),
            acknowledged: None,
            revision: None,
            tables: None,
            wait_ms: 0,
        };
        Self { shared, asks, epoch: None, until: None }
    }

    /// Until it is dropped.
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            if self.keep(&mut failures).await.is_err() {
                self.shared.seen.borrow_mut().failures += 1;
                sleep(pace::after_failure(failures, self.left())).await;
                failures += 1;
                // After a failure it is the lease that counts, not the news.
                self.asks.wait_ms = 0;
            }
        }
    }

    /// Asks over one connection for as long as it is answered.
    async fn keep(&mut self, failures: &mut u32) -> Result<()> {
        let mut wire = {
            let _turn = self.shared.connecting.acquire().await?;
            Wire::open(self.shared.crowd.server).await?
        };
        loop {
            let sent = Instant::now();
            let wait = Duration::from_millis(self.asks.wait_ms);
            let permit = timeout(pace::limit(wait, self.left()), self.ask(&mut wire)).await??;
            *failures = 0;
            let news = self.asks.revision != Some(permit.revision);
            self.take(&permit, sent);
            if let Some(rest) = pace::after_answer(news, wait, sent.elapsed()) {
                sleep(rest).await;
            }
        }
    }

    async fn ask(&self, wire: &mut Wire) -> Result<Permit> {
        let body = Bytes::from(serde_json::to_vec(&self.asks)?);
        let (status, answer) = wire.ask(Method::POST, Uri::from_static("/v1/permits"), body).await?;
        ensure!(status.is_success(), "answered with {status}");
        Ok(serde_json::from_slice(&answer)?)
    }

    fn take(&mut self, permit: &Permit, sent: Instant) {
        if self.epoch < Some(permit.epoch) {
            self.epoch = Some(permit.epoch);
            if permit.writes == Writes::Held {
                self.shared.seen.borrow_mut().held.entry(permit.epoch).or_default().push(now_ms());
            }
        }
        // None of its writes is under way, so it acknowledges at once.
        self.asks.acknowledged = self.epoch;
        self.asks.revision = Some(permit.revision);
        self.asks.wait_ms = permit.lease_ms / 3;
        self.lease(sent + Duration::from_millis(permit.lease_ms));
    }

    fn lease(&mut self, until: Instant) {
        match self.until {
            None => {
                let mut leased = self.shared.leased.borrow_mut();
                *leased += 1;
                if *leased == self.shared.crowd.clients {
                    self.shared.ready.notify_one();
                }
            }
            Some(before) if before < Instant::now() => self.shared.seen.borrow_mut().lapses += 1,
            Some(_) => {}
        }
        self.until = self.until.max(Some(until));
    }

    fn left(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// By the clock that the journal's entries are stamped by.
fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1_000.0
}
