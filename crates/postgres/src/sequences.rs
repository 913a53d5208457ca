//! Sequences are not replicated. In the pause every one of them, owned or not, is set at the side that opens.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{
    PgError, PgResult,
    catalogue::{self, Sequence},
    gate,
    names::literal,
};

/// Where a sequence is set: the other side's value, moved on by `headroom` steps and kept inside its bounds.
///
/// The head-room covers values that were handed out but not seen: cached in a session, or taken by a transaction that
/// rolled back. A sequence that was never used stays as it is.
fn target_value(sequence: &Sequence, headroom: u32) -> (i64, bool) {
    if !sequence.is_called && headroom == 0 {
        return (sequence.last_value, false);
    }
    let ahead = sequence.increment.saturating_mul(i64::from(headroom));
    let value = sequence.last_value.saturating_add(ahead).clamp(sequence.min, sequence.max);
    (value, sequence.is_called || value != sequence.last_value)
}

/// The statement that sets `sequences`; none where there are none. It answers with those that do not exist.
#[must_use]
pub fn set_sql(sequences: &[Sequence], headroom: u32) -> Option<String> {
    let rows: Vec<String> = sequences
        .iter()
        .map(|sequence| {
            let (value, is_called) = target_value(sequence, headroom);
            format!("({}, {value}::bigint, {is_called})", literal(&sequence.name.quoted()))
        })
        .collect();
    let values = rows.join(", ");
    (!rows.is_empty()).then(|| {
        format!(
            "SELECT s FROM (VALUES {values}) v (s, value, called) \
             WHERE pg_catalog.setval(pg_catalog.to_regclass(s), value, called) IS NULL"
        )
    })
}

/// Sets every sequence at `to` as it is at `from`, with head-room. Returns how many. `all` says whether each must be
/// there: on the way back those that a migration made have nowhere to go.
///
/// # Errors
/// [`PgError::Mismatch`] naming those that `to` lacks; [`PgError::Sql`].
pub async fn carry_over(from: &Client, to: &mut Client, epoch: u64, headroom: u32, all: bool) -> PgResult<u32> {
    let doing = "setting the sequences";
    let sequences = catalogue::sequences(from).await?;
    let Some(sql) = set_sql(&sequences, headroom) else { return Ok(0) };
    let transaction = gate::guarded(to, epoch).await?;
    let answer = transaction.simple_query(&sql).await.map_err(|error| PgError::sql(doing, error))?;
    let lacking: Vec<&str> = answer.iter().filter_map(lacking).collect();
    if all && !lacking.is_empty() {
        return Err(PgError::Mismatch(format!("{doing}: there is no sequence {}", lacking.join(", "))));
    }
    let set = sequences.len() - lacking.len();
    gate::commit(transaction, doing).await?;
    Ok(u32::try_from(set).unwrap_or(u32::MAX))
}

fn lacking(message: &SimpleQueryMessage) -> Option<&str> {
    match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::QualifiedName;

    fn sequence(last_value: i64, is_called: bool, increment: i64, min: i64, max: i64) -> Sequence {
        let name = QualifiedName { schema: "public".into(), name: "s".into() };
        Sequence { name, last_value, is_called, increment, min, max, cycle: false, owned_by: None }
    }

    #[test]
    fn a_sequence_moves_ahead_in_its_own_direction_and_stays_in_bounds() {
        assert_eq!(target_value(&sequence(10, true, 1, 1, i64::MAX), 1000), (1010, true));
        assert_eq!(target_value(&sequence(10, true, 5, 1, i64::MAX), 1000), (5010, true));
        assert_eq!(target_value(&sequence(-10, true, -1, i64::MIN, -1), 1000), (-1010, true));
        assert_eq!(target_value(&sequence(90, true, 1, 1, 100), 1000), (100, true));
        assert_eq!(target_value(&sequence(i64::MAX - 1, true, 1, 1, i64::MAX), 1000), (i64::MAX, true));
        assert_eq!(target_value(&sequence(1, false, 1, 1, 100), 0), (1, false));
        assert_eq!(target_value(&sequence(1, false, 1, 1, 1), 5), (1, false));
    }

    #[test]
    fn names_are_quoted_twice() {
        let mut odd = sequence(1, true, 1, 1, 9);
        odd.name.name = "it's \"odd\"".into();
        let sql = set_sql(&[odd], 0).unwrap();
        assert!(sql.contains(r#"('"public"."it''s ""odd"""', 1"#), "{sql}");
        assert_eq!(set_sql(&[], 0), None);
    }
}
