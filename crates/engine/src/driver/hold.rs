//! Takes a cutover over, and keeps it: from the journal, from both databases, and from whoever drove it before.

use std::time::Duration;

use cutover_core::{Command, Side, Writes};
use cutover_journal::DriveError;
use cutover_postgres::{PgError, gate, identity::identity};
use tokio::time::Instant;

use super::{Drive, Driver, Observed};
use crate::{
    Cutover, EngineError, EngineResult, Notice,
    log::{Log, Voice},
    sides::Sides,
};

/// How long the journal may be out of reach before a person must look.
const HOLD_LIMIT: Duration = Duration::from_secs(30);

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
            watched: None,
            definitions: None,
            carrying: None,
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
        self.cutover.refuse_other_tables(self.log.begun()?)?;
        self.refuse_strangers().await?;
        self.say(Command::TakeOver { driver }).await?;
        if self.log.begun()?.plan.digest != self.cutover.digest {
            match self.say(self.cutover.revision()).await {
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

    /// Sessions of a driver before us may still copy. Those that keep its snapshot stay, so that its copy can be gone on
    /// with. A side that can't be reached now is met again by the step that needs it.
    async fn end_other_drivers(&mut self) {
        let prefix = self.cutover.names.application("");
        let keep = [self.cutover.names.keeper()];
        for side in Side::BOTH {
            let ended = match self.sides.client(side).await {
                Ok(client) => gate::end_other_drivers(client, &prefix, &keep).await,
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
        let filter = self.cutover.plan.tables.filter.clone();
        self.say(Command::Create { plan, shape: self.cutover.shape(), source, target, filter }).await
    }

    /// The session that holds the journal may have broken. It is taken again: an append is conditional, so if somebody
    /// else drove meanwhile, ours fails.
    pub(crate) async fn keep_hold(&mut self) -> EngineResult<()> {
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
                "the cutover was {phase}{}. Nothing more is done without the journal: bring it back and run `cutover run --until ready`",
                if held { ", and writes are held" } else { "" }
            ),
        }
    }
}
