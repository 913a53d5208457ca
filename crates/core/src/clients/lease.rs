//! The leases of one server's clients.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Place;
use crate::Side;

/// Names that a report gives as examples.
pub const MOST_NAMES: usize = 10;

/// A request for a lease.
#[derive(Clone, Debug)]
pub struct Renewal<'a> {
    /// Which process: no other has the same.
    pub key: &'a str,
    /// Its name, for a person.
    pub name: &'a str,
    /// Where its writes go, if that is known.
    pub place: Option<Place>,
    /// The epoch that it acts on; none while it acts on nothing yet.
    pub acknowledged: Option<u64>,
    /// Whether it asks before each write, and so acts on no answer twice. It is there, and never behind: a write that it
    /// had under way when it asked last is the database's own fence's to stop.
    pub asks_each_time: bool,
    /// Until when it may act on what it is told. Unit: milliseconds of the server's monotonic clock.
    pub until_ms: u64,
}

/// A client acknowledged an epoch that never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureEpoch {
    /// What it said.
    pub acknowledged: u64,
    /// The newest that there is.
    pub newest: u64,
}

#[derive(Clone, Debug)]
struct Client {
    name: String,
    place: Option<Place>,
    acknowledged: u64,
    asks_each_time: bool,
    until_ms: u64,
}

impl Client {
    fn is_behind(&self, epoch: u64) -> bool {
        !self.asks_each_time && self.acknowledged < epoch
    }
}

/// Who has a lease here, and what each has acknowledged. Its times are the server's own, monotonic, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Clients(BTreeMap<String, Client>);

/// The sum of one server's clients, as it is written down for the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The epoch that the server itself acts on: it gives no lease under an older one any more.
    pub epoch: u64,
    /// Clients with a lease.
    pub clients: u64,
    /// How many of them have not acknowledged that epoch yet.
    pub behind: u64,
    /// How many are connected to the side that is not in charge, or to one that nobody knows.
    pub astray: u64,
    /// How many of those name a database that nobody knows, or none.
    #[serde(default)]
    pub unknown: u64,
    /// Some of those that are behind or astray, with why.
    pub names: Vec<String>,
}

impl Clients {
    /// Takes a request for a lease down, and says whether somebody was behind who isn't now. `epoch` is the one that the
    /// server acts on.
    ///
    /// Who acts on nothing yet is behind nothing. Requests may overtake each other, as where one is given up for another:
    /// so an acknowledgement is never taken back, and who has acted on something acts on it still. A lease is never cut short: who was given more before still has it.
    ///
    /// # Errors
    /// [`FutureEpoch`]; what was taken down before stays.
    pub fn renew(&mut self, renewal: &Renewal<'_>, epoch: u64) -> Result<bool, FutureEpoch> {
        if let Some(acknowledged) = renewal.acknowledged.filter(|acknowledged| *acknowledged > epoch) {
            return Err(FutureEpoch { acknowledged, newest: epoch });
        }
        let before = self.0.get(renewal.key);
        let acknowledged = renewal.acknowledged.max(before.map(|client| client.acknowledged)).unwrap_or(epoch);
        let was_behind = before.is_some_and(|client| client.is_behind(epoch));
        let client = Client {
            name: renewal.name.to_owned(),
            place: renewal.place,
            acknowledged,
            asks_each_time: renewal.asks_each_time,
            until_ms: before.map_or(0, |client| client.until_ms).max(renewal.until_ms),
        };
        let caught_up = was_behind && !client.is_behind(epoch);
        self.0.insert(renewal.key.to_owned(), client);
        Ok(caught_up)
    }

    /// Forgets a client that says that it has ended.
    pub fn leave(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Sums up, without those whose lease has run out; these are forgotten.
    pub fn report(&mut self, now_ms: u64, epoch: u64, authority: Side) -> Report {
        self.0.retain(|_, client| client.until_ms > now_ms);
        let mut report = Report { epoch, clients: self.0.len() as u64, ..Report::default() };
        for client in self.0.values() {
            let behind = client.is_behind(epoch);
            let astray = !client.place.is_some_and(|place| place.leads_to(authority));
            report.behind += u64::from(behind);
            report.astray += u64::from(astray);
            report.unknown += u64::from(client.place.is_none());
            let why = match (behind, client.place) {
                (true, _) => format!("acts on epoch {}", client.acknowledged),
                (false, Some(Place::At(side))) if astray => format!("is connected to the {side}"),
                (false, None) => "names no database that is known".to_owned(),
                _ => continue,
            };
            if report.names.len() < MOST_NAMES {
                report.names.push(format!("{} {why}", client.name));
            }
        }
        report.names.sort();
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal<'a>(key: &'a str, place: Place, acknowledged: Option<u64>, until_ms: u64) -> Renewal<'a> {
        Renewal { key, name: key, place: Some(place), acknowledged, asks_each_time: false, until_ms }
    }

    #[test]
    fn a4_who_has_a_lease_and_has_not_acknowledged_is_behind_until_it_runs_out() {
        let mut clients = Clients::default();
        clients.renew(&renewal("old", Place::At(Side::Source), Some(3), 1_000), 3).unwrap();
        clients.renew(&renewal("new", Place::Through, None, 5_000), 4).unwrap();
        let report = clients.report(999, 4, Side::Source);
        assert_eq!((report.clients, report.behind, report.astray), (2, 1, 0));
        assert_eq!(report.names, ["old acts on epoch 3"]);
        assert_eq!(clients.report(1_000, 4, Side::Source), Report { epoch: 4, clients: 1, ..Report::default() });
    }

    #[test]
    fn a13_who_is_connected_to_the_other_side_is_astray() {
        let mut clients = Clients::default();
        clients.renew(&renewal("old", Place::At(Side::Source), Some(4), 1_000), 4).unwrap();
        clients.renew(&Renewal { place: None, ..renewal("lost", Place::Through, Some(4), 1_000) }, 4).unwrap();
        clients.renew(&renewal("new", Place::At(Side::Target), Some(4), 1_000), 4).unwrap();
        let report = clients.report(0, 4, Side::Target);
        assert_eq!((report.behind, report.astray, report.unknown), (0, 2, 1));
        assert_eq!(report.names, ["lost names no database that is known", "old is connected to the source"]);
        clients.leave("old");
        assert_eq!(clients.report(0, 4, Side::Target).clients, 2);
    }

    #[test]
    fn an_epoch_that_never_was_acknowledges_nothing() {
        let mut clients = Clients::default();
        clients.renew(&renewal("a", Place::Through, Some(3), 1_000), 4).unwrap();
        assert_eq!(clients.renew(&renewal("a", Place::Through, Some(9), 9_000), 4), Err(FutureEpoch { acknowledged: 9, newest: 4 }));
        assert_eq!(clients.report(500, 4, Side::Source).behind, 1);
        assert_eq!(clients.report(1_000, 4, Side::Source).clients, 0, "and prolongs nothing");
    }

    #[test]
    fn who_asks_before_each_write_is_there_and_never_behind() {
        let mut clients = Clients::default();
        let stock = Renewal { asks_each_time: true, ..renewal("stock", Place::At(Side::Source), None, 1_000) };
        clients.renew(&stock, 3).unwrap();
        let report = clients.report(0, 4, Side::Target);
        assert_eq!((report.clients, report.behind, report.astray), (1, 0, 1));
    }

    #[test]
    fn it_is_said_when_somebody_has_caught_up() {
        let mut clients = Clients::default();
        assert!(!clients.renew(&renewal("a", Place::Through, None, 1_000), 3).unwrap());
        assert!(!clients.renew(&renewal("a", Place::Through, Some(3), 1_000), 4).unwrap());
        assert!(clients.renew(&renewal("a", Place::Through, Some(4), 1_000), 4).unwrap());
        assert!(!clients.renew(&renewal("a", Place::Through, Some(4), 1_000), 4).unwrap());
    }

    #[test]
    fn a_request_that_was_overtaken_takes_no_acknowledgement_back_and_makes_none() {
        let mut clients = Clients::default();
        clients.renew(&renewal("a", Place::Through, Some(4), 1_000), 4).unwrap();
        clients.renew(&renewal("a", Place::Through, Some(3), 1_000), 4).unwrap();
        assert_eq!(clients.report(0, 4, Side::Source).behind, 0);
        clients.renew(&renewal("a", Place::Through, None, 1_000), 5).unwrap();
        assert_eq!(clients.report(0, 5, Side::Source).behind, 1, "its first request, which came late");
    }

    #[test]
    fn a_lease_is_never_cut_short() {
        let mut clients = Clients::default();
        clients.renew(&renewal("a", Place::Through, Some(3), 2_000), 3).unwrap();
        clients.renew(&renewal("a", Place::Through, Some(3), 1_000), 3).unwrap();
        assert_eq!(clients.report(1_500, 4, Side::Source).behind, 1);
    }
}
