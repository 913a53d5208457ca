//! What one server may lend, and to whom: no lease outlasts what the server itself is sure of.

use std::collections::BTreeMap;

use super::{Clients, FutureEpoch, Renewal, Report};
use crate::{Route, Writes};

/// One server's leases, and what they rest on. Its times are the server's own, monotonic, in milliseconds.
///
/// What a client is told must be by the route that the desk had when the client was taken down, or by a later one: a
/// driver that reads a [`Report`] counts on it that nobody is told by an older route who is not in it.
#[derive(Clone, Debug)]
pub struct Desk {
    clients: Clients,
    route: Route,
    /// Until when it may be relied on that there is no newer route.
    seen_until_ms: u64,
    /// Until when the report counts that leases rest on.
    reported_until_ms: u64,
    /// When each report was begun, and known to be written down, behind which the journal was not read yet.
    unread: Vec<(u64, u64)>,
    lease_ms: u64,
    /// Who has said goodbye, and until when that is remembered.
    left: BTreeMap<String, u64>,
}

/// A lease that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lent {
    /// How long it is, from when the request arrived; nothing where the server is sure of nothing.
    pub lease_ms: u64,
    /// Whether somebody was behind who isn't now: a driver may be waiting for that.
    pub caught_up: bool,
}

impl Desk {
    /// A desk whose first report was begun at `reported_ms`, before the journal was read, which was begun at `seen_ms`.
    #[must_use]
    pub fn new(lease_ms: u64, reported_ms: u64, route: Route, seen_ms: u64) -> Self {
        let [seen_until_ms, reported_until_ms] = [seen_ms, reported_ms].map(|at_ms| at_ms + lease_ms);
        Self { clients: Clients::default(), route, seen_until_ms, reported_until_ms, unread: Vec::new(), lease_ms, left: BTreeMap::new() }
    }

    /// The desk of an agent, which knows nothing yet. It lends for `lease_ms` at most, and never longer than its own lease.
    #[must_use]
    pub fn of_agent(lease_ms: u64) -> Self {
        let route = Route { writes: Writes::Held, ..Route::default() };
        Self {
            clients: Clients::default(),
            route,
            seen_until_ms: 0,
            reported_until_ms: 0,
            unread: Vec::new(),
            lease_ms,
            left: BTreeMap::new(),
        }
    }

    /// The journal was read: this is its route, as of `at_ms`, when that was begun.
    ///
    /// Leases rest on a report only from here on. It may have been under way for so long that a driver took the server for
    /// dead and went on: then the journal says so.
    pub fn see(&mut self, route: Route, at_ms: u64) {
        if route.epoch >= self.route.epoch {
            self.route = route;
        }
        self.seen_until_ms = self.seen_until_ms.max(at_ms + self.lease_ms);
        let read = self.unread.extract_if(.., |(_, written_ms)| *written_ms <= at_ms).map(|(begun_ms, _)| begun_ms).max();
        self.reported_until_ms = self.reported_until_ms.max(read.map_or(0, |begun_ms| begun_ms + self.lease_ms));
    }

    /// An agent's own lease was renewed until `until_ms`, and this is the route that came with it. What the agent reported
    /// was taken down before the answer was given: one request serves for both.
    pub fn renewed(&mut self, route: Route, until_ms: u64) {
        if route.epoch >= self.route.epoch {
            self.route = route;
        }
        for until in [&mut self.seen_until_ms, &mut self.reported_until_ms] {
            *until = until_ms.max(*until);
        }
    }

    /// A report that was begun at `begun_ms` is known at `now_ms` to be written down.
    pub fn reported(&mut self, begun_ms: u64, now_ms: u64) {
        self.unread.push((begun_ms, now_ms));
    }

    /// Until when the server may rely on what it knows: the journal was read, and a report written down, no longer than a
    /// lease before; and the journal was read behind the report.
    #[must_use]
    pub fn relies_until_ms(&self) -> u64 {
        self.seen_until_ms.min(self.reported_until_ms)
    }

    /// Takes a client down that asked at `now_ms`, and says for how long it may act on what it is told.
    ///
    /// # Errors
    /// [`FutureEpoch`]; what was taken down before stays.
    pub fn lend(&mut self, renewal: &Renewal<'_>, now_ms: u64) -> Result<Lent, FutureEpoch> {
        let until_ms = (now_ms + self.lease_ms).min(self.relies_until_ms()).max(now_ms);
        if self.left.contains_key(renewal.key) {
            return Ok(Lent { lease_ms: 0, caught_up: false });
        }
        // One more, because the caller may have rounded down: no lease ends too early in what is taken down.
        let caught_up = self.clients.renew(&Renewal { until_ms: until_ms + 1, ..renewal.clone() }, self.route.epoch)?;
        Ok(Lent { lease_ms: until_ms - now_ms, caught_up })
    }

    /// Forgets a client that says that it has ended. A request that it had sent before and that was overtaken gets no lease
    /// any more, for as long as a lease is: by then it has arrived, or never will.
    pub fn leave(&mut self, key: &str, now_ms: u64) {
        self.clients.leave(key);
        self.left.insert(key.to_owned(), now_ms + self.lease_ms);
    }

    /// The newest route that it knows.
    #[must_use]
    pub fn route(&self) -> Route {
        self.route
    }

    /// The sum of all clients.
    pub fn report(&mut self, now_ms: u64) -> Report {
        self.left.retain(|_, until_ms| *until_ms > now_ms);
        self.clients.report(now_ms, self.route.epoch, self.route.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::{Place, Who};

    #[test]
    fn a_request_that_a_goodbye_has_overtaken_gets_no_lease_and_keeps_nobody_waiting() {
        let mut desk = Desk::new(1_000, 0, Route::default(), 0);
        let who = Who::Keeps { place: Some(Place::Through), acknowledged: Some(0) };
        let renewal = Renewal { key: "a", name: "a", who, until_ms: 0 };
        assert_eq!(desk.lend(&renewal, 10).unwrap().lease_ms, 990);
        desk.leave("a", 20);
        assert_eq!(desk.lend(&renewal, 30).unwrap().lease_ms, 0);
        assert_eq!(desk.report(40).clients, 0);
        desk.see(Route::default(), 1_000);
        desk.reported(1_000, 1_000);
        desk.see(Route::default(), 1_000);
        desk.report(1_020);
        assert_eq!(desk.lend(&renewal, 1_030).unwrap().lease_ms, 970, "somebody who begins anew under the same name");
    }
}
