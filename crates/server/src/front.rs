//! What every client meets, of a server and of an agent alike: what is known, what is lent on it, and to whom.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cutover_core::{
    Route, Trial,
    clients::{Claim, Desk, Flags, FutureEpoch, Places, Renewal, Report, ShadowTable, Unit},
};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{agent::Link, events::Tickets, health::Metrics, operations::Told, shadow::Board, tokens::Tokens};

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
    /// Where the reads of each unit go. A server's follow from the route, and from what the tables' own database says; an
    /// agent hears of them.
    pub(crate) units: Arc<[Unit]>,
    /// The tables among the units.
    pub(crate) tables: Tables,
    /// The write that may be tried now. An agent knows of none, and asks its server.
    pub(crate) trial: Option<Arc<Trial>>,
    /// When it was known that there was no newer entry.
    pub(crate) as_of: Instant,
}

/// Tables with a shadow, as their own database said it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// What of the view's units they are. An agent does not tell them apart.
    units: Arc<[Unit]>,
    /// What tells one state of them from another; 0 where there are none.
    pub(crate) version: u64,
    /// When that was known; none while nothing was heard of them.
    pub(crate) as_of: Option<Instant>,
}

/// What tells one view from another, to whoever waits for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) revision: u64,
    pub(crate) tables: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tables {
            0 => write!(f, "{}", self.revision),
            tables => write!(f, "{}-{tables:x}", self.revision),
        }
    }
}

impl View {
    pub(crate) fn version(&self) -> Version {
        Version { revision: self.revision, tables: self.tables.version }
    }

    /// With these tables beside what is known else, whose names go before theirs.
    fn with(&self, tables: Tables) -> Self {
        let own = &self.units[..self.units.len() - self.tables.units.len()];
        let units = tables.units.iter().filter(|table| own.iter().all(|unit| unit.name != table.name)).cloned();
        let tables = Tables { units: units.collect(), ..tables };
        Self { units: own.iter().chain(tables.units.iter()).cloned().collect(), tables, ..self.clone() }
    }
}

impl Tables {
    pub(crate) fn new(units: Vec<Unit>, as_of: Instant) -> Self {
        let version = version(&units);
        Self { units: units.into(), version, as_of: Some(as_of) }
    }

    /// Of which nobody but who told it knows what they are.
    pub(crate) fn heard_of(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// The same, of which is no longer sure that they are so.
    fn stale(&self) -> Self {
        let stale = |unit: &Unit| Unit { table: unit.table.clone().map(|table| ShadowTable { stale: true, ..table }), ..unit.clone() };
        let units: Vec<Unit> = self.units.iter().map(stale).collect();
        Self { version: version(&units), units: units.into(), as_of: self.as_of }
    }
}

/// So short that a program in any language has a number for it.
fn version(units: &[Unit]) -> u64 {
    if units.is_empty() {
        return 0;
    }
    let hash = Sha256::digest(format!("{units:?}"));
    hash.iter().take(6).fold(0, |version, byte| version << 8 | u64::from(*byte)).max(1)
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
    /// What is shown of tables with a shadow.
    pub(crate) board: Board,
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
        let tables = Tables::default();
        let view = View { cutover: "".into(), places, revision: 0, route: desk.route(), units, tables, trial: None, as_of: started };
        Self::new(view, desk, started, manners, Some(upstream))
    }

    /// Of a server with no switch, of which nothing is known but its tables; and they, not yet.
    pub(crate) fn of_tables(name: &str, places: Places, manners: Manners) -> Self {
        let (desk, started) = (Desk::of_agent(whole_ms(manners.lease)), Instant::now());
        let (units, tables) = (Arc::default(), Tables::default());
        let (cutover, places) = (name.into(), places.into());
        let view = View { cutover, places, revision: 0, route: Route::default(), units, tables, trial: None, as_of: started };
        Self::new(view, desk, started, manners, None)
    }

    fn new(view: View, desk: Desk, started: Instant, manners: Manners, upstream: Option<Arc<Link>>) -> Self {
        let (told, board) = (Told::default(), Board::default());
        Self(Arc::new(Inner {
            view: watch::Sender::new(view),
            desk: Mutex::new(desk),
            claims: Mutex::default(),
            upstream,
            started,
            manners,
            metrics: Metrics::new([told.collector(), board.collector()]),
            told,
            board,
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
        let tables = self.view.borrow().tables.clone();
        self.view.send_replace(view.with(tables));
        desk.see(route, self.ms(as_of));
    }

    /// The tables' own database was read.
    pub(crate) fn see_tables(&self, tables: Tables) {
        let _desk = self.desk();
        self.view.send_modify(|view| *view = view.with(tables));
    }

    /// The same, where nothing else is followed: it is by this that the server is sure.
    pub(crate) fn rely_on_tables(&self, tables: Tables, as_of: Instant) {
        let view = View { as_of, ..self.now().with(tables) };
        self.renewed(view, self.lease);
    }

    /// What was last read of the tables may not be so any more, unless it was read anew since `as_of`.
    pub(crate) fn outdate_tables(&self, as_of: Instant) {
        let _desk = self.desk();
        self.view.send_if_modified(|view| {
            let is_old = view.tables.as_of == Some(as_of);
            if is_old {
                *view = view.with(view.tables.stale());
            }
            is_old
        });
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

    /// Comes back with the first of: a view other than what is known, the end of everything, the time that was given. Who names
    /// no state of the tables waits for none of theirs.
    pub(crate) async fn news(&self, known: Known, longest: Duration) {
        let (mut views, mut closing) = (self.subscribe(), self.closing.clone());
        let news = views.wait_for(|view| known.differs(view.version()));
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

/// What a client knows, as far as it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) revision: Option<u64>,
    pub(crate) tables: Option<u64>,
}

impl Known {
    pub(crate) fn differs(self, now: Version) -> bool {
        self.revision != Some(now.revision) || self.tables.is_some_and(|tables| tables != now.tables)
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
        let tables = Tables::default();
        let view = View { cutover: "shop".into(), places, revision: 0, route, units, tables, trial: None, as_of: now };
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
