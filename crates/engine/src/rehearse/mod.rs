//! A rehearsal: the whole cutover between clones made for it, by the same engine, with an answer for each thing that
//! must hold.
//!
//! Nothing of the protocol is written here a second time. What is: how clones are filled, what is asked between the
//! verbs, and how everything is removed.

mod board;
mod load;
mod play;
mod record;
mod watch;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use cutover_core::{
    Identity, Plan,
    plan::{Database, DatabaseUrl, Traffic},
};
use cutover_postgres::clone::{self, Made, Marker, Origin};
use serde::Serialize;
use tokio::sync::watch as channel;
use tokio_postgres::Client;

pub(crate) use self::record::require;
use self::{board::Board, play::Play};
pub use self::{
    board::{Case, Outcome},
    record::{SOURCE_PROFILE, remember},
};
use crate::{EngineError, EngineResult, Report};

/// Where a rehearsal is held: two servers, and the way to them.
#[derive(Clone, Debug)]
pub struct Stage {
    /// For the source's clone and the target's: a database of the server's own, from which others are made.
    pub servers: [DatabaseUrl; 2],
    /// How each server reaches the other, where that is by another address than ours. The database is put in.
    pub peers: [Option<DatabaseUrl>; 2],
    /// What holds and points the rehearsal's own traffic.
    pub traffic: Vec<Traffic>,
    /// Where that traffic goes in; straight to both servers without one.
    pub entrance: Option<DatabaseUrl>,
}

/// One rehearsal: a plan, a stage, and what to fill the clones with.
pub struct Rehearsal<'a> {
    /// The real plan. Its source is only read, its target never touched.
    pub plan: &'a Plan,
    /// Its file's text.
    pub plan_text: &'a str,
    /// Its folder, where hooks and seeds run.
    pub folder: &'a Path,
    /// A folder for the rehearsal's journal.
    pub state: &'a Path,
    /// Folders with PostgreSQL's client programs.
    pub tools: Vec<PathBuf>,
    /// Where it is held.
    pub stage: Stage,
    /// The clones' marker.
    pub marker: Marker,
    /// The databases that the plan is about, as far as they could be asked who they are.
    pub forbidden: Vec<Identity>,
    /// Definitions and rows.
    pub origin: Origin,
    /// What this rehearsal is called.
    pub profile: String,
    /// An SQL file, or a command.
    pub seed: Option<String>,
    /// Whether the clones stay.
    pub keep: bool,
    /// Who listens.
    pub report: &'a dyn Report,
    /// Becomes true when somebody asks to stop.
    pub interrupt: channel::Receiver<bool>,
}

/// How a rehearsal went.
#[derive(Debug, Serialize)]
pub struct Rehearsed {
    /// Which.
    pub profile: String,
    /// The clones' name at both servers.
    pub database: String,
    /// Major version of the source's clone; 0 where it was never made.
    pub source_major: u32,
    /// Major version of the target's clone; 0 where it was never made.
    pub target_major: u32,
    /// Everything that must hold, in order.
    pub cases: Vec<Case>,
    /// The pause of the switch, in milliseconds.
    pub switch_pause_ms: Option<u64>,
    /// The pause of the way back, in milliseconds.
    pub rollback_pause_ms: Option<u64>,
    /// The rehearsal's own writes during the switch and the way back that were acknowledged.
    pub acknowledged_writes: u64,
    /// Those of them that were gone afterwards.
    pub lost_writes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The clones, where they were left standing: the source's and the target's.
    #[serde(skip)]
    pub kept: Vec<DatabaseUrl>,
    /// Whether somebody stopped it.
    pub interrupted: bool,
}

impl Rehearsed {
    /// Whether everything held, and nothing was left out.
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.cases.iter().all(|case| case.outcome == Outcome::Passed)
    }
}

impl Rehearsal<'_> {
    /// Holds the rehearsal, and removes everything afterwards, however it went. What fails is in the answer.
    pub async fn hold(&self) -> Rehearsed {
        let began = Instant::now();
        let stop = self.stop();
        let mut board = Board::new(play::cases(self.plan, self.seed.is_some(), self.keep), stop.receiver.clone());
        let (mut made, mut present) = (Vec::new(), Vec::new());
        let mut play = Play::default();
        if board.case("clones", self.make(&mut made, &mut present)).await.is_some()
            && let [source, target] = &made[..]
        {
            // It ends early where something that all the rest needs has failed; the board knows what.
            let _ = Box::pin(self.play(&mut board, &mut play, [source, target], &stop.receiver)).await;
        }
        drop(present);
        let interrupted = *self.interrupt.borrow();
        if !self.keep {
            board.last("removed", self.remove()).await;
        }
        let major = |at: usize| made.get(at).map_or(0, Made::major);
        Rehearsed {
            profile: self.profile.clone(),
            database: self.marker.database(),
            source_major: major(0),
            target_major: major(1),
            switch_pause_ms: play.pauses[0],
            rollback_pause_ms: play.pauses[1],
            acknowledged_writes: play.acknowledged,
            lost_writes: play.lost,
            cases: board.into_cases(),
            seconds: began.elapsed().as_secs_f64(),
            kept: if self.keep { made.iter().map(|made| made.url.clone()).collect() } else { Vec::new() },
            interrupted,
        }
    }

    /// Makes both clones, and stays present in them: that tells whoever cleans up that they are in use.
    async fn make(&self, made: &mut Vec<Made>, present: &mut Vec<Client>) -> EngineResult<String> {
        for server in &self.stage.servers {
            let clone = Made::create(server, &self.marker, &self.forbidden).await.map_err(EngineError::database("clone"))?;
            present.push(clone.session(None).await.map_err(EngineError::database("clone"))?);
            made.push(clone);
        }
        let versions: Vec<String> = made.iter().map(|made| format!("PostgreSQL {} at {}", made.major(), made.url.address())).collect();
        Ok(format!("{} in {}", self.marker.database(), versions.join(" and ")))
    }

    async fn remove(&self) -> EngineResult<String> {
        let clones = self.stage.servers.clone().map(|server| (server, self.marker.clone()));
        clone::remove(&clones).await.map_err(EngineError::database("clone"))?;
        Ok("both clones and the roles made for them are gone".to_owned())
    }

    /// Where a clone is, for us and for the other server.
    fn database(&self, at: usize, made: &Made) -> Database {
        let name = &made.url.database;
        let peer_url =
            self.stage.peers[at].as_ref().map_or_else(|| made.url.clone(), |peer| DatabaseUrl { database: name.clone(), ..peer.clone() });
        Database { url: made.url.clone(), peer_url }
    }

    /// Somebody's wish to stop, or the end of the time that the plan gives a rehearsal.
    fn stop(&self) -> Stop {
        let (sender, receiver) = channel::channel(false);
        let (mut interrupt, limit) = (self.interrupt.clone(), self.plan.rehearse.timeout);
        let task = tokio::spawn(async move {
            let asked = async {
                if interrupt.wait_for(|stop| *stop).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            // Either way it is over.
            let _ = tokio::time::timeout(limit, asked).await;
            sender.send_replace(true);
        });
        Stop { receiver, task }
    }
}

/// Ends with the rehearsal.
struct Stop {
    receiver: channel::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.task.abort();
    }
}
