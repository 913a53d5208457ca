//! The same request over and over, over so many connections that are kept: how many answers a second, and how late each.

use std::{cell::RefCell, net::SocketAddr, ops::Range, rc::Rc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use hyper::{
    Method, StatusCode, Uri,
    body::Bytes,
    header::{HeaderName, HeaderValue},
};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{one_thread, wire::Wire};

/// No answer takes longer than this. Unit: nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// How long the last answers are waited for.
const REST: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct Load {
    /// Where the server listens.
    #[arg(long)]
    server: SocketAddr,
    #[arg(long, default_value = "POST")]
    method: Method,
    #[arg(long)]
    path: Uri,
    /// `name: value`, any number of them.
    #[arg(long)]
    header: Vec<String>,
    /// In it, `{connection}` stands for the connection's number.
    #[arg(long, default_value = "")]
    body: String,
    /// What the first answer on each connection has to hold.
    #[arg(long)]
    expect: String,
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Requests a second over all connections; each is due at its time, and late from then on. Without: each connection
    /// asks again as soon as it is answered.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
}

/// What was seen after a warm-up of a fifth of the time.
#[derive(Serialize)]
pub(crate) struct Seen {
    answers: u64,
    seconds: f64,
    per_s: f64,
    mean_bytes: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

struct Record {
    latencies_ns: Histogram<u64>,
    bytes: u64,
}

impl Load {
    pub(crate) fn run(self) -> Result<Seen> {
        let load = Rc::new(self);
        one_thread()?.block_on(tokio::task::LocalSet::new().run_until(load.measure()))
    }

    async fn measure(self: Rc<Self>) -> Result<Seen> {
        let mut wires = Vec::new();
        for at in 0..self.connections {
            let body = Bytes::from(self.body.replace("{connection}", &at.to_string()));
            wires.push((self.open(&body).await?, body));
        }
        let time = Duration::from_secs(self.seconds.into());
        let begun = Instant::now();
        let (from, until) = (begun + time / 5, begun + time / 5 + time);
        let record = Rc::new(RefCell::new(Record { latencies_ns: Histogram::new_with_bounds(1, LONGEST_NS, 3)?, bytes: 0 }));
        let mut asking = JoinSet::new();
        for (at, (wire, body)) in wires.into_iter().enumerate() {
            let pace = self.pace(begun, at);
            asking.spawn_local(self.clone().ask(wire, body, pace, from..until, record.clone()));
        }
        let all = timeout(time * 2 + REST, async {
            while let Some(asked) = asking.join_next().await {
                asked??;
            }
            anyhow::Ok(())
        });
        all.await.context("not all was answered in time")??;
        let record = record.borrow();
        Ok(self.seen(&record, time))
    }

    async fn open(&self, body: &Bytes) -> Result<Wire> {
        let mut wire = Wire::open(self.server).await?;
        for header in &self.header {
            let (name, value) = header.split_once(": ").with_context(|| format!("`{header}` is no header"))?;
            wire.headers().insert(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
        }
        let (status, answer) = self.once(&mut wire, body).await?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(status.is_success() && text.contains(&self.expect), "{} is answered with {status}, {text}", self.path);
        Ok(wire)
    }

    async fn once(&self, wire: &mut Wire, body: &Bytes) -> Result<(StatusCode, Bytes)> {
        wire.ask(self.method.clone(), self.path.clone(), body.clone()).await
    }

    /// When a connection's first request is due, and how long after it the next; the connections take turns.
    fn pace(&self, begun: Instant, at: usize) -> Option<(Instant, Duration)> {
        let step = Duration::from_secs(1) / self.rate?;
        Some((begun + step * u32::try_from(at).ok()?, step * u32::from(self.connections)))
    }

    async fn ask(
        self: Rc<Self>,
        mut wire: Wire,
        body: Bytes,
        pace: Option<(Instant, Duration)>,
        counted: Range<Instant>,
        record: Rc<RefCell<Record>>,
    ) -> Result<()> {
        let mut due = pace.map_or_else(Instant::now, |(first, _)| first);
        while due < counted.end {
            if pace.is_some() {
                sleep_until(due).await;
            }
            let (status, answer) = self.once(&mut wire, &body).await?;
            if !status.is_success() {
                bail!("{} is answered with {status}", self.path);
            }
            let now = Instant::now();
            // Those that were due in the time, paced; else those that were answered in it.
            if counted.contains(if pace.is_some() { &due } else { &now }) {
                let mut record = record.borrow_mut();
                record.bytes += answer.len() as u64;
                record.latencies_ns.saturating_record(u64::try_from((now - due).as_nanos()).unwrap_or(LONGEST_NS));
            }
            due = pace.map_or(now, |(_, step)| due + step);
        }
        Ok(())
    }

    fn seen(&self, record: &Record, time: Duration) -> Seen {
        let (latencies, answers) = (&record.latencies_ns, record.latencies_ns.len());
        let us = |ns: u64| ns as f64 / 1_000.0;
        Seen {
            answers,
            seconds: time.as_secs_f64(),
            per_s: answers as f64 / time.as_secs_f64(),
            mean_bytes: record.bytes as f64 / answers.max(1) as f64,
            p50_us: us(latencies.value_at_quantile(0.5)),
            p99_us: us(latencies.value_at_quantile(0.99)),
            max_us: us(latencies.max()),
        }
    }
}
