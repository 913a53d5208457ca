//! A shift's decisions: at each limit, at each stage, and over all interleavings.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// As good as it gets, with that many reads.
fn good(count: u64) -> Measured {
    Measured {
        target: Reads { count, failed: 0, p95_ms: 100 },
        baseline_ms: Some(100),
        writes: (count, 0),
        writes_since_stage: (count, 0),
        compared: Compared::Rows { all: 1_000, different: 0 },
    }
}

fn evidence(measured: &Measured, way: &Way) -> Evidence {
    Evidence { compared: measured.compared, judgement: judge(way.watch(), measured, &Limits::default()) }
}

fn said(set: &std::collections::BTreeSet<Measure>) -> Vec<Measure> {
    set.iter().copied().collect()
}

/// C30, C31.
#[test]
fn c30_c31_at_a_limit_is_not_beyond_it_and_only_within_is_good_enough_to_go_on() {
    let at = |change: fn(&mut Measured, u64), value| {
        let mut measured = good(1_000);
        change(&mut measured, value);
        let told = judge(Watch::Reads, &measured, &Limits::default());
        (told.holds.len(), told.alerts.len(), told.breaches.len(), told.severe)
    };
    let errors = |value| at(|measured, value| measured.target.failed = value, value);
    let latency = |value| at(|measured, value| measured.target.p95_ms = value, value);
    let rows = |value| at(|measured, value| measured.compared = Compared::Rows { all: 1_000, different: value }, value);
    for (told, wanted) in [
        (errors(0), (0, 0, 0, false)),
        (errors(1), (1, 0, 0, false)),
        (errors(10), (1, 0, 0, false)),
        (errors(11), (1, 1, 1, false)),
        (errors(51), (1, 1, 1, true)),
        (latency(109), (0, 0, 0, false)),
        (latency(110), (1, 0, 0, false)),
        (latency(121), (1, 1, 1, false)),
        (latency(201), (1, 1, 1, true)),
        (latency(0), (0, 0, 0, false)),
        (rows(4), (0, 0, 0, false)),
        (rows(5), (1, 0, 0, false)),
        (rows(11), (1, 1, 1, false)),
        (rows(51), (1, 1, 1, true)),
    ] {
        assert_eq!(told, wanted);
    }
}

#[test]
fn what_was_not_measured_is_unknown_and_never_good() {
    let limits = Limits::default();
    let few = judge(Watch::Reads, &Measured { compared: Compared::Inconclusive, ..good(99) }, &limits);
    assert_eq!((said(&few.unknown), few.is_ready()), (vec![Measure::Errors, Measure::Differences], false));
    let alone = judge(Watch::Reads, &Measured { baseline_ms: None, ..good(100) }, &limits);
    assert_eq!(said(&alone.unknown), [Measure::Latency]);
    let seldom = Measured { writes: (3, 0), writes_since_stage: (100, 0), ..good(0) };
    assert!(judge(Watch::Writes, &seldom, &limits).is_ready(), "a small table is written seldom");
    assert_eq!(said(&judge(Watch::Writes, &Measured { writes_since_stage: (99, 0), ..seldom }, &limits).unknown), [Measure::Errors]);
    let failing = judge(Watch::Reads, &Measured { writes: (4, 4), ..good(100) }, &limits);
    assert_eq!(said(&failing.breaches), [Measure::SecondWrites], "few as they are");
}

/// C33.
#[test]
fn c33_three_failures_in_a_row_hold_and_the_fourth_is_too_many() {
    let limits = Limits::default();
    let bad = judge(Watch::Reads, &Measured { target: Reads { count: 1_000, failed: 20, p95_ms: 100 }, ..good(1_000) }, &limits);
    let fine = judge(Watch::Reads, &good(1_000), &limits);
    let nothing = judge(Watch::Reads, &good(0), &limits);
    let mut now = (Health::Unknown, 0);
    for wanted in [(Health::Degraded, 1), (Health::Degraded, 2), (Health::Degraded, 3), (Health::Unhealthy, 4)] {
        now = now.0.after(now.1, &bad, true, &limits);
        assert_eq!(now, wanted);
        assert_eq!(now.0.after(now.1, &bad, false, &limits), now, "the same samples again are no further failure");
    }
    assert_eq!(now.0.after(now.1, &nothing, true, &limits), (Health::Unhealthy, 4), "no news is no good news");
    assert_eq!(now.0.after(now.1, &fine, true, &limits), (Health::Healthy, 0));
}

/// C4, C5, C7.
#[test]
fn c4_the_ladder_is_climbed_one_by_one_and_never_before_its_time() {
    let mut way = Way::new(Rungs::SHADOW_TABLES).decide(&Decision::Mirror(true), 0).unwrap();
    way = way.decide(&Decision::Start(Some(Duration::from_secs(60))), 1_000).unwrap();
    let mut now = 1_000;
    for (stage, share) in [("dual_write", 0), ("test_1", 100), ("test_10", 1_000), ("half_50", 5_000), ("full_100", 10_000)] {
        assert_eq!((way.rung().stage, way.target_reads()), (stage, share));
        let advance = Decision::Advance(evidence(&good(100), &way));
        if stage == "full_100" {
            assert_eq!(way.decide(&advance, now + 60_000), Err(Refusal::OnlyCompletion));
            break;
        }
        assert_eq!(way.decide(&advance, now + 59_999), Err(Refusal::TooEarly(now + 60_000)));
        now += 60_000;
        way = way.decide(&advance, now).unwrap();
    }
    let other = Way::new(Rungs::SHADOW_TABLES).decide(&Decision::Mirror(true), 0).unwrap().decide(&Decision::Start(None), 0).unwrap();
    assert_eq!(other.decide(&Decision::Advance(evidence(&good(100), &other)), 0), Err(Refusal::TooEarly(24 * 3_600_000)), "C41");
}

fn decisions() -> impl Strategy<Value = Decision> {
    let measured = (
        0_u64..300,
        0_u64..5,
        90_u64..130,
        prop_oneof![Just(Compared::Inconclusive), (0_u64..2).prop_map(|different| Compared::Rows { all: 100, different })],
    );
    let advance = measured.prop_map(|(count, failed, p95_ms, compared)| {
        let measured = Measured { target: Reads { count, failed: failed.min(count), p95_ms }, compared, ..good(count) };
        Decision::Advance(Evidence { compared, judgement: judge(Watch::Reads, &measured, &Limits::default()) })
    });
    prop_oneof![
        2 => Just(Decision::Start(Some(Duration::ZERO))),
        6 => advance,
        3 => prop_oneof![Just(String::new()), Just("why".to_owned())].prop_map(Decision::Force),
        1 => prop_oneof![Just(" ".to_owned()), Just("why".to_owned())].prop_map(Decision::Rollback),
        1 => Just(Decision::Stop("why".to_owned())),
        2 => any::<bool>().prop_map(Decision::Mirror),
        1 => any::<bool>().prop_map(Decision::Reset),
    ]
}

proptest! {
    /// The way back is never refused for where it stands, an epoch never comes again, reads go to a side that is written, and nothing skips a stage.
    #[test]
    fn whatever_is_decided_the_way_back_stays_open_and_epochs_only_grow(sequence in prop::collection::vec(decisions(), 1..60)) {
        let mut way = Way::new(Rungs::SHADOW_TABLES);
        let place = |way: &Way| Rungs::SHADOW_TABLES.all().iter().position(|rung| rung == way.rung());
        for decision in sequence {
            let next = way.decide(&decision, 0);
            let back = way.decide(&Decision::Rollback("why".to_owned()), 0);
            prop_assert!(back.is_ok_and(|back| back.target_reads() == 0));
            if let Ok(next) = next {
                prop_assert!(next.target_reads() == 0 || next.mirror);
                prop_assert!(next.epoch > way.epoch || next.rung() == way.rung());
                prop_assert!(place(&next) == place(&way).map(|place| place + 1) || place(&next) <= place(&way));
                if let Decision::Advance(evidence) = &decision {
                    let same = matches!(evidence.compared, Compared::Rows { different: 0, .. });
                    prop_assert!(same && evidence.judgement.is_ready());
                }
                way = next;
            }
        }
    }
}
