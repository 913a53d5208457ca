//! The gate under every interleaving of few threads and every order in which memory may show their stores.

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};

    pub(crate) const SHARDS: usize = 2;
}

// The very same file, made of the model's atomics.
#[path = "gate.rs"]
#[expect(clippy::duplicate_mod, reason = "the gate is tried with other atomics")]
#[allow(dead_code, reason = "the model needs less of it")]
mod gate;

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use self::gate::{Gate, Ticket};

const LEASE: u64 = 100;

/// Writers on threads of their own, each of which marks its epoch as under way for as long as it is admitted.
struct World {
    gate: Gate,
    /// Writes under way, by their epoch.
    under_way: [AtomicU64; 4],
    /// Set by a writer that was told that somebody may be waiting.
    told: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self { gate: Gate::new(), under_way: std::array::from_fn(|_| AtomicU64::new(0)), told: AtomicU64::new(0) };
        world.gate.open(0, 1, LEASE);
        Arc::new(world)
    }

    fn write(&self, shard: usize) -> Option<u64> {
        let ticket = self.gate.enter(shard, || 0, || self.told.store(1, Ordering::Release))?;
        let epoch = ticket.epoch();
        // Relaxed: only the gate orders this before the look of whoever closed.
        self.under_way[epoch as usize].store(1, Ordering::Relaxed);
        self.end(&ticket);
        Some(epoch)
    }

    fn end(&self, ticket: &Ticket) {
        self.under_way[ticket.epoch() as usize].store(0, Ordering::Relaxed);
        if self.gate.leave(ticket) {
            self.told.store(1, Ordering::Release);
        }
    }

    fn is_under_way(&self, epoch: u64) -> bool {
        self.under_way[epoch as usize].load(Ordering::Relaxed) != 0
    }
}

#[test]
fn a4_none_of_several_writes_is_under_way_when_a_closed_gate_is_drained() {
    // Three switches of threads at any place; the tests with one writer try all. With two that would take hours.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new();
        let writers: Vec<_> = (0..2).map(|shard| spawn(&world, move |world| world.write(shard))).collect();
        world.gate.close();
        if world.gate.is_drained(0) {
            assert!(!world.is_under_way(1));
            assert!(!world.gate.is_open(0));
        }
        for writer in writers {
            writer.join().unwrap();
        }
        assert!(world.gate.is_drained(0), "each write is counted back");
    });
}

#[test]
fn a4_a_write_is_counted_before_the_gate_is_closed_or_not_admitted() {
    loom::model(|| {
        let world = World::new();
        let writer = spawn(&world, |world| world.write(0));
        world.gate.close();
        if world.gate.is_drained(0) {
            assert!(!world.is_under_way(1));
        }
        writer.join().unwrap();
    });
}

#[test]
fn a4_whoever_saw_a_write_counted_is_told_when_it_ends() {
    loom::model(|| {
        let world = World::new();
        let writer = spawn(&world, |world| world.write(0));
        world.gate.close();
        let waits = !world.gate.is_drained(0);
        writer.join().unwrap();
        assert!(!waits || world.told.load(Ordering::Acquire) == 1, "nobody wakes who waits");
    });
}

#[test]
fn a4_a_bank_that_is_used_again_never_mixes_two_epochs() {
    loom::model(|| {
        let world = World::new();
        let writer = spawn(&world, |world| world.write(0));
        // Straight on to another epoch in another bank, and, once the first is empty, to a third in the first.
        world.gate.open(1, 2, LEASE);
        let drained = world.gate.is_drained(0);
        if drained {
            assert!(!world.is_under_way(1));
            world.gate.open(0, 3, LEASE);
        }
        let epoch = writer.join().unwrap();
        assert!(epoch.is_none_or(|epoch| epoch < 3 || drained), "{epoch:?}");
        assert!(world.gate.is_drained(0) && world.gate.is_drained(1));
    });
}

fn spawn<T: 'static>(world: &Arc<World>, work: impl FnOnce(&World) -> T + 'static) -> thread::JoinHandle<T> {
    let world = world.clone();
    thread::spawn(move || work(&world))
}
