//! A few connections that work through a list.

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
    let jobs = jobs.clamp(1, items.len().max(1));
    let queue = Arc::new(Mutex::new(VecDeque::from(items)));
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        let (queue, work, url, application) = (Arc::clone(&queue), work.clone(), url.clone(), application.to_owned());
        workers.spawn(async move {
            let mut client = connect(&url, &Purpose::unbounded(&application)).await?;
            loop {
                let Some(item) = queue.lock().await.pop_front() else { return Ok(()) };
                client = work(client, item).await?;
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
