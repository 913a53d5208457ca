//! The loop: the core says which step is next, the driver does its actions, the journal records what was observed.
//!
//! A step that fails before the commit point is abandoned, and the undo is again a step of the core's. After the commit
//! point the driver only goes forward.

mod hold;
mod verdict;
mod waited;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant as Clock},
};

use cutover_core::{Acknowledged, Action, Changes, Command, Fence, Phase, Side, State, Step, Writes, next};
use cutover_journal::Hold;
use cutover_postgres::{PgError, index::Definitions};
use tokio::{sync::watch, time::Instant};

pub(crate) use self::verdict::transient;
use self::{
    verdict::{Kind, verdict},
    waited::Waited,
};
use crate::{
    Cutover, EngineError, EngineResult, Failpoint, Notice, Report, describe,
    log::{Log, Voice},
    perform::{Carrying, Watched},
    sides::Sides,
    traces,
};

/// How long an undo, or an opening after the commit point, is tried before a person must look.
const PERSIST_LIMIT: Duration = Duration::from_secs(120);

/// How long an action that has run out of its time may take to say why.
const GRACE: Duration = Duration::from_millis(100);

/// Between two attempts of a pause, so that clients draw breath.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(500);

/// Who drives, why, and who listens.
pub struct Drive<'a> {
    /// Who: user and host.
    pub actor: String,
    /// Why, in the words of whoever asked.
    pub reason: String,
    /// Who listens.
    pub report: &'a dyn Report,
    /// Becomes true when somebody asks to stop.
    pub interrupt: watch::Receiver<bool>,
    /// Where a test kills the driver.
    pub failpoint: Failpoint,
}

/// Drives one cutover, for as long as it holds the journal.
pub(crate) struct Driver<'a> {
    pub(crate) cutover: &'a Cutover,
    pub(crate) sides: Sides<'a>,
    pub(crate) log: Log<'a>,
    hold: Hold,
    voice: Voice,
    pub(crate) report: &'a dyn Report,
    pub(crate) interrupt: watch::Receiver<bool>,
    failpoint: Failpoint,
    pub(crate) pause: Option<PauseClock>,
    pub(crate) observed: Observed,
    pub(crate) watched: Option<Watched>,
    /// What the copy can build on full tables, once the schema was read.
    pub(crate) definitions: Option<Definitions>,
    pub(crate) carrying: Option<Carrying>,
}

/// The one budget of a pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PauseClock {
    began: Clock,
    pub(crate) deadline: Instant,
}

impl PauseClock {
    fn start(budget: Duration) -> Self {
        Self { began: Clock::now(), deadline: Instant::now() + budget }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What the actions of one step have seen.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) tables: u32,
    pub(crate) sequences: u32,
    pub(crate) fence: Option<Fence>,
    pub(crate) closed_after_ms: u64,
    pub(crate) opened_after_ms: u64,
    pub(crate) acknowledged: Option<Acknowledged>,
    pub(crate) facts: BTreeMap<String, serde_json::Value>,
    pub(crate) changes: Option<Changes>,
}

impl<'a> Driver<'a> {
    pub(crate) fn state(&self) -> EngineResult<&State> {
        self.log.begun()
    }

    pub(crate) fn note(&self, notice: Notice<'_>) {
        self.report.notice(&notice);
    }

    fn interrupted(&self) -> bool {
        *self.interrupt.borrow()
    }

    /// Decides and appends. When this returns, the state is what it says and durably so.
    pub(crate) async fn say(&mut self, command: Command) -> EngineResult<()> {
        self.keep_hold().await?;
        let events = self.log.decide(command)?;
        self.failpoint.before(&events);
        let entries = self.log.append(events, &self.voice).await?;
        for (entry, event) in &entries {
            self.note(Notice::Journalled(entry, event));
        }
        let events: Vec<_> = entries.into_iter().map(|(_, event)| event).collect();
        self.failpoint.after(&events);
        Ok(())
    }

    /// Lets the database change hands, in as many attempts as the plan allows.
    pub(crate) async fn switch(&mut self, to: Side) -> EngineResult<()> {
        let attempts = self.cutover.plan.pause.attempts;
        for attempt in 1..=attempts {
            self.say(Command::Switch { to }).await?;
            match self.run().await {
                Err(EngineError::PauseExhausted { last, .. }) if attempt == attempts => {
                    return Err(EngineError::PauseExhausted { attempts, last });
                }
                Err(EngineError::PauseExhausted { last, .. }) => {
                    self.note(Notice::Warning(format!("attempt {attempt} of {attempts} was undone: {last}")));
                    self.rest(BETWEEN_ATTEMPTS * attempt).await;
                    if self.interrupted() {
                        return Err(EngineError::Interrupted("the switch was undone and is not tried again".to_owned()));
                    }
                }
                other => return other,
            }
        }
        Ok(())
    }

    /// Does what changes nothing, until somebody wants us to stop.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> EngineResult<T> {
        let mut interrupt = self.interrupt.clone();
        tokio::select! {
            biased;
            () = asked_to_stop(&mut interrupt) => Err(EngineError::Interrupted("nothing was held".to_owned())),
            done = work => Ok(done),
        }
    }

    /// Waits, but not when somebody wants us to stop.
    async fn rest(&mut self, length: Duration) {
        let mut interrupt = self.interrupt.clone();
        drop(tokio::time::timeout(length, asked_to_stop(&mut interrupt)).await);
    }

    /// Does what is next until the cutover waits for a decision.
    pub(crate) async fn run(&mut self) -> EngineResult<()> {
        let done = self.run_steps().await;
        let held = self.log.state().is_some_and(|state| state.route().writes == Writes::Held);
        match done {
            // An undo can fail as well, as when the journal's disk is full. Whoever reads only the exit code must hear of it.
            Err(error) if held && error.exit_code() == 1 => Err(EngineError::Unknown {
                what: format!("writes are held, and it can't go on: {error}"),
                look: "mend that, then `cutover run --until ready` finishes or undoes what was begun".to_owned(),
            }),
            done => done,
        }
    }

    /// Finishes or undoes a switch that was begun; a preparation is not gone on with.
    pub(crate) async fn run_unless_preparing(&mut self) -> EngineResult<()> {
        if matches!(self.state()?.phase, Phase::Preparing { .. }) { Ok(()) } else { self.run().await }
    }

    async fn run_steps(&mut self) -> EngineResult<()> {
        let mut abandoned: Option<EngineError> = None;
        let mut persisting: Option<Instant> = None;
        while let Some(step) = next(self.state()?) {
            let span = traces::span(step.spec(self.state()?.shape.reverse).name, &self.cutover.plan.name);
            span.record("cutover.epoch", self.state()?.epoch);
            match traces::traced(span, self.attempt(step)).await {
                Ok(()) => persisting = None,
                Err(error @ (EngineError::Superseded(_) | EngineError::Held(_) | EngineError::Unknown { .. })) => return Err(error),
                Err(error) => match Kind::of(step) {
                    Kind::Preparation => return Err(error),
                    Kind::Abandonable => {
                        self.sides.drop_clients();
                        let differences = if let EngineError::Changed { count, .. } = &error { *count } else { 0 };
                        self.say(Command::Abandon { why: error.to_string(), differences }).await?;
                        abandoned = Some(error);
                    }
                    Kind::Persistent => {
                        let until = *persisting.get_or_insert_with(|| Instant::now() + PERSIST_LIMIT);
                        self.persist(step, error, until).await?;
                    }
                },
            }
        }
        abandoned.map_or(Ok(()), |error| Err(verdict(error)))
    }

    /// An undo or an opening that failed is tried again for a while: both are what ends a pause. So is turning the
    /// stream round, but no write waits for that, and a slot that is lost does not come back.
    async fn persist(&mut self, step: Step, error: EngineError, until: Instant) -> EngineResult<()> {
        let name = step.spec(true).name;
        if let Step::Restore(switch) = step
            && (Instant::now() >= until || !transient(&error))
        {
            return Err(EngineError::Mismatch {
                what: format!(
                    "the switch was undone and writes go on at the {}, but the {} stream could not be restored: {error}",
                    switch.from(),
                    switch.stream()
                ),
                hint: format!(
                    "`cutover run --until ready` tries again. Where the slot is lost the copy must be made again: \
                     `cutover rollback --confirm {}` removes what was made",
                    self.cutover.plan.name
                ),
            });
        }
        if Instant::now() >= until {
            return Err(EngineError::Unknown {
                what: format!("`{name}` could not be finished: {error}"),
                look: format!(
                    "writes may be held. Bring the server back and run `cutover run --until ready`: it goes on with `{name}`. `cutover status` shows both gates"
                ),
            });
        }
        self.note(Notice::Warning(format!("{name}: {error}; trying again")));
        self.sides.drop_clients();
        tokio::time::sleep(Duration::from_millis(250)).await;
        Ok(())
    }

    /// Does one step and says what was observed. Before the commit point Ctrl-C ends it at once.
    async fn attempt(&mut self, step: Step) -> EngineResult<()> {
        self.note(Notice::Step(step));
        let spec = step.spec(self.state()?.shape.reverse);
        let stoppable = !matches!(Kind::of(step), Kind::Persistent);
        let deadline = match (spec.in_pause, self.pause, spec.timeout) {
            (true, Some(pause), _) => Some(pause.deadline),
            (_, _, Some(limit)) => Some(Instant::now() + limit),
            _ => None,
        };
        self.observed = Observed::default();
        let mut interrupt = self.interrupt.clone();
        let (report, waited) = (self.report, Waited::default());
        let work = async {
            for action in spec.does {
                self.note(Notice::Action(action));
                let began = Clock::now();
                waited.begin(describe::line(self.cutover, self.state()?.epoch, action));
                let span = traces::span(&format!("{action:?}"), &self.cutover.plan.name);
                traces::traced(span, self.within(action, deadline)).await?;
                let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.note(Notice::ActionDone(action, took));
            }
            Ok::<(), EngineError>(())
        };
        tokio::select! {
            biased;
            () = asked_to_stop(&mut interrupt), if stoppable => {
                return Err(EngineError::Interrupted(format!("`{}` was stopped", spec.name)));
            }
            () = waited.tell(report, spec.name) => {}
            done = work => done?,
        }
        // A driver that stood still, or a server that answered at the last moment: what is late before the commit point
        // is undone, however far it has come.
        if stoppable && spec.in_pause {
            self.refuse_late(spec.name, deadline)?;
        }
        let command = self.observation(step)?;
        self.say(command).await?;
        if matches!(step, Step::BeginPause(_)) {
            self.pause = Some(PauseClock::start(self.cutover.plan.pause.budget));
        }
        if matches!(step, Step::Open(_) | Step::Undo(_)) {
            self.pause = None;
        }
        if matches!(step, Step::Open(_)) {
            self.watched = None;
            self.carrying = None;
        }
        Ok(())
    }

    /// One action, ended when its step's time is up.
    async fn within(&mut self, action: Action, deadline: Option<Instant>) -> EngineResult<()> {
        // What waits for people has a limit of its own.
        let deadline = deadline.filter(|_| !matches!(action, Action::AwaitClients(_)));
        let Some(deadline) = deadline else {
            return Box::pin(self.act(action, Instant::now() + Duration::from_secs(3600 * 24 * 365))).await;
        };
        let began = Instant::now();
        // Actions watch the deadline themselves and say what they waited for; this is for a server that hangs.
        let grace = deadline + GRACE;
        match tokio::time::timeout_at(grace, Box::pin(self.act(action, deadline))).await {
            Ok(done) => done,
            Err(_) => Err(EngineError::Database {
                side: "no answer".to_owned(),
                source: PgError::TimedOut { doing: describe::line(self.cutover, self.state()?.epoch, action), limit: began.elapsed() },
            }),
        }
    }

    fn refuse_late(&self, doing: &str, deadline: Option<Instant>) -> EngineResult<()> {
        if deadline.is_none_or(|deadline| Instant::now() <= deadline) {
            return Ok(());
        }
        let late = PgError::TimedOut { doing: format!("`{doing}`"), limit: self.cutover.plan.pause.budget };
        Err(EngineError::Database { side: "the pause".to_owned(), source: late })
    }

    /// What a finished step reports.
    fn observation(&mut self, step: Step) -> EngineResult<Command> {
        let elapsed = self.pause.as_ref().map_or(0, PauseClock::elapsed_ms);
        let observed = std::mem::take(&mut self.observed);
        Ok(match step {
            Step::Prepare(_) => Command::Prepared { facts: observed.facts },
            Step::Arm(_) => Command::Armed { tables: observed.tables },
            Step::BeginPause(_) => Command::BeginPause,
            Step::Fence(_) => {
                let missing =
                    || EngineError::Mismatch { what: "no marker was written".to_owned(), hint: "report this as a bug".to_owned() };
                let fence = observed.fence.ok_or_else(missing)?;
                Command::Fenced { fence, closed_after_ms: observed.closed_after_ms, acknowledged: observed.acknowledged }
            }
            Step::Drain(_) => Command::Drained { sequences: observed.sequences, after_ms: elapsed, changes: observed.changes },
            Step::Commit(_) => Command::Commit,
            Step::Open(_) => Command::Opened { pause_ms: observed.opened_after_ms, acknowledged: observed.acknowledged },
            Step::Smoke(_) => Command::Smoked,
            Step::Undo(_) => Command::Undone { pause_ms: observed.opened_after_ms },
            Step::Restore(_) => Command::Restored,
            Step::Retire => Command::Retired,
            Step::TearDown => Command::TornDown,
        })
    }

    /// Milliseconds since the pause began; 0 where a driver before us had begun it.
    pub(crate) fn pause_ms(&self) -> u64 {
        self.pause.as_ref().map_or(0, PauseClock::elapsed_ms)
    }
}

/// Comes back when somebody asks to stop, and never if nobody can any more.
pub(crate) async fn asked_to_stop(interrupt: &mut watch::Receiver<bool>) {
    if interrupt.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
