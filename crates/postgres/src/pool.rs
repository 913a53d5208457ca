//! A few workers that go through a list, which may grow while they do.

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cutover_core::plan::DatabaseUrl;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    PgResult,
    connect::{Purpose, connect},
};

/// Works through `items`, in order, with up to `jobs` workers of one connection each. The first failure ends them all;
/// so does dropping the future.
pub(crate) async fn work_through<T, F, Fut>(url: &DatabaseUrl, application: &str, jobs: usize, items: Vec<T>, work: F) -> PgResult<()>
where
    T: Send + 'static,
    F: Fn(tokio_postgres::Client, T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = PgResult<tokio_postgres::Client>> + Send + 'static,
{
    let (url, application) = (url.clone(), application.to_owned());
    let open = move || {
        let (url, application) = (url.clone(), application.clone());
        async move { connect(&url, &Purpose::unbounded(&application)).await }
    };
    share_out(jobs, Queue::of(items), open, work).await
}

/// How many tables one session touches. It remembers each of them for good, and each plan of a trigger's that ran on one,
/// and looks through all of that whenever any table changes: with thousands it does little else.
const TABLES_OF_A_SESSION: usize = 100;

/// Works through a queue with up to `jobs` workers. Each opens what it needs with its first item, and anew after some more.
/// The first failure ends them all; so does dropping the future.
pub(crate) async fn share_out<W, T, O, Opening, F, Fut>(jobs: usize, queue: Arc<Queue<T>>, open: O, work: F) -> PgResult<()>
where
    W: Send + 'static,
    T: Send + 'static,
    O: Fn() -> Opening + Clone + Send + Sync + 'static,
    Opening: Future<Output = PgResult<W>> + Send + 'static,
    F: Fn(W, T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = PgResult<W>> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for _ in 0..jobs.max(1) {
        let (queue, open, work) = (Arc::clone(&queue), open.clone(), work.clone());
        workers.spawn(async move {
            let mut opened = None;
            while let Some(item) = queue.take().await {
                let (worker, tables) = match opened.take() {
                    Some((worker, tables)) if tables < TABLES_OF_A_SESSION => (worker, tables),
                    _ => (open().await?, 0),
                };
                let tables = tables + (queue.tables)(&item);
                opened = Some((work(worker, item).await?, tables));
                queue.end_item();
            }
            Ok(())
        });
    }
    while let Some(done) = workers.join_next().await {
        match done {
            Ok(done) => done?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok(())
}

/// What is left to do. Whoever does an item may add others, which come before those that were there from the beginning,
/// the heaviest first: what is one piece should not be begun last.
pub(crate) struct Queue<T> {
    left: Mutex<Left<T>>,
    /// How many tables an item touches.
    tables: fn(&T) -> usize,
    changed: Notify,
}

struct Left<T> {
    /// Added since, by weight.
    added: Vec<(u64, T)>,
    /// From the beginning.
    items: VecDeque<T>,
    /// Items that are being done.
    under_way: usize,
}

impl<T> Queue<T> {
    /// Items of one table each.
    pub(crate) fn of(items: Vec<T>) -> Arc<Self> {
        Self::weighed(items, |_| 1)
    }

    /// Items of so many tables each.
    pub(crate) fn weighed(items: Vec<T>, tables: fn(&T) -> usize) -> Arc<Self> {
        let left = Left { added: Vec::new(), items: items.into(), under_way: 0 };
        Arc::new(Self { left: Mutex::new(left), tables, changed: Notify::new() })
    }

    /// Adds items with their weights.
    pub(crate) fn add(&self, items: impl IntoIterator<Item = (u64, T)>) {
        let mut left = self.lock();
        left.added.extend(items);
        left.added.sort_by_key(|(weight, _)| *weight);
        drop(left);
        self.changed.notify_waiters();
    }

    /// The next item; none once nothing is left, and nobody does anything that could add more.
    async fn take(&self) -> Option<T> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut left = self.lock();
                let item = left.added.pop().map(|(_, item)| item);
                if let Some(item) = item.or_else(|| left.items.pop_front()) {
                    left.under_way += 1;
                    return Some(item);
                }
                if left.under_way == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    fn end_item(&self) {
        self.lock().under_way -= 1;
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Left<T>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// Does everything with `jobs` workers; each number below ten adds two larger ones. Says in which order.
    async fn order(jobs: usize) -> Vec<u64> {
        let queue = Queue::of(vec![1, 5, 3]);
        let (done, opened) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (doing, opening, adding) = (Arc::clone(&done), Arc::clone(&opened), Arc::clone(&queue));
        let open = move || {
            opening.fetch_add(1, SeqCst);
            async { Ok(()) }
        };
        let work = move |(), item: u64| {
            let (doing, adding) = (Arc::clone(&doing), Arc::clone(&adding));
            async move {
                if item < 10 {
                    adding.add([(item, item * 10), (item + 1, item * 10 + 1)]);
                }
                tokio::task::yield_now().await;
                doing.lock().unwrap().push(item);
                Ok(())
            }
        };
        share_out(jobs, queue, open, work).await.unwrap();
        assert!(opened.load(SeqCst) <= jobs, "each opens once for so few");
        done.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn what_is_added_comes_first_and_the_heaviest_of_it_before_the_rest() {
        assert_eq!(order(1).await, [1, 11, 10, 5, 51, 50, 3, 31, 30]);
    }

    #[tokio::test]
    async fn workers_without_an_item_wait_for_what_the_others_add() {
        for jobs in [2, 3, 8] {
            let mut done = order(jobs).await;
            done.sort_unstable();
            assert_eq!(done, [1, 3, 5, 10, 11, 30, 31, 50, 51], "{jobs} workers");
        }
    }

    #[tokio::test]
    async fn the_first_failure_ends_them_all() {
        let open = || async { Ok(()) };
        let work = |(), item: u32| async move {
            if item == 2 { Err(crate::PgError::Mismatch("two".to_owned())) } else { std::future::pending().await }
        };
        let done = share_out(3, Queue::of(vec![1, 2, 3]), open, work).await;
        assert!(matches!(done, Err(crate::PgError::Mismatch(_))), "{done:?}");
    }
}
