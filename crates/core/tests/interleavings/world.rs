//! Clients, servers, an agent, a journal, and the messages between them.

mod streams;

use std::collections::BTreeMap;

use cutover_core::{
    Route, Side, Writes,
    clients::{Desk, Flags, Heard, Listeners, Place, Places, Renewal, Report, Who},
    plan::DatabaseUrl,
};

use self::streams::{Provider, Rule};
use crate::Step;

const LEASE: u64 = 1_000;

struct Client {
    incarnation: u64,
    side: Side,
    /// What it was told by the newest epoch.
    told: Option<Told>,
    /// The epoch of a write under way.
    writing: Option<u64>,
    clock: u64,
}

#[derive(Clone, Copy)]
struct Told {
    epoch: u64,
    may_write: bool,
    by_agent: bool,
    /// By its own clock.
    until: u64,
}

/// Agents too: they hear of routes from servers, not from the journal.
struct Server {
    agent: bool,
    name: String,
    /// None while it is not running.
    desk: Option<Desk>,
    /// The route that answers are by: the newest that it knows.
    view: Route,
    beat: u64,
    /// Whether a report of its is under way.
    writing: bool,
    cut: bool,
    clock: u64,
}

enum Message {
    Request {
        client: usize,
        incarnation: u64,
        server: usize,
        acknowledged: Option<u64>,
        sent: u64,
    },
    Answer {
        client: usize,
        incarnation: u64,
        epoch: u64,
        may_write: bool,
        by_agent: bool,
        lease_ms: u64,
        sent: u64,
    },
    /// An agent asks a server for a lease of its own, with the sum of its clients; and is answered.
    Renewal {
        agent: usize,
        name: String,
        server: usize,
        beat: u64,
        report: Option<Report>,
        sent: u64,
    },
    Renewed {
        agent: usize,
        name: String,
        route: Route,
        lease_ms: u64,
        sent: u64,
    },
    /// A server tells a provider of rules.
    Rule {
        provider: usize,
        key: String,
        rule: Rule,
    },
    /// A report on its way into the store; the first of a server that begins.
    Row {
        server: usize,
        name: String,
        beat: u64,
        report: Report,
        asked_at: u64,
        first: bool,
    },
}

/// How far the driver is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The hold is in the journal, and not everybody has heard.
    Freezing,
    /// Everybody has: the fence would go up now.
    Frozen,
    /// Past the commit point, before the opening.
    Opening,
}

pub(crate) struct World {
    now: u64,
    journal: Vec<Route>,
    rows: BTreeMap<String, Heard>,
    clients: Vec<Client>,
    servers: Vec<Server>,
    providers: Vec<Provider>,
    under_way: Vec<Message>,
    listeners: Listeners,
    stage: Stage,
    /// The newest epoch that everybody was said to have heard of.
    pub(crate) heard: u64,
    made: u64,
    places: Places,
    pub(crate) admitted: u64,
    /// Of these, by what an agent told, and by a rule.
    pub(crate) by_agent: u64,
    pub(crate) by_rule: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let [source, target] = ["postgres://a@old/shop", "postgres://a@new/shop"].map(|url| DatabaseUrl::parse(url).unwrap());
        let client = |side, clock| Client { incarnation: 0, side, told: None, writing: None, clock };
        let server = |clock, agent| {
            let (name, view) = (String::new(), Route::default());
            Server { agent, name, desk: None, view, beat: 0, writing: false, cut: false, clock }
        };
        Self {
            now: 0,
            journal: vec![Route { epoch: 1, authority: Side::Source, writes: Writes::Open }],
            rows: BTreeMap::new(),
            clients: vec![client(Side::Source, 7), client(Side::Source, 1_000_000), client(Side::Target, 500)],
            servers: vec![server(123, false), server(99_999, false), server(5_000, true)],
            providers: vec![Provider::new(), Provider::new()],
            under_way: Vec::new(),
            listeners: Listeners::default(),
            stage: Stage::Open,
            heard: 0,
            made: 0,
            places: Places::new([&source, &target], []).unwrap(),
            admitted: 0,
            by_agent: 0,
            by_rule: 0,
        }
    }

    fn route(&self) -> Route {
        *self.journal.last().unwrap()
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match *step {
            Step::Wait(ms) => self.now += ms,
            Step::Ask { client, server } => self.ask(client % self.clients.len(), server % self.servers.len()),
            Step::Arrive(message) if !self.under_way.is_empty() => {
                let message = self.under_way.swap_remove(message % self.under_way.len());
                self.arrive(message);
            }
            Step::Lose(message) if !self.under_way.is_empty() => {
                let message = self.under_way.swap_remove(message % self.under_way.len());
                // What the store was asked for may fail, and the server learns it.
                if let Message::Row { server, name, .. } = message {
                    self.end_report(server, &name);
                }
            }
            Step::Arrive(_) | Step::Lose(_) => {}
            Step::Write(client) => self.write(client % self.clients.len()),
            Step::EndWrite(client) => {
                let client = client % self.clients.len();
                self.clients[client].writing = None;
            }
            Step::Connect { provider, server } => self.connect(provider % self.providers.len(), server % self.servers.len()),
            Step::Push(provider) => self.push(provider % self.providers.len()),
            Step::WriteByRule(provider) => self.write_by_rule(provider % self.providers.len()),
            Step::Replace(client) => self.replace(client % self.clients.len()),
            Step::Read(server) => self.read(server % self.servers.len()),
            Step::Report(server) => self.report(server % self.servers.len()),
            Step::Crash(server) => {
                let server = server % self.servers.len();
                self.servers[server].desk = None;
            }
            Step::Start(server) => self.start(server % self.servers.len()),
            Step::Cut(server) => {
                let server = server % self.servers.len();
                self.servers[server].cut = !self.servers[server].cut;
            }
            Step::Drive => self.drive(),
            Step::Undo => {
                if matches!(self.stage, Stage::Freezing | Stage::Frozen) {
                    self.append(self.route().authority, Writes::Open);
                    self.stage = Stage::Open;
                }
            }
        }
    }

    fn ask(&mut self, client: usize, server: usize) {
        let Client { incarnation, told, writing, clock, .. } = &self.clients[client];
        // No write of its is under way under an older epoch than the one that it says it acts on.
        let acknowledged = told.map(|told| writing.map_or(told.epoch, |writing| writing.min(told.epoch)));
        let (incarnation, sent) = (*incarnation, self.now + clock);
        self.under_way.push(Message::Request { client, incarnation, server, acknowledged, sent });
    }

    fn arrive(&mut self, message: Message) {
        match message {
            Message::Request { client, incarnation, server, acknowledged, sent } => {
                let side = self.clients[client].side;
                let name = if side == Side::Source { "old" } else { "new" };
                let (places, at) = (&self.places, &mut self.servers[server]);
                let (now, view) = (self.now + at.clock, at.view);
                let Some(desk) = &mut at.desk else { return };
                let key = format!("{client}-{incarnation}");
                let who = Who::Keeps { place: Some(Place::At(side)), acknowledged };
                let renewal = Renewal { key: &key, name: &key, who, until_ms: 0 };
                let Ok(lent) = desk.lend(&renewal, now) else { return };
                let fresh = now < desk.relies_until_ms();
                let may_write = Flags { cutover: "shop", route: view, units: &[], fresh, places }.refusal(Some(name)).is_none();
                let answer = Message::Answer {
                    client,
                    incarnation,
                    epoch: view.epoch,
                    may_write,
                    by_agent: at.agent,
                    lease_ms: lent.lease_ms,
                    sent,
                };
                self.under_way.push(answer);
            }
            Message::Answer { client, incarnation, epoch, may_write, by_agent, lease_ms, sent } => {
                let client = &mut self.clients[client];
                let stale = client.told.is_some_and(|told| told.epoch > epoch);
                if client.incarnation == incarnation && !stale {
                    client.told = Some(Told { epoch, may_write, by_agent, until: sent + lease_ms });
                }
            }
            Message::Renewal { agent, name, server, beat, report, sent } => {
                let at = &mut self.servers[server];
                let (now, route) = (self.now + at.clock, at.view);
                let Some(desk) = &mut at.desk else { return };
                let who = Who::Agent { beat, report: report.as_ref() };
                let Ok(lent) = desk.lend(&Renewal { key: &name, name: &name, who, until_ms: 0 }, now) else { return };
                self.under_way.push(Message::Renewed { agent, name, route, lease_ms: lent.lease_ms, sent });
            }
            Message::Renewed { agent, name, route, lease_ms, sent } => {
                let at = &mut self.servers[agent];
                let Some(desk) = at.desk.as_mut().filter(|_| at.name == name && route.epoch >= at.view.epoch) else { return };
                at.view = route;
                desk.renewed(route, sent + lease_ms);
            }
            Message::Rule { provider, key, rule } => self.told(provider, &key, rule),
            Message::Row { server, name, beat, report, asked_at, first } => {
                self.rows.insert(name.clone(), Heard { server: name.clone(), beat, lease_ms: LEASE, report });
                let route = self.route();
                let (now, at) = (self.now, &mut self.servers[server]);
                if at.name == name && first {
                    // Only now it reads the journal.
                    at.view = route;
                    at.desk = Some(Desk::new(LEASE, asked_at, route, now + at.clock));
                } else if let Some(desk) = at.desk.as_mut().filter(|_| at.name == name) {
                    desk.reported(asked_at, now + at.clock);
                }
                self.end_report(server, &name);
            }
        }
    }

    /// The server learns that its report was written, or was not.
    fn end_report(&mut self, server: usize, name: &str) {
        let at = &mut self.servers[server];
        if at.name == name {
            at.writing = false;
        }
    }

    /// A1, A4, A15: what is checked of each write that is admitted.
    fn write(&mut self, client: usize) {
        let Client { told, side, clock, .. } = &self.clients[client];
        let Some(told) = told.filter(|told| told.may_write && self.now + clock < told.until) else { return };
        let route = *self.journal.iter().find(|route| route.epoch == told.epoch).unwrap();
        assert_eq!(route.authority, *side, "a write at the wrong database, under epoch {}", told.epoch);
        assert_eq!(route.writes, Writes::Open, "a write while nobody may, under epoch {}", told.epoch);
        assert!(told.epoch >= self.heard, "a write under epoch {}, after everybody had heard of {}", told.epoch, self.heard);
        self.clients[client].writing = Some(told.epoch);
        self.admitted += 1;
        self.by_agent += u64::from(told.by_agent);
    }

    fn replace(&mut self, client: usize) {
        let client = &mut self.clients[client];
        *client =
            Client { incarnation: client.incarnation + 1, side: client.side.other(), told: None, writing: None, clock: client.clock + 31 };
    }

    fn read(&mut self, server: usize) {
        let route = self.route();
        let at = &mut self.servers[server];
        if at.cut || at.agent {
            return;
        }
        if let Some(desk) = &mut at.desk {
            // What answers are by comes first.
            at.view = route;
            desk.see(route, self.now + at.clock);
        }
    }

    fn report(&mut self, server: usize) {
        let at = &mut self.servers[server];
        if at.agent {
            return self.renew(server);
        }
        let now = self.now + at.clock;
        let Some(desk) = at.desk.as_mut().filter(|_| !at.cut && !at.writing) else { return };
        at.beat += 1;
        at.writing = true;
        let (name, beat, report) = (at.name.clone(), at.beat, desk.report(now));
        self.under_way.push(Message::Row { server, name, beat, report, asked_at: now, first: false });
    }

    /// An agent asks either server. Of several requests one may overtake another.
    fn renew(&mut self, agent: usize) {
        let at = &mut self.servers[agent];
        let sent = self.now + at.clock;
        let Some(desk) = at.desk.as_mut().filter(|_| !at.cut) else { return };
        at.beat += 1;
        let report = (at.view.epoch > 0).then(|| desk.report(sent));
        let (name, beat, server) = (at.name.clone(), at.beat, usize::from(at.beat.is_multiple_of(5)));
        self.under_way.push(Message::Renewal { agent, name, server, beat, report, sent });
    }

    fn start(&mut self, server: usize) {
        let at = &mut self.servers[server];
        if at.desk.is_some() || at.cut {
            return;
        }
        self.made += 1;
        if at.agent {
            (at.name, at.view) = (format!("agent {}", self.made), Route { epoch: 0, writes: Writes::Held, ..Route::default() });
            at.desk = Some(Desk::of_agent(LEASE));
            return;
        }
        (at.name, at.beat, at.writing) = (format!("server {}", self.made), 0, true);
        let (name, asked_at) = (at.name.clone(), self.now + at.clock);
        self.under_way.push(Message::Row { server, name, beat: 0, report: Report::default(), asked_at, first: true });
    }

    fn append(&mut self, authority: Side, writes: Writes) {
        let epoch = self.route().epoch + 1;
        self.journal.push(Route { epoch, authority, writes });
    }

    fn drive(&mut self) {
        let Route { epoch, authority, .. } = self.route();
        let rows: Vec<Heard> = self.rows.values().cloned().collect();
        let verdict = self.listeners.judge(self.now, &rows, epoch);
        match self.stage {
            Stage::Open => {
                self.append(authority, Writes::Held);
                self.stage = Stage::Freezing;
            }
            Stage::Freezing if verdict.report.behind == 0 => {
                self.heard = epoch;
                self.stage = Stage::Frozen;
            }
            Stage::Frozen => {
                self.append(authority.other(), Writes::Held);
                self.stage = Stage::Opening;
            }
            // A13, A16: nobody is left who is connected to the other side, and everybody acts on the newest epoch.
            Stage::Opening if verdict.report.behind == 0 && verdict.report.astray == 0 => {
                self.heard = epoch;
                self.append(authority, Writes::Open);
                self.stage = Stage::Open;
            }
            Stage::Freezing | Stage::Opening => {}
        }
    }
}
