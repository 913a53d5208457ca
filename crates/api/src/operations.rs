//! What applications tell of their reads and writes: `POST /v1/operations`, and what it comes to.

use serde::{Deserialize, Serialize};

use crate::Side;

/// Series that one request holds at most.
pub const MOST_SERIES: usize = 40;

/// Durations that one request holds at most, over all its series.
pub const MOST_DURATIONS: usize = 1_000;

/// Characters that a name has at most.
pub const MOST_NAME: usize = 100;

/// A longer duration is told as this one: an hour. Unit: microseconds.
pub const LONGEST_US: u64 = 3_600_000_000;

/// Operations that were counted since the request before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationsRequest {
    /// Made up by the process when it starts. At most 64 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub incarnation: String,
    /// Grows with each request of this process, and stays as it was in one that is sent again: that one is not counted twice.
    pub sequence: u64,
    /// What was counted. At most 40, with 1,000 durations in all.
    #[cfg_attr(feature = "openapi", schema(max_items = 40))]
    pub series: Vec<Series>,
    /// Operations that could not be kept until they were told.
    #[serde(default)]
    pub lost: u64,
}

/// Operations that differ in nothing but how long they took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Series {
    /// What is moved: `database`, or a table or an entity. At most 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub unit: String,
    /// What was done, in the application's words: `get`, `list`, `upload`. At most 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub operation: String,
    /// The store that was asked.
    pub store: Side,
    /// How it ended there.
    pub outcome: OperationOutcome,
    /// How long it took, in microseconds as of [`rounded`], and how many took so long.
    pub durations: Vec<[u64; 2]>,
}

/// How an operation ended at one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OperationOutcome {
    /// It was done.
    Ok,
    /// It was done, and the other store says the same.
    Agreed,
    /// It was done, and the other store says something else.
    Differed,
    /// It failed, and the other store answered in its place: an error of this one that no user saw.
    FellBack,
    /// It failed.
    Failed,
}

/// What operations come to, over some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Operations {
    /// Over how long, at most since the server started. Unit: seconds.
    pub seconds: f64,
    /// By unit, operation and store.
    pub operations: Vec<OperationSummary>,
    /// Operations since the server started that it was not told of, or could not keep.
    pub lost: u64,
}

/// What operations of one kind at one store come to. A rate is a share of all, from 0 to 1; none where nothing was counted
/// that could have one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OperationSummary {
    /// What is moved.
    pub unit: String,
    /// What was done.
    pub operation: String,
    /// The store that was asked.
    pub store: Side,
    /// How many there were.
    pub count: u64,
    /// How many in a second.
    pub per_second: f64,
    /// The share that failed here, also where the other store answered in its place.
    pub error_rate: Option<f64>,
    /// The share where the other store answered in its place.
    pub fallback_rate: Option<f64>,
    /// Of those that were compared with the other store, the share that differed.
    pub mismatch_rate: Option<f64>,
    /// Half took no longer. Unit: milliseconds; right to 1 %, as the others are.
    pub p50_ms: Option<f64>,
    /// 95 of 100 took no longer. Unit: milliseconds.
    pub p95_ms: Option<f64>,
    /// 99 of 100 took no longer. Unit: milliseconds.
    pub p99_ms: Option<f64>,
}

/// A duration as it is told: its seven leading binary digits, and half of what follows them. So it is right to 1 part in 128,
/// and there are few enough different ones to count each. Unit: microseconds.
#[must_use]
pub fn rounded(us: u64) -> u64 {
    let us = us.min(LONGEST_US);
    let dropped = (u64::BITS - us.leading_zeros()).saturating_sub(7);
    if dropped == 0 { us } else { us >> dropped << dropped | 1 << (dropped - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_right_to_one_part_in_128_and_is_not_rounded_twice() {
        for us in (0..300).chain([999, 1_000, 123_456, 3_599_999_999, LONGEST_US]) {
            let told = rounded(us);
            assert!(told.abs_diff(us) * 128 <= us, "{us}: {told}");
            assert_eq!(rounded(told), told);
        }
        assert_eq!(rounded(u64::MAX), rounded(LONGEST_US));
        let mut different: Vec<_> =
            (0..).map_while(|step: i32| Some(1.01_f64.powi(step)).filter(|us| *us < 3.6e9)).map(|us| rounded(us as u64)).collect();
        different.dedup();
        assert!(different.len() < 1_700, "{}", different.len());
    }
}
