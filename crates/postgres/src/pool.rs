//! A few workers that go through a list.

use std::{collections::VecDeque, future::Future, sync::Arc};

use cutover_core::plan::DatabaseUrl;
use tokio::{sync::Mutex, task::JoinSet};

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
    share_out(jobs, items, open, work).await
}

/// Works through `items`, in order, with up to `jobs` workers. Each opens what it needs, once, and has it for all items
/// that it takes. The first failure ends them all; so does dropping the future.
pub(crate) async fn share_out<W, T, O, Opening, F, Fut>(jobs: usize, items: Vec<T>, open: O, work: F) -> PgResult<()>
where
    W: Send + 'static,
    T: Send + 'static,
    O: Fn() -> Opening + Clone + Send + Sync + 'static,
    Opening: Future<Output = PgResult<W>> + Send + 'static,
    F: Fn(W, T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = PgResult<W>> + Send + 'static,
{
    let jobs = jobs.clamp(1, items.len().max(1));
    let queue = Arc::new(Mutex::new(VecDeque::from(items)));
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        let (queue, open, work) = (Arc::clone(&queue), open.clone(), work.clone());
        workers.spawn(async move {
            let mut worker = open().await?;
            loop {
                let Some(item) = queue.lock().await.pop_front() else { return Ok(()) };
                worker = work(worker, item).await?;
            }
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
