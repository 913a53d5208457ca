//! Answers in any order, leases that run out, writes that come and go.

use std::collections::BTreeMap;

use cutover_api::{Permit, Side, Writes};
use proptest::prelude::*;

use super::*;
use crate::gate::Ticket;

const MS: u64 = 1_000_000;

fn permit(revision: u64, epoch: u64, write: bool, lease_ms: u64) -> Permit {
    let writes = if write { Writes::Open } else { Writes::Held };
    let (cutover, stage) = ("shop".to_owned(), "source".to_owned());
    Permit { cutover, revision, epoch, authority: Side::Source, writes, units: vec![], tables: 0, stage, write, why: None, lease_ms }
}

fn enter(gate: &Gate, now: u64) -> Option<Ticket> {
    gate.enter(0, || now, || ())
}

#[test]
fn a_lease_counts_from_when_it_was_asked_for_and_ends_to_the_nanosecond() {
    let (mut keeper, gate) = (Keeper::default(), Gate::new());
    assert!(enter(&gate, 1).is_none(), "before the first answer nothing is known");
    assert_eq!(keeper.take(&gate, permit(1, 1, true, 10), 5), Taken::Applied { news: true });
    assert!(gate.is_open(5 + 10 * MS - 1) && !gate.is_open(5 + 10 * MS));
    assert_eq!(keeper.take(&gate, permit(1, 1, true, 10), MS), Taken::Applied { news: false });
    assert!(gate.is_open(11 * MS - 1) && !gate.is_open(11 * MS));
}

#[test]
fn an_older_answer_and_one_about_another_cutover_change_nothing() {
    let (mut keeper, gate) = (Keeper::default(), Gate::new());
    keeper.take(&gate, permit(7, 3, false, 10), 0);
    assert_eq!(keeper.take(&gate, permit(6, 3, true, 10), 1), Taken::Stale { revision: 6, epoch: 3 });
    assert_eq!(keeper.take(&gate, permit(8, 2, true, 10), 1), Taken::Stale { revision: 8, epoch: 2 });
    let other = Permit { cutover: "other".to_owned(), ..permit(9, 4, true, 10) };
    assert_eq!(keeper.take(&gate, other, 1), Taken::Other { cutover: "other".to_owned() });
    assert!(!gate.is_open(2));
    assert_eq!((keeper.known().unwrap().revision, keeper.acknowledged()), (7, Some(3)));
}

#[test]
fn a_lease_of_nothing_allows_nothing_and_one_of_eternity_is_no_overflow() {
    let (mut keeper, gate) = (Keeper::default(), Gate::new());
    keeper.take(&gate, permit(1, 1, true, 0), 5);
    assert!(!gate.is_open(5) && !gate.is_open(0));
    keeper.take(&gate, permit(1, 1, true, u64::MAX), u64::MAX);
    assert!(gate.is_open(6));
}

#[test]
fn an_epoch_is_acknowledged_when_the_last_older_write_has_ended() {
    let (mut keeper, gate) = (Keeper::default(), Gate::new());
    keeper.take(&gate, permit(1, 3, true, 10), 0);
    let old = enter(&gate, 1).unwrap();
    keeper.take(&gate, permit(2, 4, false, 10), 1);
    keeper.settle(&gate);
    assert_eq!((keeper.acknowledged(), keeper.waits()), (Some(3), true));
    keeper.take(&gate, permit(3, 5, true, 10), 2);
    let new = enter(&gate, 3).expect("a write that hangs holds up no newer one");
    keeper.settle(&gate);
    assert_eq!((new.epoch(), keeper.acknowledged()), (5, Some(3)));
    assert!(gate.leave(&old), "somebody waits for it");
    assert!(!keeper.settle(&gate));
    assert_eq!((keeper.acknowledged(), keeper.waits()), (Some(5), false));
    assert!(!gate.leave(&new));
}

#[test]
fn where_writes_of_too_many_epochs_hang_the_newest_waits_for_one_of_them() {
    let (mut keeper, gate) = (Keeper::default(), Gate::new());
    let hanging: Vec<_> = (0..BANKS as u64)
        .map(|epoch| {
            keeper.take(&gate, permit(epoch, epoch, true, 10), 0);
            enter(&gate, 1).unwrap()
        })
        .collect();
    keeper.take(&gate, permit(9, 9, true, 10), 0);
    assert!(!gate.is_open(1) && keeper.waits());
    gate.leave(&hanging[2]);
    assert!(keeper.settle(&gate), "the gate opens");
    assert_eq!(enter(&gate, 1).unwrap().epoch(), 9);
    assert_eq!(keeper.acknowledged(), Some(0));
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// The server's route changes; it answers with it from now on.
    Change {
        write: bool,
    },
    /// A server that may be behind by some revisions answers a request that was sent some time ago.
    Answer {
        behind: usize,
        age_ms: u64,
        lease_ms: u64,
    },
    Pass {
        ms: u64,
    },
    Enter,
    Leave {
        which: usize,
    },
    Acknowledge,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => any::<bool>().prop_map(|write| Happening::Change { write }),
        4 => (0_usize..3, 0_u64..8, 0_u64..12).prop_map(|(behind, age_ms, lease_ms)| Happening::Answer { behind, age_ms, lease_ms }),
        2 => (0_u64..6).prop_map(|ms| Happening::Pass { ms }),
        5 => Just(Happening::Enter),
        4 => any::<usize>().prop_map(|which| Happening::Leave { which }),
        3 => Just(Happening::Acknowledge),
    ]
}

/// What a client does, beside a plain account of what it may.
struct World {
    keeper: Keeper,
    gate: Gate,
    now: u64,
    /// What the servers say, by revision: epoch, and whether writes are open.
    history: Vec<(u64, bool)>,
    newest_heard: Option<usize>,
    /// The latest end of a lease that was given under an epoch.
    leases: BTreeMap<u64, u64>,
    under_way: Vec<Ticket>,
    acknowledged: Option<u64>,
}

impl World {
    fn new() -> Self {
        let (keeper, gate) = (Keeper::default(), Gate::new());
        Self {
            keeper,
            gate,
            now: 100 * MS,
            history: vec![(0, true)],
            newest_heard: None,
            leases: BTreeMap::new(),
            under_way: vec![],
            acknowledged: None,
        }
    }

    fn happens(&mut self, happening: &Happening) {
        match *happening {
            Happening::Change { write } => self.history.push((self.history.len() as u64, write)),
            Happening::Answer { behind, age_ms, lease_ms } => self.answer(behind, age_ms, lease_ms),
            Happening::Pass { ms } => self.now += ms * MS,
            Happening::Enter => self.enter(),
            Happening::Leave { which } if !self.under_way.is_empty() => {
                let ticket = self.under_way.swap_remove(which % self.under_way.len());
                self.gate.leave(&ticket);
            }
            Happening::Leave { .. } => {}
            Happening::Acknowledge => self.acknowledge(),
        }
    }

    fn answer(&mut self, behind: usize, age_ms: u64, lease_ms: u64) {
        let revision = self.history.len().saturating_sub(1 + behind);
        let (epoch, write) = self.history[revision];
        let sent = self.now - age_ms * MS;
        let taken = self.keeper.take(&self.gate, permit(revision as u64, epoch, write, lease_ms), sent);
        let is_stale = self.newest_heard > Some(revision);
        assert_eq!(is_stale, matches!(taken, Taken::Stale { .. }));
        if !is_stale {
            self.newest_heard = Some(revision);
            let until = self.leases.entry(epoch).or_default();
            *until = (*until).max(sent + lease_ms * MS);
        }
    }

    fn enter(&mut self) {
        let Some(ticket) = enter(&self.gate, self.now) else { return };
        let (newest, write) = self.history[self.newest_heard.expect("a write before the first answer")];
        assert_eq!((ticket.epoch(), write), (newest, true), "only under the newest route that was heard of");
        assert!(self.now < self.leases[&newest], "under a lease that has run out");
        assert!(Some(ticket.epoch()) >= self.acknowledged, "under an older epoch than was acknowledged");
        self.under_way.push(ticket);
    }

    fn acknowledge(&mut self) {
        self.keeper.settle(&self.gate);
        let acknowledged = self.keeper.acknowledged();
        assert!(acknowledged >= self.acknowledged, "an acknowledgement is taken back");
        self.acknowledged = acknowledged;
        for ticket in &self.under_way {
            assert!(Some(ticket.epoch()) >= acknowledged, "{ticket:?} is under way, and {acknowledged:?} was acknowledged");
        }
        let newest = self.newest_heard.map(|revision| self.history[revision].0);
        let older = self.under_way.iter().any(|ticket| Some(ticket.epoch()) < newest);
        assert_eq!(acknowledged == newest, !older, "nothing older is under way, so the newest is acknowledged");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a4_a7_no_write_begins_without_a_lease_or_under_an_epoch_older_than_what_was_acknowledged(
        happenings in prop::collection::vec(happening(), 1..60)
    ) {
        let mut world = World::new();
        for happening in &happenings {
            world.happens(happening);
        }
    }
}
