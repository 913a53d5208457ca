//! What every client meets, of a server and of an agent alike: what is known, what is lent on it, and to whom.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cutover_core::{
    Route, Trial,
    clients::{Claim, Desk, Flags, FutureEpoch, Places, Renewal, Report, Unit},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{agent::Link, events::Tickets, health::Metrics, operations::Told, tokens::Tokens};

/// How things stand, as of a moment that is known.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The cutover's name; empty while an agent has not heard of any.
    pub(crate) cutover: Arc<str>,
    /// The names of both databases.
    pub(crate) places: Arc<Places>,
    /// The newest journal entry's number; 0 while there is none.
    pub(crate) revision: u64,
    /// The route that the journal comes to.
    pub(crate) route: Route,
    /// Where the reads of each unit go. A server's follow from the route; an agent hears of them.
    pub(crate) units: Arc<[Unit]>,
    /// The write that may be tried now. An agent knows of none, and asks its server.
    pub(crate) trial: Option<Arc<Trial>>,
    /// When it was known that there was no newer entry.
    pub(crate) as_of: Instant,
}

/// How whoever asks is met.
pub(crate) struct Manners {
    pub(crate) tokens: Tokens,
    /// Whether nobody needs a token while there is none.
    pub(crate) open: bool,
    /// How long an answer may be relied on, at most.
    pub(crate) lease: Duration,
    /// When everything is to end.
    pub(crate) closing: watch::Receiver<bool>,
}

/// What all requests of clients share.
#[derive(Clone)]
pub(crate) struct Front(Arc<Inner>);

pub(crate) struct Inner {
    view: watch::Sender<View>,
    /// Changes together with the view: nobody is told of an epoch that can't be acknowledged here yet.
    desk: Mutex<Desk>,
    /// Who asks for the write on trial.
    claims: Mutex<Vec<Claim>>,
    /// Where an agent asks for it.
    upstream: Option<Arc<Link>>,
    started: Instant,
    manners: Manners,
    pub(crate) metrics: Metrics,
    /// What applications tell of their reads and writes.
    pub(crate) told: Told,
    pub(crate) tickets: Tickets,
    /// Told when somebody who waits for our clients may want to hear what we have to say.
    pub(crate) news: Notify,
}

impl Deref for Front {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = Manners;

    fn deref(&self) -> &Manners {
        &self.manners
    }
}

impl Front {
    /// Of a server, whose first report was begun at `started`, before it came to know the view.
    pub(crate) fn of_server(view: View, started: Instant, manners: Manners) -> Self {
        let desk = Desk::new(whole_ms(manners.lease), 0, view.route, ms_since(started, view.as_of));
        Self::new(view, desk, started, manners, None)
    }

    /// Of an agent, which knows nothing yet.
    pub(crate) fn of_agent(manners: Manners, upstream: Arc<Link>) -> Self {
        let (desk, started) = (Desk::of_agent(whole_ms(manners.lease)), Instant::now());
        let (places, units) = (Arc::default(), Arc::default());
        let view = View { cutover: "".into(), places, revision: 0, route: desk.route(), units, trial: None, as_of: started };
        Self::new(view, desk, started, manners, Some(upstream))
    }

    fn new(view: View, desk: Desk, started: Instant, manners: Manners, upstream: Option<Arc<Link>>) -> Self {
        let told = Told::default();
        Self(Arc::new(Inner {
            view: watch::Sender::new(view),
            desk: Mutex::new(desk),
            claims: Mutex::default(),
            upstream,
            started,
            manners,
            metrics: Metrics::new(told.collector()),
            told,
            tickets: Tickets::new(),
            news: Notify::new(),
        }))
    }
}

impl Inner {
    /// What is known now.
    pub(crate) fn now(&self) -> View {
        self.view.borrow().clone()
    }

    /// Tells each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// What is said by a view, as sure as it is now.
    pub(crate) fn flags<'a>(&self, view: &'a View) -> Flags<'a> {
        Flags { cutover: &view.cutover, route: view.route, units: &view.units, fresh: !self.fresh_for().is_zero(), places: &view.places }
    }

    /// How much longer what is known may be relied on.
    pub(crate) fn fresh_for(&self) -> Duration {
        let until = self.desk().relies_until_ms();
        Duration::from_millis(until.saturating_sub(self.ms(Instant::now())))
    }

    /// A server has read the journal: takes it up, and tells everybody who subscribed. These come first: see [`Desk`].
    pub(crate) fn see(&self, view: View) {
        let mut desk = self.desk();
        let (route, as_of) = (view.route, view.as_of);
        self.view.send_replace(view);
        desk.see(route, self.ms(as_of));
    }

    /// A server's report that was begun at `asked_at` is written down.
    pub(crate) fn reported(&self, asked_at: Instant) {
        // One more, because both are rounded down: a reading that was begun in the same millisecond may have come before.
        self.desk().reported(self.ms(asked_at), self.ms(Instant::now()) + 1);
    }

    /// An agent's own lease was renewed, for this long since it asked: as of then this holds.
    pub(crate) fn renewed(&self, view: View, lease: Duration) {
        let mut desk = self.desk();
        let (route, until) = (view.route, self.ms(view.as_of) + whole_ms(lease));
        self.view.send_replace(view);
        desk.renewed(route, until);
    }

    /// Gives a client a lease, which counts from `arrived`, and says by which view it is to be answered.
    pub(crate) fn lend(&self, renewal: &Renewal<'_>, arrived: Instant) -> Result<(Duration, View), FutureEpoch> {
        let lent = self.desk().lend(renewal, self.ms(arrived))?;
        if lent.caught_up {
            self.news.notify_one();
        }
        Ok((Duration::from_millis(lent.lease_ms), self.now()))
    }

    /// Forgets a client that says that it has ended.
    pub(crate) fn forget(&self, key: &str) {
        self.desk().leave(key, self.ms(Instant::now()));
        self.news.notify_one();
    }

    /// The sum of all clients.
    pub(crate) fn report(&self) -> Report {
        let mut report = self.desk().report(self.ms(Instant::now()));
        report.claims.clone_from(&self.claims());
        self.metrics.clients.set(report.clients.cast_signed());
        self.metrics.behind.set(report.behind.cast_signed());
        self.metrics.astray.set(report.astray.cast_signed());
        report
    }

    /// Comes back with the first of: a revision other than this one, the end of everything, the time that was given.
    pub(crate) async fn news(&self, known: Option<u64>, longest: Duration) {
        let (mut views, mut closing) = (self.subscribe(), self.closing.clone());
        let news = views.wait_for(|view| Some(view.revision) != known);
        let end = closing.wait_for(|closing| *closing);
        // Which of them it was makes no difference: what holds then is told.
        let _ = tokio::time::timeout(longest, async {
            tokio::select! { _ = news => {}, _ = end => {} }
        })
        .await;
    }

    pub(crate) fn claims(&self) -> MutexGuard<'_, Vec<Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server that an agent asks; none of a server.
    pub(crate) fn upstream(&self) -> Option<&Link> {
        self.upstream.as_deref()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment of the monotonic clock that the leases are counted by, in milliseconds, rounded down.
    pub(crate) fn ms(&self, at: Instant) -> u64 {
        ms_since(self.started, at)
    }
}

/// Rounded down.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn ms_since(started: Instant, at: Instant) -> u64 {
    whole_ms(at.saturating_duration_since(started))
}

#[cfg(test)]
mod tests {
    use cutover_core::clients::Who;

    use super::*;
    use crate::tokens::TokenFile;

    #[test]
    fn an_epoch_that_somebody_was_told_of_can_be_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(TokenFile::new(folder.path().join("tokens.json"))).unwrap();
        let manners = Manners { tokens, open: true, lease: Duration::from_secs(5), closing: watch::channel(false).1 };
        let now = Instant::now();
        let (places, units, route) = (Arc::default(), Arc::default(), Route::default());
        let view = View { cutover: "shop".into(), places, revision: 0, route, units, trial: None, as_of: now };
        let front = Front::of_server(view, now, manners);
        let view = |epoch| View { revision: epoch, route: Route { epoch, ..Route::default() }, ..front.now() };
        let newest = 100_000;
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=newest).for_each(|epoch| front.see(view(epoch))));
            let mut epoch = 0;
            while epoch < newest {
                epoch = front.now().route.epoch;
                let who = Who::Keeps { place: None, acknowledged: Some(epoch) };
                let renewal = Renewal { key: "a", name: "a", who, until_ms: 0 };
                front.lend(&renewal, Instant::now()).expect("it was told of it");
            }
        });
    }
}
