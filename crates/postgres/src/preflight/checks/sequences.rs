//! Sequences have room for the head-room that a switch adds.
//!
//! Sequences are not replicated; each switch moves them on by `sequence_headroom` steps. One that is near its end then
//! has nothing left, and the next INSERT fails. The end is where the column ends, if that comes first.

use std::collections::HashMap;

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Severity, Verdict,
    context::Examined,
    finding::{Draft, Fix, Inconclusive},
};
use crate::catalogue::Sequence;

pub(crate) const CHECK: Check = Check {
    name: "sequences",
    about: "a switch moves every sequence on by the head-room; one that is near its end has no values left afterwards",
    probe: Probe::Query(|context| Box::pin(ask(context))),
};

/// Switches that a sequence should have room for: there, back, and there again with attempts between.
const SWITCHES: i128 = 10;

async fn ask(context: &Context<'_>) -> Verdict {
    let headroom = context.plan.switch.sequence_headroom;
    let narrow = narrow_columns(&context.source).await?;
    let sequences = context.source.facts.sequences()?;
    let near: Vec<(&Sequence, i128)> = sequences
        .iter()
        .filter(|sequence| !sequence.cycle)
        .map(|sequence| (sequence, steps_left(sequence, narrow.get(&sequence.name.quoted()).copied())))
        .filter(|(_, left)| *left < i128::from(headroom) * SWITCHES)
        .collect();
    let (empty, low): (Vec<_>, Vec<_>) = near.into_iter().partition(|(_, left)| *left <= i128::from(headroom));
    let exhausted = "sequences have no values left after a switch: the next INSERT there fails";
    let nearly = "sequences come near their end within a few switches";
    let mut drafts = Vec::new();
    drafts.extend(draft(Severity::Error, exhausted, headroom, &empty));
    drafts.extend(draft(Severity::Warning, nearly, headroom, &low));
    drafts.extend(cycling(sequences));
    Ok(drafts)
}

fn draft(severity: Severity, message: &str, headroom: u32, sequences: &[(&Sequence, i128)]) -> Option<Draft> {
    if sequences.is_empty() {
        return None;
    }
    let evidence = sequences.iter().map(|(sequence, left)| {
        let owner = sequence.owned_by.as_ref().map(|owner| format!(" of {owner}")).unwrap_or_default();
        format!("{}{owner}: at {}, {left} values left, {headroom} taken by a switch", sequence.name, sequence.last_value)
    });
    let advice = "widen the column and its sequence (ALTER TABLE … ALTER … TYPE bigint; ALTER SEQUENCE … AS bigint MAXVALUE …), \
        or lower sequence_headroom in [switch] of the plan";
    Some(Draft::new(severity, Side::Source, message).evidence(evidence).fix(Fix::advice(advice)))
}

fn cycling(sequences: &[Sequence]) -> Option<Draft> {
    let cycling: Vec<String> = sequences
        .iter()
        .filter(|sequence| sequence.cycle)
        .map(|sequence| format!("{}: from {} to {}", sequence.name, sequence.min, sequence.max))
        .collect();
    if cycling.is_empty() {
        return None;
    }
    let message = "sequences start over at their end: after a switch they may repeat values sooner than before";
    Some(Draft::warning(Side::Source, message).evidence(cycling))
}

/// Values that a sequence can still hand out, up to its own end or its column's.
fn steps_left(sequence: &Sequence, column_max: Option<i64>) -> i128 {
    let end = match column_max {
        Some(column_max) if sequence.increment > 0 => sequence.max.min(column_max),
        Some(column_max) => sequence.min.max(-column_max - 1),
        None if sequence.increment > 0 => sequence.max,
        None => sequence.min,
    };
    let distance = (i128::from(end) - i128::from(sequence.last_value)) * i128::from(sequence.increment.signum());
    let steps = distance / i128::from(sequence.increment.unsigned_abs());
    (steps + i128::from(!sequence.is_called)).max(0)
}

/// Largest values of the columns that sequences feed by owning them, where that is less than a sequence's.
async fn narrow_columns(side: &Examined<'_>) -> Result<HashMap<String, i64>, Inconclusive> {
    let covered = &side.covered;
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, CASE a.atttypid WHEN 'int2'::regtype THEN 32767 ELSE 2147483647 END::bigint \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
         WHERE c.relkind = 'S' AND a.atttypid IN ('int2'::regtype, 'int4'::regtype) AND {covered}"
    );
    let rows = side.query("looking at the columns of sequences", &sql, &[]).await?;
    let name = |row: &tokio_postgres::Row| crate::catalogue::QualifiedName { schema: row.get(0), name: row.get(1) }.quoted();
    Ok(rows.iter().map(|row| (name(row), row.get(2))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::QualifiedName;

    fn sequence(last_value: i64, increment: i64, min: i64, max: i64) -> Sequence {
        let name = QualifiedName { schema: "public".into(), name: "s".into() };
        Sequence { name, last_value, is_called: true, increment, min, max, cycle: false, owned_by: None }
    }

    #[test]
    fn steps_are_counted_in_the_sequences_own_direction() {
        assert_eq!(steps_left(&sequence(90, 1, 1, 100), None), 10);
        assert_eq!(steps_left(&sequence(90, 3, 1, 100), None), 3);
        assert_eq!(steps_left(&sequence(-90, -5, -100, -1), None), 2);
        assert_eq!(steps_left(&Sequence { is_called: false, ..sequence(1, 1, 1, 1) }, None), 1);
        assert_eq!(steps_left(&sequence(i64::MIN, 1, i64::MIN, i64::MAX), None), (1_i128 << 64) - 1);
    }

    #[test]
    fn a_column_may_end_before_its_sequence() {
        let wide = sequence(i64::from(i32::MAX) - 7, 1, 1, i64::MAX);
        assert_eq!(steps_left(&wide, Some(i64::from(i32::MAX))), 7);
        assert_eq!(steps_left(&sequence(i64::from(i32::MAX) + 1, 1, 1, i64::MAX), Some(i64::from(i32::MAX))), 0);
        assert_eq!(steps_left(&sequence(-32_760, -1, i64::MIN, -1), Some(32_767)), 8);
    }
}
