//! A write that is under way.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, watch};

use crate::{
    clock::Clock,
    gate::{Gate, Ticket},
    operations::Counted,
    reads::Reads,
    view::View,
};

/// What handles, guards and the task share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) gate: Gate,
    pub(crate) clock: Clock,
    pub(crate) reads: Reads,
    pub(crate) counted: Counted,
    /// Told when a write ended that the task may be waiting for.
    pub(crate) left: Notify,
    pub(crate) view: watch::Sender<View>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let (gate, clock, view) = (Gate::new(), Clock::new(), watch::Sender::new(View::default()));
        Self { gate, clock, reads: Reads::default(), counted: Counted::default(), left: Notify::new(), view }
    }

    pub(crate) fn enter(&self) -> Option<Ticket> {
        self.gate.enter(shard(), || self.clock.now(), || self.left.notify_one())
    }

    fn leave(&self, ticket: &Ticket) {
        if self.gate.leave(ticket) {
            self.left.notify_one();
        }
    }
}

/// Leave to write, from the check to the commit. Keep it until the database has answered, then drop it.
///
/// As long as it lives, no newer epoch is acknowledged to the server: the driver waits before it fences the database, at
/// most until this process' lease has run out. A write that takes longer than the lease is not stopped by anybody here;
/// but the database's own fence may refuse its commit, and that is an error like any other that a commit can give. Ask
/// [`is_still_valid`](Self::is_still_valid) between the statements of a long transaction to hear of it early.
///
/// A task that is cancelled drops its guard, though the database may still be about to commit what it was sent. Where
/// callers may go away, let the write run in a task of its own ([`into_owned`](Self::into_owned)).
#[derive(Debug)]
#[must_use = "the write is only covered as long as the guard lives"]
pub struct WriteGuard<'a> {
    shared: Hold<'a>,
    ticket: Ticket,
}

#[derive(Debug)]
enum Hold<'a> {
    Borrowed(&'a Arc<Shared>),
    Owned(Arc<Shared>),
}

impl<'a> WriteGuard<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, ticket: Ticket) -> Self {
        Self { shared: Hold::Borrowed(shared), ticket }
    }

    /// The epoch under which this write is done: a fencing token.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.ticket.epoch()
    }

    /// Whether a write could begin now under the same epoch: the lease has not run out, and nothing has changed.
    #[must_use]
    pub fn is_still_valid(&self) -> bool {
        let shared = self.shared();
        shared.gate.still_admits(&self.ticket, shared.clock.now())
    }

    /// The same write, in a form that can be sent to a task.
    pub fn into_owned(self) -> WriteGuard<'static> {
        let shared = self.shared().clone();
        let ticket = shared.gate.enter_again(&self.ticket);
        WriteGuard { shared: Hold::Owned(shared), ticket }
    }

    fn shared(&self) -> &Arc<Shared> {
        match &self.shared {
            Hold::Borrowed(shared) => shared,
            Hold::Owned(shared) => shared,
        }
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        self.shared().leave(&self.ticket);
    }
}

/// A number that is the same for each thread, and seldom the same for two.
pub(crate) fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    let own = |cell: &Cell<Option<usize>>| {
        cell.get().unwrap_or_else(|| {
            let new = NEXT.fetch_add(1, Ordering::Relaxed);
            cell.set(Some(new));
            new
        })
    };
    // A thread that ends has no number any more; any will do.
    SHARD.try_with(own).unwrap_or_default()
}
