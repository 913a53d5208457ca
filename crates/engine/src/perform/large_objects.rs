//! Large objects: brought over in rounds while both sides move, and a last time inside the pause.

use std::time::Duration;

use cutover_core::{Phase, Preparation, Side, Stream, plan::LargeObjects};
use cutover_postgres::{
    PgError,
    large_objects::{self, Carrier, Numbers, Round, Way},
    limit::{Limiter, Limits},
};
use tokio::time::Instant;

use super::{copy_rows::Patience, prepare::PROGRESS_INTERVAL};
use crate::{
    EngineError, EngineResult, Notice, Progress,
    driver::{Driver, transient},
};

/// A round that went on for so long before it failed has come somewhere: then it is tried as long again.
const GOOD_WHILE: Duration = Duration::from_secs(60);

/// The part of the pause's budget that the last round may take: the rest of the pause needs some, too.
const SHARE: u32 = 2;

/// A round that takes more of the time of the one before comes no closer.
const SHRINKING: f64 = 0.7;

/// Sessions that bring large objects over, in one direction.
pub(crate) struct Carrying {
    carrier: Carrier,
    stream: Stream,
}

impl Driver<'_> {
    /// Rounds, until they come no closer, or the next one fits into the pause.
    pub(super) async fn bring_large_objects(&mut self, stream: Stream, deadline: Instant) -> EngineResult<()> {
        if !self.carries_large_objects() {
            return Ok(());
        }
        let phase = &self.state()?.phase;
        let copying = matches!(phase, Phase::Preparing { step: Preparation::CopyRows });
        let (in_switch, pause_is_next) = (!matches!(phase, Phase::Preparing { .. }), matches!(phase, Phase::Armed(_)));
        let share = self.cutover.plan.pause.budget / SHARE;
        let carrying = self.carrying(stream).await?;
        if copying && carrying.carrier.looked_before().await.map_err(EngineError::database("large objects"))? {
            // They were copied before the rows were. What changed since is brought when the target has caught up.
            return Ok(());
        }
        let mut carrying = Some(carrying);
        let (mut patience, mut before) = (Patience::default(), f64::INFINITY);
        loop {
            let began = Instant::now();
            let (round, again) = match self.large_object_round(carrying.take(), stream, false, deadline).await {
                Ok(done) => done,
                Err(error) => {
                    self.rest_after(error, began, &mut patience).await?;
                    continue;
                }
            };
            self.tell_round(stream, &round);
            if copying {
                self.observed.facts.insert("large_objects".to_owned(), round.objects.into());
                self.observed.facts.insert("large_object_bytes".to_owned(), round.bytes.into());
            }
            carrying = Some(again);
            if in_switch {
                self.refuse_long_looks(&round)?;
            }
            // What changes during a round is left to the next, which takes about as long.
            let comes_closer = round.took.as_secs_f64() < before * SHRINKING;
            if copying || round.took <= share || !(pause_is_next || comes_closer) {
                self.carrying = carrying;
                return Ok(());
            }
            before = round.took.as_secs_f64();
            if Instant::now() >= deadline {
                let doing =
                    format!("bringing large objects over ({} changed since the round before, too many for the pause)", round.changed);
                return Err(EngineError::database(stream)(PgError::TimedOut { doing, limit: round.took }));
            }
        }
    }

    /// While all is being prepared, a connection or a server that is gone may come back: what was brought is found again.
    async fn rest_after(&mut self, error: EngineError, began: Instant, patience: &mut Patience) -> EngineResult<()> {
        if began.elapsed() > GOOD_WHILE {
            *patience = Patience::default();
        }
        let preparing = matches!(self.state()?.phase, Phase::Preparing { .. });
        let rest = (preparing && transient(&error)).then(|| patience.rest(Instant::now(), Some(0))).flatten();
        self.go_on_after(error, rest, "large objects are brought over again").await
    }

    /// The last round, behind the fence. What differs and is not the authority's doing keeps the switch from being made.
    pub(super) async fn bring_last_large_objects(&mut self, stream: Stream, deadline: Instant) -> EngineResult<()> {
        if !self.carries_large_objects() {
            return Ok(());
        }
        let carrying = self.carrying(stream).await?;
        let (round, _) = self.large_object_round(Some(carrying), stream, true, deadline).await?;
        if round.differences_total > 0 {
            return Err(EngineError::LargeObjects { count: round.differences_total, examples: round.differences });
        }
        self.note(Notice::Note(format!(
            "{} large objects, {} of them changed last and compared inside the pause, in {} ms",
            round.objects,
            round.changed,
            round.took.as_millis()
        )));
        Ok(())
    }

    /// Behind the gate of a side nobody writes large objects any more.
    pub(super) async fn fence_large_objects(&mut self, side: Side, epoch: u64, deadline: Instant) -> EngineResult<()> {
        if !self.carries_large_objects() {
            return Ok(());
        }
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        large_objects::fence(client, epoch, deadline).await.map_err(EngineError::database(side))
    }

    /// Whatever the plan says by now: what was taken is given back.
    pub(super) async fn lift_large_objects(&mut self, side: Side, epoch: u64) -> EngineResult<()> {
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        large_objects::lift(client, epoch).await.map_err(EngineError::database(side))
    }

    /// Sees that nobody was given the right back while the fence stood.
    pub(super) async fn check_large_object_fence(&mut self, side: Side) -> EngineResult<()> {
        if !self.carries_large_objects() {
            return Ok(());
        }
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        let writers = large_objects::writers(client).await.map_err(EngineError::database(side))?;
        if writers.is_empty() {
            return Ok(());
        }
        Err(EngineError::Mismatch {
            what: format!("large objects at the {side} could be written behind the fence: {}", writers.join(", ")),
            hint: "let nobody grant rights during the switch, and try again".to_owned(),
        })
    }

    fn carries_large_objects(&self) -> bool {
        self.cutover.plan.copy.large_objects == LargeObjects::Copy
    }

    /// Sessions that stand since the last round, or new ones.
    async fn carrying(&mut self, stream: Stream) -> EngineResult<Carrying> {
        if let Some(carrying) = self.carrying.take().filter(|carrying| carrying.stream == stream) {
            return Ok(carrying);
        }
        let (plan, epoch) = (&self.cutover.plan, self.state()?.epoch);
        let urls = (&plan.database(stream.origin()).url, &plan.database(stream.destination()).url);
        let carrier = Carrier::open(urls.0, urls.1, &self.cutover.names, epoch).await.map_err(EngineError::database("large objects"))?;
        Ok(Carrying { carrier, stream })
    }

    async fn large_object_round(
        &mut self,
        carrying: Option<Carrying>,
        stream: Stream,
        last: bool,
        deadline: Instant,
    ) -> EngineResult<(Round, Carrying)> {
        let mut carrying = match carrying {
            Some(carrying) => carrying,
            None => self.carrying(stream).await?,
        };
        let cutover = self.cutover;
        let limits = Limits { max_rate: cutover.plan.copy.max_rate, max_latency: cutover.plan.copy.max_latency };
        // Inside the pause nobody is held up by us but by the pause.
        let limiter = Limiter::new(if last { Limits::default() } else { limits });
        let limit = last.then(|| deadline.saturating_duration_since(Instant::now()));
        let way = Way { epoch: self.state()?.epoch, limiter: &limiter, last, limit };
        let (progress, began) = (large_objects::Progress::default(), Instant::now());
        let round = {
            let application = cutover.names.application("large objects");
            let mut watch = std::pin::pin!(limiter.watch(&cutover.plan.database(stream.origin()).url, &application));
            let mut work = std::pin::pin!(carrying.carrier.round(way, &progress));
            let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
            loop {
                tokio::select! {
                    done = &mut work => break done,
                    error = &mut watch => break Err(error),
                    _ = tick.tick(), if !last => self.note(Notice::Progress(told(progress.numbers(), began))),
                }
            }
        };
        Ok((round.map_err(EngineError::database("large objects"))?, carrying))
    }

    fn tell_round(&self, stream: Stream, round: &Round) {
        if round.changed + round.removed > 0 {
            self.note(Notice::Note(format!(
                "{} large objects at the {} ({} bytes): {} compared, {} bytes brought, {} removed, in {:.1} s",
                round.objects,
                stream.origin(),
                round.bytes,
                round.changed,
                round.brought_bytes,
                round.removed,
                round.took.as_secs_f64()
            )));
        }
        if round.mended_total > 0 {
            self.note(Notice::Warning(format!(
                "{} large objects differed although nobody had changed them at the {}, and were made equal: {}",
                round.mended_total,
                stream.origin(),
                round.mended.join("; ")
            )));
        }
    }

    /// What a look takes now it takes inside the pause as well.
    fn refuse_long_looks(&self, round: &Round) -> EngineResult<()> {
        let budget = self.cutover.plan.pause.budget;
        if round.look <= budget / SHARE {
            return Ok(());
        }
        Err(EngineError::Mismatch {
            what: format!(
                "a look at {} large objects ({} bytes) takes {} ms, and the pause may take {} ms in all",
                round.objects,
                round.bytes,
                round.look.as_millis(),
                budget.as_millis()
            ),
            hint: format!("allow more with pause.budget, at least {} ms; or remove large objects (vacuumlo)", round.look.as_millis() * 2),
        })
    }
}

fn told(now: Numbers, began: Instant) -> Progress {
    let per_second = now.bytes as f64 / began.elapsed().as_secs_f64().max(0.001);
    let left = now.total.saturating_sub(now.bytes);
    Progress {
        what: "large objects",
        done: now.bytes,
        total: now.total,
        unit: "bytes",
        per_second,
        eta_seconds: (per_second > 0.0).then(|| left as f64 / per_second),
        detail: format!("{} looked at", now.objects),
    }
}
