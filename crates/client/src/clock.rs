//! A monotonic clock that costs a few nanoseconds.

/// Nanoseconds since the client began.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    clock: quanta::Clock,
    start: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = quanta::Clock::new();
        Self { start: clock.raw(), clock }
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.delta_as_nanos(self.start, self.clock.raw())
    }
}
