//! What a client knows, for everybody in the process who asks.

use std::sync::Arc;

use cutover_api::{Permit, Side, Writes};

use crate::{Reason, task::Failure};

/// What holds, as far as this process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Grows with each change: the fencing token.
    pub epoch: u64,
    /// Whose data counts. In a switch this is where all reads go.
    pub authority: Side,
    /// Whether anybody may write. Whether *this process* may is what [`Client::write`](crate::Client::write) says.
    pub writes: Writes,
    /// The name of the stage, for a person.
    pub stage: Arc<str>,
}

/// What the task tells the handles. Sent after each change of the gate, so that whoever waits for it looks again.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) route: Option<Route>,
    /// Why the newest answer refuses writes; none if it allows them.
    pub(crate) refusal: Option<Reason>,
    /// When the lease runs out, in nanoseconds of the client's clock.
    pub(crate) until: u64,
    /// What went wrong since the newest answer.
    pub(crate) failure: Option<Arc<Failure>>,
    pub(crate) closed: bool,
}

impl View {
    /// Why a write is refused at an instant.
    pub(crate) fn reason(&self, now: u64) -> Reason {
        let why = || self.failure.as_ref().map(ToString::to_string);
        match &self.refusal {
            _ if self.closed => Reason::Closed,
            _ if self.route.is_none() => Reason::NotConnected { why: why() },
            _ if self.until <= now => Reason::CutOff { why: why().or_else(|| self.words()) },
            Some(reason) => reason.clone(),
            // Earlier writes hold this one up, or the gate moves just now.
            None => Reason::Held,
        }
    }

    /// Takes a newer answer over.
    pub(crate) fn learn(&mut self, permit: &Permit, until: u64) {
        let Permit { epoch, authority, writes, .. } = *permit;
        let route = Route { epoch, authority, writes, stage: permit.stage.as_str().into() };
        if self.route.as_ref() != Some(&route) {
            self.route = Some(route);
        }
        let why = || permit.why.clone().unwrap_or_else(|| "the server does not say why".to_owned());
        self.refusal = match writes {
            _ if permit.write => None,
            Writes::Held => Some(Reason::Held),
            Writes::Open => Some(Reason::WrongDatabase { why: why() }),
        };
        self.until = until;
        self.failure = None;
    }

    fn words(&self) -> Option<String> {
        match &self.refusal {
            Some(Reason::WrongDatabase { why }) => Some(why.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(writes: Writes, write: bool) -> Permit {
        let why = (!write).then(|| "so it is".to_owned());
        let (cutover, stage) = ("shop".to_owned(), "source".to_owned());
        Permit { cutover, revision: 1, epoch: 1, authority: Side::Source, writes, units: vec![], tables: 0, stage, write, why, lease_ms: 1 }
    }

    #[test]
    fn a_refusal_says_why() {
        let mut view = View::default();
        assert_eq!(view.reason(0), Reason::NotConnected { why: None });
        view.learn(&permit(Writes::Open, true), 10);
        assert_eq!(view.reason(10), Reason::CutOff { why: None });
        view.learn(&permit(Writes::Held, false), 20);
        assert_eq!(view.reason(19), Reason::Held);
        view.learn(&permit(Writes::Open, false), 20);
        assert_eq!(view.reason(19), Reason::WrongDatabase { why: "so it is".to_owned() });
        assert_eq!(view.reason(20), Reason::CutOff { why: Some("so it is".to_owned()) }, "a server that lost touch gives no lease");
        view.closed = true;
        assert_eq!(view.reason(0), Reason::Closed);
    }
}
