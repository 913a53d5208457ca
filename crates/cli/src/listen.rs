//! Shows what a driver tells: a line for each entry, a bar for long work.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use cutover_core::Event;
use cutover_engine::{Notice, Progress, Report};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{Paint, bytes, duration, thousands, to_stderr};

/// Writes to standard error, so that standard output stays for data.
pub(crate) struct Listener {
    paint: Paint,
    verbose: bool,
    bar: Mutex<Option<Bar>>,
}

/// Long work that is under way.
struct Bar {
    what: &'static str,
    bar: ProgressBar,
    /// Where there is no terminal, a line was written at this moment.
    told: Instant,
}

/// Between two lines about long work, where there is no terminal to draw on.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Listener {
    pub(crate) fn new(verbose: u8) -> Self {
        Self { paint: Paint::stderr(), verbose: verbose > 0, bar: Mutex::new(None) }
    }

    fn say(&self, line: &str) {
        let bar = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*bar {
            Some(Bar { bar, .. }) if !bar.is_hidden() => bar.println(line),
            _ => to_stderr(line),
        }
    }

    fn show(&self, progress: &Progress) {
        let mut current = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.as_ref().is_none_or(|current| current.what != progress.what) {
            let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {msg}");
            let bar = ProgressBar::new(progress.total).with_prefix(progress.what);
            let bar = style.map_or(bar.clone(), |style| bar.with_style(style.progress_chars("=> ")));
            *current = Some(Bar { what: progress.what, bar, told: Instant::now() });
        }
        if let Some(Bar { bar, told, .. }) = &mut *current {
            bar.set_length(progress.total.max(progress.done));
            bar.set_position(progress.done);
            bar.set_message(describe(progress));
            if bar.is_hidden() && told.elapsed() >= TELL_EVERY {
                *told = Instant::now();
                to_stderr(&format!("{}: {}", progress.what, describe(progress)));
            }
        }
    }

    /// Long work is over.
    pub(crate) fn end_bar(&self) {
        let bar = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(Bar { bar, .. }) = bar {
            bar.finish_and_clear();
        }
    }
}

fn describe(progress: &Progress) -> String {
    let amount = |count: u64| if progress.unit == "bytes" { bytes(count) } else { format!("{} {}", thousands(count), progress.unit) };
    let eta = progress.eta_seconds.map(|seconds| format!(", {} left", duration(seconds))).unwrap_or_default();
    format!("{} of {}, {}/s{eta}; {}", amount(progress.done), amount(progress.total), amount(progress.per_second as u64), progress.detail)
}

impl Report for Listener {
    fn notice(&self, notice: &Notice<'_>) {
        let paint = self.paint;
        match notice {
            Notice::Step(step) => {
                let spec = step.spec(true);
                self.say(&format!("{} {}", paint.bold(&format!("{:<14}", spec.name)), paint.dim(spec.establishes)));
            }
            Notice::Action(_) => {}
            Notice::ActionDone(action, took_ms) => {
                if self.verbose {
                    self.say(&paint.dim(&format!("  {action:?} {took_ms} ms")));
                }
            }
            Notice::Waiting { step, line, seconds } => {
                if self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_none() {
                    self.say(&paint.dim(&format!("  still at {step} for {seconds} s: {line}")));
                }
            }
            Notice::Journalled(entry, event) => {
                self.end_bar();
                if let Some(line) = headline(event) {
                    self.say(&format!("{} {line}", paint.green(&format!("{:>4}", entry.seq))));
                }
            }
            Notice::Progress(progress) => self.show(progress),
            Notice::Note(text) => self.say(&format!("{} {text}", paint.cyan("note:"))),
            Notice::Warning(text) => self.say(&format!("{} {text}", paint.yellow("warning:"))),
        }
    }
}

/// One measured figure, its name's unit taken off: `rows_per_s` is rows a second, `bytes` are bytes.
fn fact(name: &str, value: &serde_json::Value) -> Option<String> {
    let number = value.as_f64()?;
    Some(match name {
        "seconds" => format!("in {number:.1} s"),
        "bytes" => bytes(number as u64),
        _ => {
            let words = name.replace('_', " ");
            match words.strip_suffix(" per s") {
                Some(what) => format!("{} {what}/s", thousands(number.round() as u64)),
                None => format!("{} {words}", thousands(number as u64)),
            }
        }
    })
}

/// What an entry means to a person; none where its step's line says it already.
pub(crate) fn headline(event: &Event) -> Option<String> {
    Some(match event {
        Event::Created { source, target, .. } => {
            format!("begun: PostgreSQL {} at {} to PostgreSQL {} at {}", source.major, source.address, target.major, target.address)
        }
        Event::SnapshotTaken(snapshot) => format!("snapshot {} at {}, slot {}", snapshot.snapshot, snapshot.lsn, snapshot.slot),
        Event::Prepared { step, facts } if !facts.is_empty() => {
            let facts: Vec<String> = facts.iter().filter_map(|(name, value)| fact(name, value)).collect();
            format!("{} done: {}", step.name(), facts.join(", "))
        }
        Event::RepairStarted { rows } => format!("repair of {} rows that differ", thousands(*rows)),
        Event::Repaired { repaired, equal_meanwhile, still_different, .. } => {
            format!("repaired {} rows; {equal_meanwhile} were equal by then, {still_different} are still different", thousands(*repaired))
        }
        Event::TablesVerified { tables } => format!("{} tables verified so far", tables.len()),
        Event::Verified(all) => {
            let differences = match all.differences {
                0 => String::new(),
                count => format!("; {} differences", thousands(count)),
            };
            format!("verified: {} rows in {} tables, from {} on{differences}", thousands(all.rows), thousands(all.tables), all.lsn)
        }
        Event::SwitchStarted { to, attempt } => format!("switch to the {to}, attempt {attempt}"),
        Event::Armed { tables } => format!("armed {tables} tables"),
        Event::Fenced { fence, closed_after_ms, acknowledged } => {
            let heard =
                acknowledged.map(|all| format!(", {} clients of the flags had acknowledged after {} ms", all.clients, all.after_ms));
            format!("fenced at {} after {closed_after_ms} ms{}", fence.lsn, heard.unwrap_or_default())
        }
        Event::Drained { sequences, after_ms, changes } => {
            let compared = changes.as_ref().map(|changes| {
                format!(
                    ", {} rows that had changed compared, and {} before the pause",
                    changes.keys_in_pause,
                    thousands(changes.keys_before)
                )
            });
            format!("drained after {after_ms} ms, {sequences} sequences set{}", compared.unwrap_or_default())
        }
        Event::Committed => "committed: the other side is in charge".to_owned(),
        Event::TrialOffered { .. } => "one write may be tried; all others are refused".to_owned(),
        Event::TrialGranted { instance, .. } => format!("{instance} may write once"),
        Event::TrialEnded { passed } => format!("the trial {}", if *passed { "went well" } else { "went wrong" }),
        Event::Opened { pause_ms, .. } => format!("open after a pause of {pause_ms} ms"),
        Event::Abandoned { why, .. } => format!("given up: {why}"),
        Event::Undone { pause_ms } => format!("undone: writes go on at the old side; they were held for {pause_ms} ms"),
        Event::Restored => "restored: the old side is followed as before".to_owned(),
        Event::Completed => "completed: the target is the new source".to_owned(),
        Event::Archived { file, bytes: size, sha256 } => format!("archived to {file}, {}, sha256 {sha256}", bytes(*size)),
        Event::Retired => "retired: there is no way back any more".to_owned(),
        Event::TornDown => "torn down: nothing of the cutover is left".to_owned(),
        _ => return None,
    })
}
