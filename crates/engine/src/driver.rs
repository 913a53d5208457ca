//! The loop: the core says which step is next, the driver does its actions, the journal records what was observed.
//!
//! A step that fails before the commit point is abandoned, and the undo is again a step of the core's. After the commit
//! point the driver only goes forward.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant as Clock},
};

use cutover_core::{Action, Command, Fence, Shape, Side, State, Step, Writes, next};
use cutover_journal::{DriveError, Hold};
use cutover_postgres::{PgError, gate, identity::identity};
use cutover_traffic::TrafficError;
use tokio::{sync::watch, time::Instant};

use crate::{
    Cutover, EngineError, EngineResult, Failpoint, Notice, Report,
    log::{Log, Voice},
    sides::Sides,
};

/// How long an undo, or an opening after the commit point, is tried before a person must look.
const PERSIST_LIMIT: Duration = Duration::from_secs(120);

/// How long the journal may be out of reach before a person must look.
const HOLD_LIMIT: Duration = Duration::from_secs(30);

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
    interrupt: watch::Receiver<bool>,
    failpoint: Failpoint,
    pub(crate) pause: Option<PauseClock>,
    pub(crate) observed: Observed,
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
    pub(crate) facts: BTreeMap<String, serde_json::Value>,
}

impl<'a> Driver<'a> {
    /// Takes the cutover over: exclusive from here on, with an epoch that shuts older drivers out.
    pub(crate) async fn take_over(cutover: &'a Cutover, drive: Drive<'a>) -> EngineResult<Self> {
        let hold = cutover.journal.drive(&drive.actor).await.map_err(EngineError::Held)?;
        let log = Log::load(&*cutover.journal).await?;
        let mut driver = Self {
            cutover,
            sides: Sides::new(&cutover.plan, &cutover.names),
            log,
            hold,
            voice: Voice { actor: drive.actor, reason: drive.reason },
            report: drive.report,
            interrupt: drive.interrupt,
            failpoint: drive.failpoint,
            pause: None,
            observed: Observed::default(),
        };
        if let Some(state) = driver.log.state() {
            for side in Side::BOTH {
                driver.sides.expect(side, state.identity(side));
            }
            driver.adopt().await?;
        }
        Ok(driver)
    }

    /// A cutover that somebody else has begun: follow the plan as it is now, and shut earlier drivers out.
    async fn adopt(&mut self) -> EngineResult<()> {
        let driver = self.voice.actor.clone();
        if self.log.begun()?.ended() {
            return Ok(());
        }
        self.refuse_strangers().await?;
        self.say(Command::TakeOver { driver }).await?;
        if self.log.begun()?.plan.digest != self.cutover.digest {
            let command = Command::RevisePlan { digest: self.cutover.digest.clone(), shape: self.cutover.shape() };
            match self.say(command).await {
                Err(EngineError::Refused(_)) => {
                    let phase = self.log.begun()?.phase.describe();
                    self.note(Notice::Note(format!("the plan file has changed; it counts when the cutover is no longer {phase}")));
                }
                other => other?,
            }
        }
        self.end_other_drivers().await;
        Ok(())
    }

    /// A server that is not the journal's is never touched. One that can't be reached now may still be met later.
    async fn refuse_strangers(&mut self) -> EngineResult<()> {
        for side in Side::BOTH {
            match self.sides.client(side).await {
                Err(error @ PgError::Mismatch(_)) => return Err(EngineError::database(side)(error)),
                Err(error) => self.note(Notice::Warning(format!("{side}: {error}"))),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Sessions of a driver before us may still copy. A side that can't be reached now is met again by the step that needs it.
    async fn end_other_drivers(&mut self) {
        let prefix = self.cutover.names.application("");
        for side in Side::BOTH {
            let ended = match self.sides.client(side).await {
                Ok(client) => gate::end_other_drivers(client, &prefix, &[]).await,
                Err(_) => continue,
            };
            match ended {
                Ok(0) => {}
                Ok(count) => self.note(Notice::Note(format!("ended {count} sessions of an earlier driver at the {side}"))),
                Err(error) => self.note(Notice::Warning(format!("{side}: {error}"))),
            }
        }
    }

    /// Begins a cutover: from here on the journal knows both databases by their identity.
    pub(crate) async fn create(&mut self) -> EngineResult<()> {
        let mut found = Vec::with_capacity(2);
        for side in Side::BOTH {
            let url = &self.cutover.plan.database(side).url;
            let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
            found.push(identity(client, url).await.map_err(EngineError::database(side))?);
        }
        let (Some(target), Some(source)) = (found.pop(), found.pop()) else { return Ok(()) };
        self.sides.expect(Side::Source, &source);
        self.sides.expect(Side::Target, &target);
        let plan = self.cutover.plan_ref();
        self.say(Command::Create { plan, shape: self.cutover.shape(), source, target }).await
    }

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

    /// The session that holds the journal may have broken. It is taken again: an append is conditional, so if somebody
    /// else drove meanwhile, ours fails.
    async fn keep_hold(&mut self) -> EngineResult<()> {
        let until = Instant::now() + HOLD_LIMIT;
        while !self.hold.is_held().await {
            match self.cutover.journal.drive(&self.voice.actor).await {
                Ok(hold) => self.hold = hold,
                Err(DriveError::Held { by, .. }) if by != self.hold.who() => {
                    return Err(EngineError::Superseded(format!("{by} drives it now")));
                }
                Err(error) if Instant::now() >= until => return Err(self.journal_lost(&error)),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        Ok(())
    }

    fn journal_lost(&self, error: &DriveError) -> EngineError {
        let phase = self.log.state().map_or_else(|| "not begun".to_owned(), |state| state.phase.describe());
        let held = self.log.state().is_some_and(|state| state.route().writes == Writes::Held);
        EngineError::Unknown {
            what: format!("the journal at {} can't be reached any more: {error}", self.cutover.journal_location()),
            look: format!(
                "the cutover was {phase}{}. Nothing more is done without the journal: bring it back and run `cutover run`",
                if held { ", and writes are held" } else { "" }
            ),
        }
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

    /// Waits, but not when somebody wants us to stop.
    async fn rest(&mut self, length: Duration) {
        let mut interrupt = self.interrupt.clone();
        drop(tokio::time::timeout(length, asked_to_stop(&mut interrupt)).await);
    }

    /// Does what is next until the cutover waits for a decision.
    pub(crate) async fn run(&mut self) -> EngineResult<()> {
        let mut abandoned: Option<EngineError> = None;
        let mut persisting: Option<Instant> = None;
        while let Some(step) = next(self.state()?) {
            match self.attempt(step).await {
                Ok(()) => persisting = None,
                Err(error @ (EngineError::Superseded(_) | EngineError::Held(_) | EngineError::Unknown { .. })) => return Err(error),
                Err(error) => match self.kind(step) {
                    Kind::Preparation => return Err(error),
                    Kind::Abandonable => {
                        self.sides.drop_clients();
                        self.say(Command::Abandon { why: error.to_string() }).await?;
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

    fn kind(&self, step: Step) -> Kind {
        match step {
            Step::Arm(_) | Step::BeginPause(_) | Step::Fence(_) | Step::Drain(_) | Step::Commit(_) => Kind::Abandonable,
            Step::Undo(_) | Step::Open(_) | Step::Restore(_) => Kind::Persistent,
            Step::Prepare(_) | Step::Smoke(_) | Step::Retire | Step::TearDown => Kind::Preparation,
        }
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
                hint: "`cutover run` tries again. Where the slot is lost the copy must be made again: `cutover rollback` removes what was made"
                    .to_owned(),
            });
        }
        if Instant::now() >= until {
            return Err(EngineError::Unknown {
                what: format!("`{name}` could not be finished: {error}"),
                look: format!(
                    "writes may be held. Bring the server back and run `cutover run`: it goes on with `{name}`. `cutover status` shows both gates"
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
        let stoppable = !matches!(self.kind(step), Kind::Persistent);
        let deadline = match (spec.in_pause, self.pause, spec.timeout) {
            (true, Some(pause), _) => Some(pause.deadline),
            (_, _, Some(limit)) => Some(Instant::now() + limit),
            _ => None,
        };
        self.observed = Observed::default();
        let mut interrupt = self.interrupt.clone();
        let work = async {
            for action in spec.does {
                self.note(Notice::Action(action));
                let began = Clock::now();
                self.within(action, deadline, spec.name).await?;
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
            done = work => done?,
        }
        let command = self.observation(step)?;
        self.say(command).await?;
        if matches!(step, Step::BeginPause(_)) {
            self.pause = Some(PauseClock::start(self.cutover.plan.pause.budget));
        }
        if matches!(step, Step::Open(_) | Step::Undo(_)) {
            self.pause = None;
        }
        Ok(())
    }

    /// One action, ended when its step's time is up.
    async fn within(&mut self, action: Action, deadline: Option<Instant>, step: &str) -> EngineResult<()> {
        let Some(deadline) = deadline else {
            return Box::pin(self.act(action, Instant::now() + Duration::from_secs(3600 * 24 * 365))).await;
        };
        let began = Instant::now();
        // Actions watch the deadline themselves and say what they waited for; this is for a server that hangs.
        let grace = deadline + Duration::from_millis(20);
        match tokio::time::timeout_at(grace, Box::pin(self.act(action, deadline))).await {
            Ok(done) => done,
            Err(_) => Err(EngineError::Database {
                side: step.to_owned(),
                source: PgError::TimedOut { doing: format!("{action:?}"), limit: began.elapsed() },
            }),
        }
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
                Command::Fenced { fence: observed.fence.ok_or_else(missing)?, closed_after_ms: observed.closed_after_ms }
            }
            Step::Drain(_) => Command::Drained { sequences: observed.sequences, after_ms: elapsed },
            Step::Commit(_) => Command::Commit,
            Step::Open(_) => Command::Opened { pause_ms: observed.opened_after_ms },
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
async fn asked_to_stop(interrupt: &mut watch::Receiver<bool>) {
    if interrupt.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What a failed step means for the cutover.
enum Kind {
    /// It can be begun again; nothing is held.
    Preparation,
    /// The switch is given up and undone.
    Abandonable,
    /// It is what ends a pause, and is tried again.
    Persistent,
}

/// What it means for whoever asked that a switch was undone because of `error`.
fn verdict(error: EngineError) -> EngineError {
    match error {
        EngineError::Interrupted(_) => {
            EngineError::Interrupted("the switch was undone: the old side takes writes and is followed as before".to_owned())
        }
        EngineError::Database { side, source } if retryable(&source) => {
            EngineError::PauseExhausted { attempts: 1, last: format!("{side}: {source}") }
        }
        EngineError::Traffic(source) if traffic_timed_out(&source) => EngineError::PauseExhausted { attempts: 1, last: source.to_string() },
        other => EngineError::Undone { hint: other.hint(), why: other.to_string() },
    }
}

fn traffic_timed_out(error: &TrafficError) -> bool {
    match error {
        TrafficError::TimedOut { .. } | TrafficError::CommandTimedOut { .. } => true,
        TrafficError::Several(errors) => errors.iter().all(traffic_timed_out),
        _ => false,
    }
}

/// Whether it may well be gone when we try again.
fn transient(error: &EngineError) -> bool {
    matches!(error, EngineError::Database { source, .. } if retryable(source))
}

fn retryable(error: &PgError) -> bool {
    matches!(error, PgError::TimedOut { .. }) || error.is_lock_timeout() || error.is_disconnect()
}

impl Cutover {
    /// What of the plan decides the steps.
    pub(crate) fn shape(&self) -> Shape {
        Shape { reverse: self.plan.switch.reverse, migrate: self.plan.hooks.migrate.is_some(), smoke: self.plan.hooks.smoke.is_some() }
    }
}
