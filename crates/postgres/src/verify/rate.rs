//! No more rows in a second than somebody allows.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Lets rows pass at a rate, however many ask for them at once.
pub(super) struct Rate {
    /// Unit: rows per second.
    most: Option<u64>,
    /// When all that was spent so far is paid for.
    paid: Mutex<Instant>,
}

impl Rate {
    pub(super) fn new(most: Option<u64>) -> Self {
        Self { most, paid: Mutex::new(Instant::now()) }
    }

    /// Waits as long as these rows may take.
    pub(super) async fn spend(&self, rows: u64) {
        let Some(most) = self.most.filter(|most| *most > 0) else { return };
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            *paid = (*paid).max(Instant::now()) + Duration::from_secs_f64(rows as f64 / most as f64);
            *paid
        };
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn several_together_are_no_faster_than_one() {
        let began = Instant::now();
        let rate = Rate::new(Some(1000));
        tokio::join!(rate.spend(50), rate.spend(50), rate.spend(100));
        assert!(began.elapsed() >= Duration::from_millis(199), "{:?}", began.elapsed());
        Rate::new(None).spend(u64::MAX).await;
    }
}
