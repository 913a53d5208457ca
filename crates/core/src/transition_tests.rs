//! The transition function: forth, back, undone, taken over, and over all interleavings.

#[path = "transition_tests/trial.rs"]
mod trial;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Action, Fence, Lsn, Stream, Verification, Writes, plan::Pattern};

fn identity(system: &str) -> Identity {
    Identity { system_identifier: system.into(), database: "orders".into(), timeline: 1, major: 15, address: system.into() }
}

fn create(reverse: bool, smoke: bool) -> Command {
    Command::Create {
        plan: PlanRef { name: "orders".into(), digest: "d".into(), revision: 1 },
        shape: Shape { reverse, migrate: false, smoke },
        source: identity("1"),
        target: identity("2"),
        filter: Filter::default(),
    }
}

fn fence() -> Fence {
    Fence { lsn: Lsn(7), marker: "source/3".into(), timeline: 1 }
}

/// The report that a step makes when it is done.
fn report(step: Step) -> Command {
    match step {
        Step::Prepare(_) => Command::Prepared { facts: BTreeMap::new() },
        Step::Arm(_) => Command::Armed { tables: 2 },
        Step::BeginPause(_) => Command::BeginPause,
        Step::Fence(_) => Command::Fenced { fence: fence(), closed_after_ms: 1, acknowledged: None },
        Step::Drain(_) => Command::Drained { sequences: 1, after_ms: 2, changes: None },
        Step::Commit(_) => Command::Commit,
        Step::Open(_) => Command::Opened { pause_ms: 3, acknowledged: None },
        Step::Smoke(_) => Command::Smoked,
        Step::Undo(_) => Command::Undone { pause_ms: 4 },
        Step::Restore(_) => Command::Restored,
        Step::Retire => Command::Retired,
        Step::TearDown => Command::TornDown,
    }
}

struct Cutover(Option<State>, Vec<Event>);

impl Cutover {
    fn new(reverse: bool, smoke: bool) -> Self {
        let mut cutover = Self(None, Vec::new());
        cutover.say(create(reverse, smoke)).unwrap();
        cutover
    }

    fn state(&self) -> &State {
        self.0.as_ref().unwrap()
    }

    fn say(&mut self, command: Command) -> Result<(), Refusal> {
        for event in decide(self.0.as_ref(), command)? {
            self.0 = Some(apply(self.0.take(), &event).expect("what is decided can be applied"));
            self.1.push(event);
        }
        Ok(())
    }

    /// Does what is next until it waits for a decision.
    fn run(&mut self) {
        while let Some(step) = next(self.state()) {
            self.say(report(step)).unwrap();
        }
    }
}

/// B17, B18: forth, back with what the target took, forth again, and for good.
#[test]
fn b17_a_cutover_goes_forth_and_back_and_forth_and_ends() {
    let mut cutover = Cutover::new(true, false);
    cutover.run();
    assert_eq!((cutover.state().authority, &cutover.state().phase), (Side::Source, &Phase::Following));
    for to in [Side::Target, Side::Source, Side::Target] {
        cutover.say(Command::Switch { to }).unwrap();
        cutover.run();
        assert_eq!(cutover.state().authority, to);
    }
    assert_eq!((cutover.state().switches(Side::Target), cutover.state().switches(Side::Source)), (2, 1));
    cutover.say(Command::Complete).unwrap();
    assert!(matches!(cutover.say(Command::Retired), Err(Refusal::NotNow { .. })), "B19: not without an archive");
    cutover.say(Command::Archived { file: "f".into(), sha256: "s".into(), bytes: 1 }).unwrap();
    cutover.run();
    assert!(cutover.state().ended());
    assert_eq!(cutover.say(Command::Switch { to: Side::Source }), Err(Refusal::Over { how: "retired" }));
}

/// A repair changes nothing about where the cutover stands, and is not begun while the database changes hands.
#[test]
fn rows_are_mended_only_while_nothing_changes_hands() {
    let mut cutover = Cutover::new(true, false);
    assert!(matches!(cutover.say(Command::Repair { rows: 1 }), Err(Refusal::NotNow { .. })), "there is no stream yet");
    cutover.run();
    let before = cutover.state().phase.clone();
    cutover.say(Command::Repair { rows: 3 }).unwrap();
    let tables = [("public.t".to_owned(), 2)].into();
    cutover.say(Command::Repaired { repaired: 2, equal_meanwhile: 0, still_different: 1, tables }).unwrap();
    assert_eq!(cutover.state().phase, before);
    cutover.say(Command::Switch { to: Side::Target }).unwrap();
    assert!(matches!(cutover.say(Command::Repair { rows: 1 }), Err(Refusal::NotNow { .. })));
    assert_eq!(replay(&cutover.1).unwrap(), cutover.0);
}

/// What is verified is noted where a stream flows and nothing changes hands, and changes nothing about where it stands.
#[test]
fn what_is_verified_is_noted_only_while_nothing_changes_hands() {
    let tables = || Command::TablesVerified { tables: Vec::new() };
    let all = || Command::Verified(Verification { lsn: Lsn(7), tables: 1, rows: 1, differences: 0 });
    let mut cutover = Cutover::new(true, false);
    assert!(matches!(cutover.say(tables()), Err(Refusal::NotNow { .. })) && matches!(cutover.say(all()), Err(Refusal::NotNow { .. })));
    while next(cutover.state()) != Some(Step::Prepare(Preparation::Verify)) {
        let step = next(cutover.state()).unwrap();
        cutover.say(report(step)).unwrap();
    }
    cutover.say(tables()).unwrap();
    assert!(matches!(cutover.say(all()), Err(Refusal::NotNow { .. })), "the preparation's own end says it");
    cutover.run();
    let before = cutover.state().clone();
    cutover.say(tables()).unwrap();
    cutover.say(all()).unwrap();
    assert_eq!(*cutover.state(), before);
    cutover.say(Command::Switch { to: Side::Target }).unwrap();
    assert!(matches!(cutover.say(tables()), Err(Refusal::NotNow { .. })) && matches!(cutover.say(all()), Err(Refusal::NotNow { .. })));
    assert_eq!(replay(&cutover.1).unwrap(), cutover.0);
}

#[test]
fn c35_replaying_the_audit_trail_reproduces_the_state() {
    let mut cutover = Cutover::new(true, true);
    cutover.run();
    cutover.say(Command::Switch { to: Side::Target }).unwrap();
    cutover.run();
    assert_eq!(replay(&cutover.1).unwrap(), cutover.0);
    let json: Vec<String> = cutover.1.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    let read: Vec<Event> = json.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(replay(&read).unwrap(), cutover.0, "also from its stored form");
}

#[test]
fn a_missing_or_swapped_entry_can_t_be_replayed() {
    let mut cutover = Cutover::new(true, false);
    cutover.run();
    cutover.say(Command::Switch { to: Side::Target }).unwrap();
    cutover.run();
    let events = &cutover.1;
    let last = events.len() - 1;
    for at in 0..last {
        let mut without = events.clone();
        without.remove(at);
        assert!(replay(&without).is_err(), "without {}", events[at].kind());
        let mut swapped = events.clone();
        swapped.swap(at, at + 1);
        assert!(replay(&swapped).is_err(), "{} after {}", events[at].kind(), events[at + 1].kind());
    }
}

#[test]
fn before_the_commit_point_everything_is_undone_and_after_it_nothing() {
    let mut cutover = Cutover::new(true, false);
    cutover.run();
    cutover.say(Command::Switch { to: Side::Target }).unwrap();
    loop {
        let step = next(cutover.state()).unwrap();
        let mut given_up = Cutover(cutover.0.clone(), Vec::new());
        let abandoned = given_up.say(Command::Abandon { why: "test".into(), differences: 0 });
        if matches!(step, Step::Open(_)) {
            assert_eq!(abandoned, Err(Refusal::PastCommitPoint));
            break;
        }
        abandoned.unwrap();
        given_up.run();
        assert_eq!((given_up.state().authority, &given_up.state().phase), (Side::Source, &Phase::Following), "{step:?}");
        assert!(given_up.state().pauses.iter().all(|pause| pause.undone));
        cutover.say(report(step)).unwrap();
    }
}

#[test]
fn a_driver_that_takes_over_undoes_a_switch_and_finishes_an_opening() {
    let mut cutover = Cutover::new(true, false);
    cutover.run();
    cutover.say(Command::Switch { to: Side::Target }).unwrap();
    while next(cutover.state()).is_some() {
        let mut successor = Cutover(cutover.0.clone(), Vec::new());
        let (undone, committed) = (cutover.state().before_commit_point(), cutover.state().authority == Side::Target);
        successor.say(Command::TakeOver { driver: "b".into() }).unwrap();
        assert_eq!(matches!(successor.state().phase, Phase::Undoing(_)), undone);
        successor.run();
        let expected = if undone { Side::Source } else { Side::Target };
        assert_eq!(successor.state().authority, expected, "committed: {committed}");
        cutover.say(report(next(cutover.state()).unwrap())).unwrap();
    }
}

#[test]
fn without_a_reverse_stream_the_switch_is_the_point_of_no_return() {
    let mut cutover = Cutover::new(false, false);
    cutover.run();
    cutover.say(Command::Switch { to: Side::Target }).unwrap();
    cutover.run();
    assert_eq!(cutover.say(Command::Switch { to: Side::Source }), Err(Refusal::NoWayBack));
}

#[test]
fn a_failed_smoke_test_leaves_the_way_back_open() {
    let mut cutover = Cutover::new(true, true);
    cutover.run();
    cutover.say(Command::Switch { to: Side::Target }).unwrap();
    while !matches!(cutover.state().phase, Phase::Smoking(_)) {
        cutover.say(report(next(cutover.state()).unwrap())).unwrap();
    }
    cutover.say(Command::Switch { to: Side::Source }).unwrap();
    cutover.run();
    assert_eq!(cutover.state().authority, Side::Source);
}

/// Back at the source, its gate is open and it holds every write: whatever the test says, nothing there is needed any more.
#[test]
fn a_way_back_whose_smoke_test_fails_can_be_given_up() {
    let mut cutover = Cutover::new(true, true);
    cutover.run();
    for to in [Side::Target, Side::Source] {
        cutover.say(Command::Switch { to }).unwrap();
        while !matches!(cutover.state().phase, Phase::Smoking(_)) {
            assert!(matches!(cutover.say(Command::GiveUp), Err(Refusal::NotNow { .. })), "in {:?}", cutover.state().phase);
            cutover.say(report(next(cutover.state()).unwrap())).unwrap();
        }
        let given_up = Cutover(cutover.0.clone(), Vec::new()).say(Command::GiveUp);
        assert_eq!(given_up.is_ok(), to == Side::Source, "the target's writes are nowhere else while it is in charge");
    }
    cutover.say(Command::GiveUp).unwrap();
    cutover.run();
    assert_eq!((cutover.state().authority, &cutover.state().phase), (Side::Source, &Phase::TornDown));
    assert_eq!(replay(&cutover.1).unwrap(), cutover.0);
}

/// What was copied, published and fenced fits one filter only; and a journal from before there were filters covers all.
#[test]
fn what_a_cutover_covers_is_fixed_when_it_begins() {
    let filter = |exclude: &str| Filter { exclude: vec![Pattern::parse(exclude).unwrap()], ..Filter::default() };
    let Command::Create { plan, shape, source, target, .. } = create(true, false) else { unreachable!() };
    let begun = Command::Create { plan, shape, source, target, filter: filter("public.tmp_*") };
    let events = decide(None, begun).unwrap();
    let journalled: Vec<Event> = events.iter().map(|event| serde_json::from_value(serde_json::to_value(event).unwrap()).unwrap()).collect();
    let state = replay(&journalled).unwrap().unwrap();
    assert_eq!(state.filter, filter("public.tmp_*"));
    let revise = |filter: Filter| decide(Some(&state), Command::RevisePlan { digest: "e".into(), shape, filter });
    assert!(matches!(&revise(filter("public.\"tmp_\"*")).unwrap()[..], [Event::PlanRevised { .. }]), "the same, spelled otherwise");
    for other in [Filter::default(), filter("public.tmp"), Filter { definitions: true, ..filter("public.tmp_*") }] {
        let refused = revise(other.clone()).unwrap_err();
        assert_eq!(refused, Refusal::TablesChanged { began: state.filter.clone(), now: other });
        assert!(refused.to_string().contains("covers all tables without public.tmp_*"), "{refused}");
    }

    let all = decide(None, create(true, false)).unwrap();
    let old = serde_json::to_value(&all[0]).unwrap();
    assert!(old.get("filter").is_none(), "{old}");
    let state = replay(&[serde_json::from_value(old).unwrap()]).unwrap().unwrap();
    assert!(state.filter.is_all());
}

#[test]
fn the_same_server_is_refused() {
    let command = Command::Create {
        plan: PlanRef { name: "p".into(), digest: String::new(), revision: 1 },
        shape: Shape { reverse: true, migrate: false, smoke: false },
        source: identity("1"),
        target: identity("1"),
        filter: Filter::default(),
    };
    assert!(matches!(decide(None, command), Err(Refusal::WrongDatabase { .. })));
}

/// What the two databases and their streams are like, moved by the actions of the steps and by nothing else.
#[derive(Clone, Debug, Default)]
struct World {
    open: [bool; 2],
    flowing: [bool; 2],
}

impl World {
    fn act(&mut self, action: Action) {
        let gate = |side: Side| usize::from(side == Side::Target);
        let stream = |stream: Stream| usize::from(stream == Stream::Reverse);
        match action {
            Action::InstallGate(Side::Source) if !self.open[0] => self.open[0] = true,
            Action::CloseGate(side) => self.open[gate(side)] = false,
            Action::OpenGate(side) => self.open[gate(side)] = true,
            Action::EnableStream(it) => self.flowing[stream(it)] = true,
            Action::DisableStream(it) | Action::DropStream(it) => self.flowing[stream(it)] = false,
            _ => {}
        }
    }

    fn check(&self, state: &State, action: Action) {
        assert!(!(self.open[0] && self.open[1]), "two writers after {action:?} in {:?}", state.phase);
        assert!(!(self.flowing[0] && self.flowing[1]), "a loop after {action:?} in {:?}", state.phase);
        // In an undo the writes go on first; until the stream flows again its slot keeps them.
        if self.open[1] && state.shape.reverse && !matches!(state.phase, Phase::Archived | Phase::Undoing(_) | Phase::Restoring(_)) {
            assert!(self.flowing[1], "the target takes writes without a way back after {action:?} in {:?}", state.phase);
        }
    }
}

proptest! {
    /// A15, invariants 1, 2, 3, 6 and 9: whatever dies, is given up or taken over at whatever moment, at most one side
    /// is open, the streams never run in a loop, the way back flows before the target's first write, epochs only grow,
    /// and in the end exactly the authority takes writes.
    #[test]
    fn a15_one_writer_over_all_interleavings(
        reverse in any::<bool>(),
        smoke in any::<bool>(),
        choices in proptest::collection::vec((0u8..9, 0usize..8), 1..80),
    ) {
        let mut cutover = Cutover::new(reverse, smoke);
        let mut world = World { open: [true, false], flowing: [false, false] };
        let mut epoch = cutover.state().epoch;
        for (choice, cut) in choices {
            let step = next(cutover.state());
            match (choice, step) {
                (0, _) => cutover.say(Command::TakeOver { driver: "another".into() }).unwrap(),
                (1, _) => drop(cutover.say(Command::Abandon { why: "given up".into(), differences: 0 })),
                // What was made is removed only where exactly the source takes writes, and nobody else ever took one that
                // it has not.
                (8, _) => {
                    let mut given_up = Cutover(cutover.0.clone(), Vec::new());
                    if given_up.say(Command::GiveUp).is_ok() {
                        prop_assert_eq!((given_up.state().authority, world.open), (Side::Source, [true, false]));
                    }
                }
                (2, Some(step)) => {
                    // The driver dies in the middle of the step: only some of its actions were done.
                    for action in step.spec(reverse).does.into_iter().take(cut) {
                        world.act(action);
                        world.check(cutover.state(), action);
                    }
                    cutover.say(Command::TakeOver { driver: "a successor".into() }).unwrap();
                }
                (_, Some(step)) => {
                    for action in step.spec(reverse).does {
                        world.act(action);
                        world.check(cutover.state(), action);
                    }
                    cutover.say(report(step)).unwrap();
                }
                (_, None) => drop(cutover.say(Command::Switch { to: cutover.state().authority.other() })),
            }
            prop_assert!(cutover.state().epoch >= epoch, "epochs only grow");
            epoch = cutover.state().epoch;
            prop_assert_eq!(&replay(&cutover.1).unwrap(), &cutover.0);
        }
        while let Some(step) = next(cutover.state()) {
            for action in step.spec(reverse).does {
                world.act(action);
                world.check(cutover.state(), action);
            }
            cutover.say(report(step)).unwrap();
        }
        let state = cutover.state();
        prop_assert_eq!(state.route().writes, Writes::Open);
        let open = [state.authority == Side::Source, state.authority == Side::Target];
        prop_assert_eq!(world.open, open);
    }
}
