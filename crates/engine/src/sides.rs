//! The driver's connections: one to each side, made anew when it broke, and never to another server than the journal's.

use cutover_core::{Identity, Plan, Side};
use cutover_postgres::{
    PgError, PgResult,
    connect::{Purpose, connect},
    gate,
    identity::identity,
    names::Names,
};
use tokio_postgres::Client;

/// Connections to both sides.
pub(crate) struct Sides<'a> {
    plan: &'a Plan,
    application: String,
    expected: [Option<Identity>; 2],
    clients: [Option<Client>; 2],
}

impl<'a> Sides<'a> {
    pub(crate) fn new(plan: &'a Plan, names: &Names) -> Self {
        Self { plan, application: names.application("driver"), expected: [None, None], clients: [None, None] }
    }

    /// From now on a side must be this database of this server.
    pub(crate) fn expect(&mut self, side: Side, expected: &Identity) {
        self.expected[at(side)] = Some(expected.clone());
    }

    /// The connection to a side, checked when it was made.
    pub(crate) async fn client(&mut self, side: Side) -> PgResult<&mut Client> {
        let slot = &mut self.clients[at(side)];
        if slot.as_ref().is_none_or(Client::is_closed) {
            *slot = Some(open(self.plan, &self.application, side, self.expected[at(side)].as_ref()).await?);
        }
        slot.as_mut().ok_or_else(|| PgError::Mismatch(format!("no connection to the {side}")))
    }

    /// Both connections at once, `from` first.
    pub(crate) async fn both(&mut self, first: Side) -> PgResult<(&mut Client, &mut Client)> {
        self.client(first).await?;
        self.client(first.other()).await?;
        let [source, target] = &mut self.clients;
        match (source.as_mut(), target.as_mut()) {
            (Some(source), Some(target)) if first == Side::Source => Ok((source, target)),
            (Some(source), Some(target)) => Ok((target, source)),
            _ => Err(PgError::Mismatch("a connection was lost".to_owned())),
        }
    }

    /// Gives up on a connection that may still be busy with something that was given up.
    pub(crate) fn drop_clients(&mut self) {
        self.clients = [None, None];
    }
}

fn at(side: Side) -> usize {
    usize::from(side == Side::Target)
}

async fn open(plan: &Plan, application: &str, side: Side, expected: Option<&Identity>) -> PgResult<Client> {
    let url = &plan.database(side).url;
    let client = connect(url, &Purpose::new(application)).await?;
    if let Some(expected) = expected {
        let found = identity(&client, url).await?;
        if !found.same_database(expected) {
            return Err(PgError::Mismatch(format!(
                "{} is not the {side} of this cutover: it is database {} of the server {}, the journal says {} of {}",
                url.address(),
                found.database,
                found.system_identifier,
                expected.database,
                expected.system_identifier
            )));
        }
    }
    if gate::owner(&client).await?.is_some() {
        gate::let_pass(&client, "driver").await?;
    }
    Ok(client)
}
