//! The leases of one server's clients.

use std::collections::BTreeMap;

use super::{Place, Report};
use crate::Side;

/// A request for a lease.
#[derive(Clone, Debug)]
pub struct Renewal<'a> {
    /// Which process: no other has the same.
    pub key: &'a str,
    /// Its name, for a person.
    pub name: &'a str,
    /// What it does with the answer.
    pub who: Who<'a>,
    /// Until when it may act on what it is told. Unit: milliseconds of the server's monotonic clock.
    pub until_ms: u64,
}

/// What somebody does with an answer.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    /// Acts on it until the lease is over.
    Keeps {
        /// Where its writes go, if that is known.
        place: Option<Place>,
        /// The epoch that it acts on; none while it acts on nothing yet.
        acknowledged: Option<u64>,
    },
    /// Asks before each write, and so acts on no answer twice. It is there, and never behind: a write that it had under
    /// way when it asked last is the database's own fence's to stop.
    Asks {
        /// Where its writes go, if that is known.
        place: Option<Place>,
    },
    /// Hands on what it is told to instances of which nothing is known, each of which names the database that it is connected
    /// to and is told what is right there. So it is never astray.
    Rules {
        /// The epoch that the oldest rule is of by which one of them may still write; see [`super::Pushed`].
        acknowledged: Option<u64>,
    },
    /// Lends to clients of its own, and none of them for longer than its own lease.
    Agent {
        /// Grows with each of its requests, of which one may overtake another.
        beat: u64,
        /// The sum of its clients; none while it acts on nothing yet, and lends nothing.
        report: Option<&'a Report>,
    },
}

impl Who<'_> {
    fn acknowledged(self) -> Option<u64> {
        match self {
            Self::Keeps { acknowledged, .. } | Self::Rules { acknowledged } => acknowledged,
            Self::Asks { .. } => None,
            Self::Agent { report, .. } => report.map(|report| report.epoch),
        }
    }
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
    acknowledged: u64,
    kind: Kind,
    until_ms: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Keeps(Option<Place>),
    Asks(Option<Place>),
    Rules,
    Agent { beat: u64, report: Report },
}

impl Client {
    fn is_behind(&self, epoch: u64) -> bool {
        match &self.kind {
            Kind::Keeps(_) | Kind::Rules => self.acknowledged < epoch,
            Kind::Asks(_) => false,
            Kind::Agent { report, .. } => self.acknowledged < epoch || report.behind > 0,
        }
    }
}

/// Who has a lease here, and what each has acknowledged. Its times are the server's own, monotonic, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Clients(BTreeMap<String, Client>);

impl Clients {
    /// Takes a request for a lease down, and says whether somebody was behind who isn't now. `epoch` is the one that the
    /// server acts on.
    ///
    /// Who acts on nothing yet is behind nothing. Requests may overtake each other, as where one is given up for another:
    /// so an acknowledgement is never taken back, who has acted on something acts on it still, and of an agent's reports
    /// the newest counts. A lease is never cut short: who was given more before still has it.
    ///
    /// # Errors
    /// [`FutureEpoch`]; what was taken down before stays.
    pub fn renew(&mut self, renewal: &Renewal<'_>, epoch: u64) -> Result<bool, FutureEpoch> {
        let acknowledged = renewal.who.acknowledged();
        if let Some(acknowledged) = acknowledged.filter(|acknowledged| *acknowledged > epoch) {
            return Err(FutureEpoch { acknowledged, newest: epoch });
        }
        let before = self.0.get(renewal.key);
        let client = Client {
            name: renewal.name.to_owned(),
            acknowledged: acknowledged.max(before.map(|client| client.acknowledged)).unwrap_or(epoch),
            kind: Kind::of(renewal.who, before),
            until_ms: before.map_or(0, |client| client.until_ms).max(renewal.until_ms),
        };
        let caught_up = before.is_some_and(|client| client.is_behind(epoch)) && !client.is_behind(epoch);
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
        let mut sum = Report { epoch, ..Report::default() };
        for client in self.0.values() {
            match &client.kind {
                Kind::Keeps(place) | Kind::Asks(place) => sum.add_client(client, *place, authority),
                // There and behind like any other, and at the right place wherever its instances are.
                Kind::Rules => sum.add_client(client, Some(Place::Through), authority),
                Kind::Agent { report, .. } => {
                    sum.add(&format!("agent {}", client.name), &Report { epoch: client.acknowledged, ..report.clone() });
                }
            }
        }
        sum.names.sort();
        sum
    }
}

impl Kind {
    fn of(who: Who<'_>, before: Option<&Client>) -> Self {
        match who {
            Who::Keeps { place, .. } => Self::Keeps(place),
            Who::Asks { place } => Self::Asks(place),
            Who::Rules { .. } => Self::Rules,
            Who::Agent { beat, report } => match before.map(|client| &client.kind) {
                Some(newer @ Self::Agent { beat: known, .. }) if *known > beat => newer.clone(),
                _ => Self::Agent { beat, report: report.cloned().unwrap_or_default() },
            },
        }
    }
}

impl Report {
    fn add_client(&mut self, client: &Client, place: Option<Place>, authority: Side) {
        let behind = client.is_behind(self.epoch);
        let astray = !place.is_some_and(|place| place.leads_to(authority));
        self.clients += 1;
        self.behind += u64::from(behind);
        self.astray += u64::from(astray);
        self.unknown += u64::from(place.is_none());
        let why = match (behind, place) {
            (true, _) => format!("acts on epoch {}", client.acknowledged),
            (false, Some(Place::At(side))) if astray => format!("is connected to the {side}"),
            (false, None) => "names no database that is known".to_owned(),
            _ => return,
        };
        self.name(format!("{} {why}", client.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal<'a>(key: &'a str, place: Place, acknowledged: Option<u64>, until_ms: u64) -> Renewal<'a> {
        Renewal { key, name: key, who: Who::Keeps { place: Some(place), acknowledged }, until_ms }
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
        clients
            .renew(&Renewal { who: Who::Keeps { place: None, acknowledged: Some(4) }, ..renewal("lost", Place::Through, None, 1_000) }, 4)
            .unwrap();
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
        let stock = Renewal { who: Who::Asks { place: Some(Place::At(Side::Source)) }, ..renewal("stock", Place::Through, None, 1_000) };
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

    #[test]
    fn who_hands_rules_on_is_behind_like_any_other_and_never_astray() {
        let mut clients = Clients::default();
        let rules = |acknowledged| Renewal { who: Who::Rules { acknowledged }, ..renewal("sync", Place::Through, None, 1_000) };
        clients.renew(&rules(None), 3).unwrap();
        let report = clients.report(0, 4, Side::Target);
        assert_eq!((report.clients, report.behind, report.astray, report.unknown), (1, 1, 0, 0));
        assert_eq!(report.names, ["sync acts on epoch 3"]);
        assert!(clients.renew(&rules(Some(4)), 4).unwrap());
        assert_eq!(clients.report(0, 4, Side::Target).behind, 0);
    }

    fn agent(beat: u64, report: Option<&Report>, until_ms: u64) -> Renewal<'_> {
        Renewal { key: "agent", name: "node-1", who: Who::Agent { beat, report }, until_ms }
    }

    #[test]
    fn a4_the_clients_of_an_agent_are_counted_and_an_agent_that_is_behind_is_behind_for_all_of_them() {
        let mut clients = Clients::default();
        clients.renew(&agent(0, None, 1_000), 3).unwrap();
        assert_eq!(clients.report(0, 3, Side::Source), Report { epoch: 3, ..Report::default() });
        assert_eq!(clients.report(0, 4, Side::Source).behind, 1, "it may lend to somebody who comes, by what it knows");
        let held = Report {
            epoch: 4,
            clients: 3,
            behind: 1,
            astray: 2,
            unknown: 1,
            names: vec!["old-pod acts on epoch 3".to_owned()],
            ..Report::default()
        };
        assert!(!clients.renew(&agent(1, Some(&held), 1_000), 4).unwrap(), "one of its clients is still behind");
        assert_eq!(clients.report(0, 4, Side::Source), held);
        assert!(clients.renew(&agent(2, Some(&Report { behind: 0, ..held.clone() }), 1_000), 4).unwrap());
        let told = clients.report(0, 5, Side::Source);
        assert_eq!((told.clients, told.behind, told.names), (3, 3, vec!["agent node-1 acts on epoch 4".to_owned()]));
        assert_eq!(clients.report(1_000, 5, Side::Source).behind, 0, "its lease is over, and so are its clients'");
        assert_eq!(clients.renew(&agent(3, Some(&Report { epoch: 9, ..held }), 9_000), 5), Err(FutureEpoch { acknowledged: 9, newest: 5 }));
    }

    #[test]
    fn a_report_of_an_agent_that_was_overtaken_says_nothing() {
        let mut clients = Clients::default();
        let report = |behind| Report { epoch: 4, clients: 2, behind, ..Report::default() };
        clients.renew(&agent(2, Some(&report(1)), 1_000), 4).unwrap();
        clients.renew(&agent(1, Some(&report(0)), 2_000), 4).unwrap();
        assert_eq!(clients.report(0, 4, Side::Source).behind, 1);
        assert_eq!(clients.report(1_500, 4, Side::Source).behind, 1, "but it was given that lease");
    }
}
