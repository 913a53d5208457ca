//! One client of the bank: works, and notes truthfully what came of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, rngs::StdRng};
use tokio::{sync::watch, time::Interval};

use super::{
    History, Op, OpKind,
    load::Board,
    operation::{Mix, Request, Tags, Write},
    session::{Session, Trouble},
};

/// After a first failure; doubled with each further one.
const SHORTEST_BACK_OFF: Duration = Duration::from_millis(5);

/// Never longer, so that clients are there again soon after the server is.
const LONGEST_BACK_OFF: Duration = Duration::from_millis(160);

/// What became of a request.
enum Outcome {
    Acknowledged,
    Failed(String),
    Unknown(String),
}

/// One client.
pub(super) struct Worker {
    pub(super) id: i32,
    pub(super) mix: Arc<Mix>,
    pub(super) board: Arc<Board>,
    pub(super) rng: StdRng,
    pub(super) request_timeout: Duration,
    pub(super) url: watch::Receiver<String>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) pace: Option<Interval>,
    pub(super) session: Option<Session>,
    pub(super) tags: Tags,
    pub(super) back_off: Duration,
    pub(super) seen: History,
}

impl Worker {
    /// Works until it is told to stop; the request under way then is brought to its end.
    pub(super) async fn run(mut self) -> History {
        for op in 1.. {
            if self.waits_for_its_turn().await.is_break() {
                break;
            }
            if self.url.has_changed().unwrap_or_default() {
                self.session = None;
            }
            self.request(op).await;
        }
        self.seen
    }

    async fn request(&mut self, op: i64) {
        let request = self.mix.next(&mut self.rng, self.id, op, &self.tags);
        let started = Instant::now();
        let outcome = match &request {
            Request::Read(sql) => self.read(sql).await,
            Request::Write(write) => self.write(write).await,
        };
        self.seen.requests += 1;
        self.board.requested();
        match &outcome {
            Outcome::Acknowledged => {
                self.back_off = Duration::ZERO;
                self.seen.latencies_us.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Outcome::Failed(error) | Outcome::Unknown(error) => {
                self.back_off = (self.back_off * 2).clamp(SHORTEST_BACK_OFF, LONGEST_BACK_OFF);
                self.board.complain(error);
            }
        }
        match request {
            Request::Read(_) if matches!(outcome, Outcome::Acknowledged) => {}
            Request::Read(_) => {
                self.seen.failed_reads += 1;
                self.board.failed();
            }
            Request::Write(write) => self.note(write.kind, op, started, &outcome),
        }
    }

    fn note(&mut self, kind: OpKind, op: i64, started: Instant, outcome: &Outcome) {
        let done = |finished| Op { client: self.id, op, kind, started, finished };
        match outcome {
            Outcome::Acknowledged => {
                let finished = self.board.acknowledge();
                self.seen.acknowledged.push(done(finished));
                if kind == OpKind::Tag {
                    self.tags.acknowledged(op);
                }
            }
            Outcome::Failed(_) => {
                self.seen.failed.push(done(Instant::now()));
                self.board.failed();
            }
            Outcome::Unknown(_) => {
                self.seen.unknown.push(done(Instant::now()));
                self.board.unknown();
                if kind == OpKind::Tag {
                    self.tags.unknown(op);
                }
            }
        }
    }

    async fn read(&mut self, sql: &str) -> Outcome {
        let deadline = self.deadline();
        let answer = match self.session(deadline).await {
            Ok(session) => session.execute(sql, deadline).await,
            Err(trouble) => Err(trouble),
        };
        match answer {
            Ok(1) => Outcome::Acknowledged,
            Ok(rows) => Outcome::Failed(format!("{sql}: {rows} rows instead of 1")),
            Err(trouble) => self.failed(trouble).await,
        }
    }

    async fn write(&mut self, write: &Write) -> Outcome {
        let deadline = self.deadline();
        if let Err(trouble) = self.session(deadline).await {
            return self.failed(trouble).await;
        }
        if let Err(trouble) = self.statements(write, deadline).await {
            // The answer to a statement that commits by itself is lost like the one to a COMMIT.
            return if write.autocommit && !trouble.refused { self.lost(trouble) } else { self.failed(trouble).await };
        }
        if write.autocommit {
            return Outcome::Acknowledged;
        }
        match self.session(deadline).await {
            Ok(session) => match session.execute("COMMIT", deadline).await {
                Ok(_) => Outcome::Acknowledged,
                Err(trouble) if trouble.refused => self.failed(trouble).await,
                Err(trouble) => self.lost(trouble),
            },
            Err(trouble) => self.failed(trouble).await,
        }
    }

    /// Everything before the COMMIT.
    async fn statements(&mut self, write: &Write, deadline: tokio::time::Instant) -> Result<(), Trouble> {
        let session = self.session(deadline).await?;
        if !write.autocommit {
            session.execute("BEGIN", deadline).await?;
        }
        for statement in &write.statements {
            let rows = session.execute(&statement.sql, deadline).await?;
            if statement.rows.is_some_and(|expected| expected != rows) {
                return Err(Trouble::refused(format!("{} touched {rows} rows", statement.sql)));
            }
        }
        Ok(())
    }

    /// The open session, or a new one.
    async fn session(&mut self, deadline: tokio::time::Instant) -> Result<&Session, Trouble> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let url = self.url.borrow_and_update().clone();
                Session::open(&url, deadline).await?
            }
        };
        Ok(self.session.insert(session))
    }

    /// Certainly not committed. Makes the session fit for the next request, or drops it.
    async fn failed(&mut self, trouble: Trouble) -> Outcome {
        let rolled_back = match &self.session {
            Some(session) if trouble.refused => session.execute("ROLLBACK", self.deadline()).await.is_ok(),
            _ => false,
        };
        if !rolled_back {
            self.session = None;
        }
        Outcome::Failed(trouble.text)
    }

    /// Perhaps committed.
    fn lost(&mut self, trouble: Trouble) -> Outcome {
        self.session = None;
        Outcome::Unknown(trouble.text)
    }

    fn deadline(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + self.request_timeout + self.mix.slow
    }

    /// Waits as long as the rate and the last failure want, unless the load ends.
    async fn waits_for_its_turn(&mut self) -> std::ops::ControlFlow<()> {
        let back_off = self.back_off.mul_f64(self.rng.random_range(0.5..1.0));
        let turn = async {
            tokio::time::sleep(back_off).await;
            if let Some(pace) = &mut self.pace {
                pace.tick().await;
            }
        };
        tokio::select! {
            biased;
            // Also when the load is dropped.
            _ = self.stop.wait_for(|stop| *stop) => std::ops::ControlFlow::Break(()),
            () = turn => std::ops::ControlFlow::Continue(()),
        }
    }
}
