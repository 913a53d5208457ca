//! A15: whatever the order of freezing, opening, restarts, partitions, leases that run out and generations of instances,
//! no write is admitted for the wrong database or under an epoch that everybody was said to have left.
//!
//! Everything here is the product's own: desks, reports, listeners, flags. What is made up is the world between them:
//! messages that are late, overtake each other or are lost, processes that end, and clocks that have nothing in common.

#![cfg(test)]

mod world;

use std::cell::Cell;

use proptest::{prelude::*, test_runner::TestRunner};
use world::World;

/// What may happen next. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes. Unit: milliseconds.
    Wait(u64),
    /// A client asks a server for a lease.
    Ask {
        client: usize,
        server: usize,
    },
    /// A message that is under way arrives, whichever it is.
    Arrive(usize),
    /// One is lost.
    Lose(usize),
    /// A client begins a write, if it may; or ends one.
    Write(usize),
    EndWrite(usize),
    /// A provider of rules asks a server for a stream; the server tells the rules again; an instance writes by its rule.
    Connect {
        provider: usize,
        server: usize,
    },
    Push(usize),
    WriteByRule(usize),
    /// An instance is replaced by one that is connected to the other database.
    Replace(usize),
    /// A server reads the journal; writes its report, or an agent asks for a lease; ends without a word; begins anew.
    Read(usize),
    Report(usize),
    Crash(usize),
    Start(usize),
    /// A server is cut off from the journal, or an agent from the servers; or no longer.
    Cut(usize),
    /// The driver looks at the reports, and goes on as far as it may.
    Drive,
    /// The driver gives a switch up.
    Undo,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = || any::<usize>();
    let step = prop_oneof![
        3 => (1..100_u64).prop_map(Step::Wait),
        2 => (1..700_u64).prop_map(Step::Wait),
        8 => (index(), index()).prop_map(|(client, server)| Step::Ask { client, server }),
        20 => index().prop_map(Step::Arrive),
        1 => index().prop_map(Step::Lose),
        8 => index().prop_map(Step::Write),
        3 => index().prop_map(Step::EndWrite),
        1 => (index(), index()).prop_map(|(provider, server)| Step::Connect { provider, server }),
        8 => index().prop_map(Step::Push),
        10 => index().prop_map(Step::WriteByRule),
        1 => index().prop_map(Step::Replace),
        6 => index().prop_map(Step::Read),
        10 => index().prop_map(Step::Report),
        1 => index().prop_map(Step::Crash),
        4 => index().prop_map(Step::Start),
        1 => index().prop_map(Step::Cut),
        2 => Just(Step::Drive),
        1 => Just(Step::Undo),
    ];
    proptest::collection::vec(step, 100..500)
}

#[test]
fn a15_no_interleaving_admits_a_write_for_the_wrong_database_or_under_an_old_epoch() {
    let config = ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let (admitted, by_agent, by_rule, heard) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let outcome = runner.run(&steps(), |steps| {
        let mut world = World::new();
        // Else most of the steps go by before anybody can be asked.
        [Step::Start(0), Step::Arrive(0), Step::Start(2), Step::Connect { provider: 0, server: 0 }]
            .iter()
            .for_each(|step| world.step(step));
        for step in &steps {
            world.step(step);
        }
        admitted.set(admitted.get() + world.admitted);
        by_agent.set(by_agent.get() + world.by_agent);
        by_rule.set(by_rule.get() + world.by_rule);
        heard.set(heard.get() + world.heard);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let (admitted, by_agent, by_rule, heard) = (admitted.get(), by_agent.get(), by_rule.get(), heard.get());
    assert!(
        admitted > 2_000 && by_agent > 200 && by_rule > 200 && heard > 1_000,
        "the world stands still: {admitted} writes, {by_agent} by agents, {by_rule} by rules, {heard} epochs heard of"
    );
}
