//! What an application asks.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::Instrument as _;

use crate::{Builder, Operation, Refused, Route, Side, WriteGuard, guard::Shared};

/// A longer wait than this is as good as one without end.
const VERY_LONG: Duration = Duration::from_secs(365 * 24 * 3600);

/// Keeps a lease in the background, and says whether this process may write. Clones are handles to the same; when the
/// last is dropped, the lease is given back.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    /// The task ends when it is told `true`, or when this is dropped.
    end: watch::Sender<bool>,
    /// Closed when the task has ended.
    gone: watch::Receiver<()>,
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>, end: watch::Sender<bool>, gone: watch::Receiver<()>) -> Self {
        Self { shared, handle: Arc::new(Handle { end, gone }) }
    }

    /// A client of the server or agent at this address.
    pub fn builder(server: impl Into<String>) -> Builder {
        Builder::default().server(server)
    }

    /// A client that is set up by the environment: see [`Builder::from_env`].
    #[must_use]
    pub fn from_env() -> Builder {
        Builder::default().from_env()
    }

    /// Whether a write may begin at this instant. It costs one atomic load, a look at the clock and a compare, and
    /// promises nothing for the next instant: a write needs [`Client::write`].
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.shared.gate.is_open(self.shared.clock.now())
    }

    /// Leave for one write, from this check to its commit: keep the guard until the database has answered.
    ///
    /// # Errors
    /// This process may not write now, and why.
    pub fn write(&self) -> Result<WriteGuard<'_>, Refused> {
        self.enter().inspect_err(Refused::tell)
    }

    /// The same, but holds the caller for at most so long while writes are held, or the server is out of reach. Wakes as
    /// soon as writes are open.
    ///
    /// # Errors
    /// It took too long; or waiting won't help, as for a process that is connected to the wrong database.
    pub async fn write_within(&self, most: Duration) -> Result<WriteGuard<'_>, Refused> {
        if let Ok(guard) = self.enter() {
            return Ok(guard);
        }
        let held = tracing::info_span!("cutover.hold", refused = tracing::field::Empty);
        let done = self.held(Instant::now() + most.min(VERY_LONG)).instrument(held.clone()).await;
        done.inspect_err(|refused| {
            held.record("refused", tracing::field::display(&refused.reason));
            held.in_scope(|| refused.tell());
        })
    }

    /// Where a read goes: by the share of the unit's reads that goes to the target, and by the bucket of the key, so that a
    /// key stays where it is however many processes are asked. Takes no lock and allocates nothing.
    ///
    /// The unit of a switch is `database`, and all its reads go to one side whatever the key is. None before the first
    /// answer, and where no unit has that name. It stays as it is when the server is out of reach.
    ///
    /// ```no_run
    /// # use cutover_client::{Client, Side};
    /// # fn example(client: &Client) {
    /// let replica = match client.read_from("database", "customer-17") {
    ///     Some(Side::Target) => "db-new.example",
    ///     Some(Side::Source) | None => "db-old.example",
    /// };
    /// # }
    /// ```
    #[must_use]
    pub fn read_from(&self, unit: &str, key: &str) -> Option<Side> {
        self.shared.reads.side(unit, key)
    }

    /// Counts a read or a write that has ended at one store. The server is told once a second of all that were counted in this
    /// process, each time once; when it can't be reached, later. [`Client::close`] tells it of the last.
    ///
    /// An operation that fell back is two: one at the store that failed, with [`OperationOutcome::FellBack`], and one at the
    /// store that answered.
    ///
    /// ```no_run
    /// # use std::time::Instant;
    /// # use cutover_client::{Client, Operation, OperationOutcome, Side};
    /// # fn example(client: &Client, read: impl Fn() -> Result<u8, ()>) {
    /// let begun = Instant::now();
    /// let outcome = if read().is_ok() { OperationOutcome::Ok } else { OperationOutcome::Failed };
    /// client.record(&Operation { unit: "images", name: "get", store: Side::Source, took: begun.elapsed(), outcome });
    /// # }
    /// ```
    ///
    /// [`OperationOutcome::FellBack`]: crate::OperationOutcome::FellBack
    pub fn record(&self, operation: &Operation<'_>) {
        self.shared.counted.record(operation);
    }

    /// The newest route; none before the first answer. It stays when the server is out of reach.
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        self.shared.view.borrow().route.clone()
    }

    /// Waits until the route is another than `from`, and returns it: at once, if it is already. None as `from` stands for
    /// no route at all.
    ///
    /// Returns `from` again only if the client was closed, and then there is no other to come.
    pub async fn changed(&self, from: Option<&Route>) -> Option<Route> {
        let mut views = self.shared.view.subscribe();
        // The sender is in `self`, so there is always one.
        let _ = views.wait_for(|view| view.closed || view.route.as_ref() != from).await;
        self.route()
    }

    /// Refuses further writes in this process, waits for those under way and gives the lease back, so that nobody has to
    /// wait until it has run out. Tells the server of the last operations. Takes no longer than the lease and a second. For a graceful end; all clones are closed.
    pub async fn close(self) {
        self.handle.end.send_replace(true);
        let mut gone = self.handle.gone.clone();
        // Nothing is ever sent: this fails when the task has ended.
        let _ = gone.changed().await;
    }

    async fn held(&self, deadline: Instant) -> Result<WriteGuard<'_>, Refused> {
        let mut views = self.shared.view.subscribe();
        loop {
            // Every opening from here on is told: the gate moves first.
            views.mark_unchanged();
            let refused = match self.enter() {
                Ok(guard) => return Ok(guard),
                Err(refused) => refused,
            };
            let told = refused.reason.passes() && matches!(timeout_at(deadline, views.changed()).await, Ok(Ok(())));
            if !told {
                return Err(refused);
            }
        }
    }

    fn enter(&self) -> Result<WriteGuard<'_>, Refused> {
        match self.shared.enter() {
            Some(ticket) => Ok(WriteGuard::new(&self.shared, ticket)),
            None => Err(self.refused()),
        }
    }

    fn refused(&self) -> Refused {
        self.shared.view.borrow().reason(self.shared.clock.now()).into()
    }
}
