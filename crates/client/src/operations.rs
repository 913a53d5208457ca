//! Reads and writes that the application did, counted until the server is told.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cutover_api::{OperationOutcome, Side};
use cutover_wire::{
    Wire,
    operations::{Kind, Outbox, Tally},
};
use tokio::sync::watch;

use crate::{guard::shard, sync::SHARDS};

/// One read or write at one store, that has ended: see [`Client::record`](crate::Client::record).
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What is moved: `database`, or a table or an entity. 1 to 100 characters.
    pub unit: &'a str,
    /// What was done, in your own words: `get`, `list`, `upload`. 1 to 100 characters, and no key is a part of it: all that
    /// have the same name are counted together, and no more than 1,000 kinds are.
    pub name: &'a str,
    /// The store that was asked.
    pub store: Side,
    /// How long it took there. Told right to 1 %, and as one hour if it was longer.
    pub took: Duration,
    /// How it ended there.
    pub outcome: OperationOutcome,
}

/// Counts, one for some threads each, so that they seldom meet.
#[derive(Debug, Default)]
pub(crate) struct Counted([Mutex<Tally>; SHARDS]);

impl Counted {
    pub(crate) fn record(&self, operation: &Operation<'_>) {
        let Operation { unit, name, store, took, outcome } = *operation;
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let tally = &self.0[shard() % SHARDS];
        tally.lock().unwrap_or_else(PoisonError::into_inner).add(Kind { unit, operation: name, store, outcome }, us, 1);
    }

    fn move_to(&self, sum: &mut Tally) {
        for tally in &self.0 {
            // Nobody who records waits for more than this.
            let taken = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
            sum.merge(&taken);
        }
    }
}

/// Tells the server what was counted, until the client ends, and then once more.
pub(crate) async fn tell(counted: &Counted, wire: &Wire, incarnation: String, mut ending: watch::Receiver<bool>) {
    let mut outbox = Outbox::new(incarnation);
    // Also when the last handle was dropped.
    tokio::select! {
        _ = ending.wait_for(|ending| *ending) => {}
        () = outbox.keep_telling(wire, |tally| counted.move_to(tally)) => {}
    }
    counted.move_to(&mut outbox.tally);
    outbox.tell_last(wire).await;
}
