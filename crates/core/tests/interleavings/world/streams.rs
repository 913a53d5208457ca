//! Providers that evaluate rules themselves: who has a rule acts on it until it runs out, and acknowledges nothing.

use cutover_core::{
    Side, Writes,
    clients::{Moment, Pushed, Renewal, Who},
};

use super::{LEASE, Message, World};

/// Where the hands of the wall's clock were when the world began. Unit: milliseconds.
const WALL: u64 = 1_700_000_000_123;

/// A provider in an application's process, and the stream that a server tells it by.
pub(super) struct Provider {
    /// The server's process, and which of its streams.
    server: (usize, String),
    key: String,
    pushed: Pushed,
    sent: u64,
    /// What it evaluates.
    rule: Option<Rule>,
}

/// What a rule comes to: the database in charge may be written to until then.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    number: u64,
    epoch: u64,
    authority: Side,
    open: bool,
    until_s: u64,
}

impl Provider {
    pub(super) fn new() -> Self {
        Self { server: (0, String::new()), key: String::new(), pushed: Pushed::default(), sent: 0, rule: None }
    }
}

impl World {
    /// A provider asks another server, or the same anew. What it was told before it keeps.
    pub(super) fn connect(&mut self, provider: usize, server: usize) {
        self.made += 1;
        let rule = self.providers[provider].rule.map(|rule| Rule { number: 0, ..rule });
        let (key, server) = (format!("flagd {}", self.made), (server, self.servers[server].name.clone()));
        self.providers[provider] = Provider { server, key, pushed: Pushed::default(), sent: 0, rule };
    }

    /// The server tells its rules again, as it does when they change or last longer.
    pub(super) fn push(&mut self, provider: usize) {
        let (number, stream) = (provider, &mut self.providers[provider]);
        let at = &mut self.servers[stream.server.0];
        let Some(desk) = at.desk.as_mut().filter(|_| at.name == stream.server.1 && at.view.epoch > 0) else { return };
        let moment = Moment { wall_ms: self.now + WALL, steady_ms: self.now + at.clock };
        let acknowledged = Some(stream.pushed.acts_on(moment).unwrap_or(at.view.epoch));
        let renewal = Renewal { key: &stream.key, name: &stream.key, who: Who::Rules { acknowledged }, until_ms: 0 };
        let Ok(lent) = desk.lend(&renewal, moment.steady_ms) else { return };
        let fresh = moment.steady_ms < desk.relies_until_ms();
        let until_s = if fresh { (moment.wall_ms + lent.lease_ms.min(LEASE)) / 1_000 } else { 0 };
        let open = fresh && at.view.writes == Writes::Open;
        if open {
            stream.pushed.tell(at.view.epoch, moment, until_s);
        }
        stream.sent += 1;
        let rule = Rule { number: stream.sent, epoch: at.view.epoch, authority: at.view.authority, open, until_s };
        self.under_way.push(Message::Rule { provider: number, key: stream.key.clone(), rule });
    }

    /// A stream is in order: what was overtaken came before.
    pub(super) fn told(&mut self, provider: usize, key: &str, rule: Rule) {
        let provider = &mut self.providers[provider];
        if provider.key == key && provider.rule.is_none_or(|known| known.number < rule.number) {
            provider.rule = Some(rule);
        }
    }

    /// A1, A4, A15: an instance of the database in charge writes, if the rule lets it.
    pub(super) fn write_by_rule(&mut self, provider: usize) {
        let Some(rule) = self.providers[provider].rule.filter(|rule| rule.open && (self.now + WALL) / 1_000 < rule.until_s) else { return };
        let route = *self.journal.iter().find(|route| route.epoch == rule.epoch).unwrap();
        assert_eq!((route.authority, route.writes), (rule.authority, Writes::Open), "by a rule of epoch {}", rule.epoch);
        assert!(rule.epoch >= self.heard, "a write by a rule of epoch {}, after everybody had heard of {}", rule.epoch, self.heard);
        self.by_rule += 1;
    }
}
