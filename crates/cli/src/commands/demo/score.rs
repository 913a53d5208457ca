//! What the demo measured, as a table and as JSON.

use std::time::Duration;

use cutover_core::Side;
use cutover_journal::Entry;
use cutover_testkit::bank::{History, Verdict};
use serde::Serialize;

use crate::output::{Paint, thousands, to_stdout};

/// The write pause, as the clients saw it: the longest gap between acknowledged writes.
#[derive(Debug, Default, Serialize)]
struct Pauses {
    p50: f64,
    max: f64,
    #[serde(skip)]
    each: Vec<f64>,
}

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct Score {
    rows_copied: u64,
    copy_rows_per_s: f64,
    verify_rows_per_s: f64,
    write_pause_ms: Pauses,
    requests: u64,
    failed_requests: u64,
    acknowledged_writes: u64,
    lost_writes: u64,
    duplicated_writes: u64,
    misplaced_writes: u64,
    switches: u32,
    rollbacks: u32,
    seed: u64,
    #[serde(skip)]
    clean: bool,
    #[serde(skip)]
    details: Vec<String>,
}

impl Score {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rows_copied: 0,
            copy_rows_per_s: 0.0,
            verify_rows_per_s: 0.0,
            write_pause_ms: Pauses::default(),
            requests: 0,
            failed_requests: 0,
            acknowledged_writes: 0,
            lost_writes: 0,
            duplicated_writes: 0,
            misplaced_writes: 0,
            switches: 0,
            rollbacks: 0,
            seed,
            clean: false,
            details: Vec::new(),
        }
    }

    /// What the journal says of copy and verification.
    pub(super) fn copied(&mut self, entries: &[Entry]) {
        let fact = |step: &str, name: &str| {
            entries.iter().find(|entry| entry.body["step"] == step).and_then(|entry| entry.body["facts"][name].as_f64()).unwrap_or_default()
        };
        self.rows_copied = fact("copy_rows", "rows") as u64;
        self.copy_rows_per_s = fact("copy_rows", "rows_per_s").round();
        self.verify_rows_per_s = fact("verify", "rows_per_s").round();
    }

    pub(super) fn switched(&mut self, to: Side, pause: Duration) {
        match to {
            Side::Target => self.switches += 1,
            Side::Source => self.rollbacks += 1,
        }
        let pauses = &mut self.write_pause_ms;
        pauses.each.push((pause.as_secs_f64() * 1e4).round() / 10.0);
        let mut sorted = pauses.each.clone();
        sorted.sort_by(f64::total_cmp);
        pauses.p50 = sorted[sorted.len() / 2];
        pauses.max = sorted[sorted.len() - 1];
    }

    pub(super) fn judged(&mut self, history: &History, verdict: Verdict) {
        self.requests = history.requests;
        self.failed_requests = history.failed_requests();
        self.clean = verdict.is_clean();
        self.acknowledged_writes = verdict.acknowledged_writes;
        self.lost_writes = verdict.lost_writes;
        self.duplicated_writes = verdict.duplicated_writes;
        self.misplaced_writes = verdict.misplaced_writes;
        self.details = verdict.details;
        self.details.extend(history.errors.iter().take(5).cloned());
    }

    /// Nothing lost, duplicated, misplaced, torn or out of balance.
    pub(super) fn is_clean(&self) -> bool {
        self.clean
    }

    pub(super) fn print(&self) {
        let paint = Paint::stdout();
        let zero = |count: u64| if count == 0 { paint.green("0") } else { paint.red(&thousands(count)) };
        let pauses: Vec<String> = self.write_pause_ms.each.iter().map(|ms| format!("{ms:.0}")).collect();
        let rows = [
            ("rows copied", format!("{} ({} rows/s)", thousands(self.rows_copied), thousands(self.copy_rows_per_s as u64))),
            ("rows verified", format!("{} rows/s", thousands(self.verify_rows_per_s as u64))),
            ("switches / rollbacks", format!("{} / {}", self.switches, self.rollbacks)),
            (
                "write pause, as clients saw it",
                format!("{} ms (median {:.0}, longest {:.0})", pauses.join(", "), self.write_pause_ms.p50, self.write_pause_ms.max),
            ),
            ("requests", thousands(self.requests)),
            ("failed requests", zero(self.failed_requests)),
            ("acknowledged writes", thousands(self.acknowledged_writes)),
            ("  lost", zero(self.lost_writes)),
            ("  duplicated", zero(self.duplicated_writes)),
            ("  misplaced", zero(self.misplaced_writes)),
            ("seed", self.seed.to_string()),
        ];
        to_stdout("");
        for (name, value) in rows {
            to_stdout(&format!("  {name:<32} {value}"));
        }
        for detail in &self.details {
            to_stdout(&format!("  {} {detail}", paint.yellow("note:")));
        }
    }
}
