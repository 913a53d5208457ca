//! Of every table with a shadow: share of reads, latency, errors, consistency, health, queue. What nobody has measured has no series.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use super::board::{Board, Known};
use cutover_engine::shadow::{Measures, Table};

/// The tables, as metrics.
#[derive(Debug)]
pub(super) struct Gauges(pub(super) Board);

/// A series of each table: its name, what it is, and its value.
type Series = (&'static str, &'static str, fn(&Table, &Measures) -> Option<f64>);

const SERIES: [Series; 9] = [
    ("shadow_reads_ratio", "Reads of the table that go to its shadow", |table, _| Some(f64::from(table.target_reads()) / 10_000.0)),
    ("shadow_epoch", "Grows with each change of the table's stage", |table, _| Some(table.epoch as f64)),
    ("shadow_dwell_left_seconds", "Until the stage may be left", |table, _| Some(table.dwell_left_s as f64)),
    ("shadow_errors_ratio", "Operations at the shadow that failed", |_, measures| percent(measures.error_rate_percent)),
    ("shadow_latency_increase_ratio", "How much slower the shadow is than the primary", |_, measures| {
        percent(measures.latency_increase_percent)
    }),
    ("shadow_consistency_ratio", "Rows that were the same at the last comparison", |_, measures| percent(measures.validation_score)),
    ("shadow_queued_keys", "Keys whose row in the shadow may be another", |_, measures| Some(measures.queued? as f64)),
    ("shadow_emergency_stop", "1 while it is stopped by hand", |table, _| Some(f64::from(u8::from(table.emergency_stop)))),
    ("shadow_failed_checks", "Checks of its health that have failed in a row", |table, _| Some(table.consecutive_failures? as f64)),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let known = self.0.known();
        let Some(as_of) = known.as_of else { return Ok(()) };
        let age = ConstGauge::new(as_of.elapsed().as_secs_f64());
        age.encode(encoder.encode_descriptor(
            "shadow_age",
            "Since the tables were last asked for",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?)?;
        for (name, help, value) in SERIES {
            one(&mut encoder, &known, name, help, value)?;
        }
        let state = |table: &Table| [("stage", table.stage.clone()), ("health", table.health.clone())];
        for (at, (name, help)) in
            [("shadow_stage", "1 for where the table stands"), ("shadow_health", "1 for how it is")].into_iter().enumerate()
        {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for table in &known.tables {
                let (label, value) = &state(table)[at];
                family.encode_family(&[("table", table.table.as_str()), (label, value)])?.encode_gauge(&1_i64)?;
            }
        }
        Ok(())
    }
}

fn one(
    encoder: &mut DescriptorEncoder<'_>,
    known: &Known,
    name: &str,
    help: &str,
    value: fn(&Table, &Measures) -> Option<f64>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for table in &known.tables {
        if let Some(value) = value(table, &known.measures(&table.table)) {
            family.encode_family(&[("table", table.table.as_str())])?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

fn percent(value: Option<f64>) -> Option<f64> {
    Some(value? / 100.0)
}
