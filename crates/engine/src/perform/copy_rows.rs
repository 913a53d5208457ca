//! The copy of the rows: tells how far it has come, and goes on after what passes by itself.

use std::{sync::Arc, time::Duration};

use cutover_core::{Command, Snapshot};
use cutover_postgres::{
    PgError,
    copy::{self, Copied, Job},
    index::Definitions,
    limit::{Limiter, Limits},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::prepare::{PROGRESS_INTERVAL, facts, held};
use crate::{
    EngineError, EngineResult, Notice, Progress,
    driver::{Driver, transient},
};

/// How long the copy is tried again without a part more being done.
const PATIENCE: Duration = Duration::from_secs(120);

/// The first and the longest rest between two attempts.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

impl Driver<'_> {
    /// Copies the rows. A connection or a server that is gone may come back: then the copy goes on where it stood.
    pub(super) async fn copy_rows(&mut self, epoch: u64) -> EngineResult<()> {
        let progress = Arc::new(copy::Progress::default());
        let limits = Limits { max_rate: self.cutover.plan.copy.max_rate, max_latency: self.cutover.plan.copy.max_latency };
        let limiter = Arc::new(Limiter::new(limits));
        let definitions = self.definitions().await?;
        let mut patience = Patience::default();
        let report = loop {
            let error = match self.copy_once(epoch, &progress, &limiter, &definitions).await {
                Ok(report) => break report,
                Err(error) => error,
            };
            let rest = passes(&error).then(|| patience.rest(Instant::now(), progress.parts_done())).flatten();
            self.go_on_after(error, rest, "the copy goes on").await?;
        };
        self.observed.facts.extend(facts(&report));
        Ok(())
    }

    /// Rests after a failure, and says what comes then; or fails with it, where there is no rest worth having.
    pub(super) async fn go_on_after(&mut self, error: EngineError, rest: Option<Duration>, what: &str) -> EngineResult<()> {
        let Some(rest) = rest else { return Err(error) };
        self.keep_hold().await?;
        self.note(Notice::Warning(format!("{error}; {what} in {:.1} s", rest.as_secs_f64())));
        tokio::time::sleep(rest).await;
        Ok(())
    }

    async fn copy_once(
        &mut self,
        epoch: u64,
        progress: &Arc<copy::Progress>,
        limiter: &Arc<Limiter>,
        definitions: &Definitions,
    ) -> EngineResult<Copied> {
        let cutover = self.cutover;
        let plan = &cutover.plan.copy;
        let job = Job {
            source: &cutover.plan.source.url,
            target: &cutover.plan.target.url,
            names: &cutover.names,
            epoch,
            jobs: plan.jobs as usize,
            part_bytes: plan.part_bytes,
            resume_within: plan.resume_within,
            limiter,
            definitions,
        };
        let (told, mut snapshots) = mpsc::channel::<(Snapshot, oneshot::Sender<()>)>(1);
        let work = copy::copy_rows(job, Arc::clone(progress), async move |snapshot| {
            let (go, proceed) = oneshot::channel();
            drop(told.send((snapshot, go)).await);
            drop(proceed.await);
        });
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                Some((snapshot, go)) = snapshots.recv() => {
                    self.say(Command::SnapshotTaken(snapshot)).await?;
                    go.send(()).unwrap_or_default();
                }
                _ = tick.tick() => self.tell_copy(progress, limiter),
            }
        };
        self.tell_copy(progress, limiter);
        done.map_err(EngineError::database("copy"))
    }

    fn tell_copy(&self, progress: &copy::Progress, limiter: &Limiter) {
        for note in progress.take_notes() {
            self.note(Notice::Note(note));
        }
        let now = progress.snapshot();
        self.note(Notice::Progress(Progress {
            what: "copying",
            done: now.bytes,
            total: now.bytes_total,
            unit: "bytes",
            per_second: now.bytes_per_second,
            eta_seconds: now.eta_seconds,
            detail: format!(
                "{} rows, {} of {} tables{}{}",
                now.rows,
                now.tables_done,
                now.tables,
                indexes(now.indexes),
                held(limiter.held())
            ),
        }));
    }
}

/// What was built besides, for a person.
fn indexes(built: u64) -> String {
    match built {
        0 => String::new(),
        1 => ", 1 index".to_owned(),
        more => format!(", {more} indexes"),
    }
}

/// Whether a copy can go on after it. Without its snapshot it begins anew, which is a way on as well.
fn passes(error: &EngineError) -> bool {
    transient(error) || matches!(error, EngineError::Database { source: PgError::SnapshotLost(_), .. })
}

/// How long it is still worth trying.
#[derive(Default)]
pub(super) struct Patience {
    /// The most parts that ever were done. A copy that begins anew has to get past them, or it would for ever.
    most: u64,
    /// Since the first failure after that.
    until: Option<Instant>,
    failures: u32,
}

impl Patience {
    /// How long to rest before the next attempt. None where nothing was begun yet, or nothing more was done for long.
    pub(super) fn rest(&mut self, now: Instant, parts_done: Option<u64>) -> Option<Duration> {
        let done = parts_done?;
        if done > self.most {
            *self = Self { most: done, ..Self::default() };
        }
        let until = *self.until.get_or_insert(now + PATIENCE);
        let rest = REST.1.min(REST.0 * 2_u32.pow(self.failures.min(8)));
        self.failures += 1;
        (now + rest < until).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_where_nothing_more_is_done() {
        let began = Instant::now();
        let (mut patience, mut now) = (Patience::default(), began);
        assert_eq!(patience.rest(now, None), None, "there was no copy to go on with");
        while let Some(rest) = patience.rest(now, Some(3)) {
            now += rest;
        }
        assert!(now - began > PATIENCE - REST.1 && now - began <= PATIENCE, "{:?}", now - began);
        assert_eq!(patience.rest(now, Some(2)), None, "a copy that began anew is not further");
        assert_eq!(patience.rest(now, Some(4)), Some(REST.0), "one more part is");
    }
}
