//! Where everything stands, observed and not remembered: journal, both gates, the stream, traffic, and who is still there.

use cutover_core::{Phase, Side, State, Stream};
use cutover_postgres::{
    PgResult,
    connect::{Purpose, connect},
    coverage::{Coverage, LeftOut, left_out},
    follow::{self, Cause, Drift, StreamStatus},
    gate,
    sessions::{self, Clients},
};
use cutover_traffic::Endpoint;
use serde::Serialize;
use tokio_postgres::Client;

use crate::{Cutover, EngineResult, LastVerification};

/// Where a cutover stands.
#[derive(Debug, Serialize)]
pub struct Status {
    /// By the journal; none before it has begun.
    pub state: Option<State>,
    /// In words.
    pub phase: String,
    /// The next safe command.
    pub next: String,
    /// Both databases.
    pub sides: Vec<SideStatus>,
    /// The last verification of the sides as they are now; none where there was none.
    pub verified: Option<LastVerification>,
    /// The stream that flows, if one should.
    pub stream: Option<StreamStatus>,
    /// What the stream stumbles over, if it does.
    pub cause: Option<Cause>,
    /// What was defined at one side and not at the other.
    pub drift: Vec<Drift>,
    /// What stays at the source and is neither moved nor fenced, the largest first.
    pub left_out: Vec<LeftOut>,
    /// Where traffic goes.
    pub traffic: Vec<TrafficStatus>,
    /// What a person should look at.
    pub warnings: Vec<String>,
}

/// One database, as it is now.
#[derive(Debug, Serialize)]
pub struct SideStatus {
    /// Which.
    pub side: Side,
    /// Host and port.
    pub address: String,
    /// Why it can't be reached, if it can't.
    pub unreachable: Option<String>,
    /// Whether clients may write; none where no gate is installed.
    pub open: Option<bool>,
    /// The newest epoch that it has seen.
    pub epoch: Option<u64>,
    /// B10: sessions of others, by role and application.
    pub clients: Vec<Clients>,
}

/// One traffic adapter.
#[derive(Debug, Serialize)]
pub struct TrafficStatus {
    /// Its name.
    pub name: String,
    /// The side that it sends traffic to, where that can be told.
    pub points_at: Option<Side>,
    /// Whether it holds traffic.
    pub held: bool,
    /// In words, or why it can't be told.
    pub detail: String,
}

pub(crate) async fn status(cutover: &Cutover) -> EngineResult<Status> {
    let state = cutover.state().await?;
    let application = cutover.names.application("status");
    let [source, target] = [Side::Source, Side::Target].map(|side| (side, &cutover.plan.database(side).url));
    let purpose = Purpose::new(&application);
    let (source_client, target_client) = tokio::join!(connect(source.1, &purpose), connect(target.1, &purpose));
    let mut warnings = Vec::new();
    let sides = vec![
        side_status(Side::Source, source.1.address(), &source_client).await,
        side_status(Side::Target, target.1.address(), &target_client).await,
    ];
    let (mut stream, mut cause) = (None, None);
    let mut drift = Vec::new();
    if let (Some(state), Ok(source), Ok(target)) = (&state, &source_client, &target_client)
        && let Some(flowing) = flowing(state)
    {
        let (origin, destination) = if flowing == Stream::Forward { (source, target) } else { (target, source) };
        match follow::status(origin, destination, &cutover.names, flowing).await {
            Ok(found) => {
                if found.may_stumble() && found.slot != "missing" && found.slot != "lost" {
                    cause = follow::cause(origin, destination, &cutover.names, flowing).await.unwrap_or_else(|error| {
                        warnings.push(format!("why the {flowing} stream stands still can't be told: {error}"));
                        None
                    });
                }
                stream = Some(found);
            }
            Err(error) => warnings.push(format!("the {flowing} stream can't be looked at: {error}")),
        }
        match follow::drift(origin, destination).await {
            Ok(found) => drift = found,
            Err(error) => warnings.push(format!("the definitions can't be compared: {error}")),
        }
    }
    let filter = state.as_ref().map_or(&cutover.plan.tables.filter, |state| &state.filter);
    let left_out = match &source_client {
        Ok(source) => left_out(source, &Coverage::of(filter)).await,
        Err(_) => Ok(Vec::new()),
    };
    let left_out = left_out.unwrap_or_else(|error| {
        warnings.push(format!("what is left out can't be told: {error}"));
        Vec::new()
    });
    if let Some(Err(refused)) = state.as_ref().filter(|state| !state.ended()).map(|state| cutover.refuse_other_tables(state)) {
        warnings.push(refused.to_string());
    }
    let traffic = traffic(cutover).await;
    warnings.extend(contradictions(state.as_ref(), &sides, &traffic));
    Ok(Status {
        phase: state.as_ref().map_or_else(|| "not begun".to_owned(), |state| state.phase.describe()),
        next: next_command(state.as_ref()),
        state,
        sides,
        verified: cutover.known().await?.last,
        stream,
        cause,
        drift,
        left_out,
        traffic,
        warnings,
    })
}

/// The stream that should flow in this state.
pub(crate) fn flowing(state: &State) -> Option<Stream> {
    let following = matches!(
        state.phase,
        Phase::Following
            | Phase::Smoking(_)
            | Phase::Completed
            | Phase::Archived
            | Phase::Arming(_)
            | Phase::Armed(_)
            | Phase::Restoring(_)
    );
    let first = matches!(state.phase, Phase::Preparing { step } if step > cutover_core::Preparation::Follow);
    let kept = state.authority == Side::Source || state.shape.reverse;
    ((following || first) && kept).then(|| Stream::from_side(state.authority))
}

async fn side_status(side: Side, address: String, client: &PgResult<Client>) -> SideStatus {
    let mut status = SideStatus { side, address, unreachable: None, open: None, epoch: None, clients: Vec::new() };
    match client {
        Err(error) => status.unreachable = Some(error.to_string()),
        Ok(client) => {
            if let Ok(Some(_)) = gate::owner(client).await
                && let Ok(gate) = gate::state(client).await
            {
                status.open = Some(gate.open);
                status.epoch = Some(gate.epoch);
            }
            match sessions::clients(client).await {
                Ok(found) => status.clients = found,
                Err(error) => status.unreachable = Some(error.to_string()),
            }
        }
    }
    status
}

async fn traffic(cutover: &Cutover) -> Vec<TrafficStatus> {
    let endpoints: [Endpoint; 2] = [cutover.endpoint(Side::Source), cutover.endpoint(Side::Target)];
    let observed = cutover.fleet.observe(&endpoints).await;
    observed
        .into_iter()
        .map(|(name, observed)| match observed {
            Ok(seen) => TrafficStatus { name, points_at: seen.points_at, held: seen.held, detail: seen.detail },
            Err(error) => TrafficStatus { name, points_at: None, held: false, detail: error.report() },
        })
        .collect()
}

/// What does not fit together: two open gates, a closed authority, traffic that goes elsewhere.
fn contradictions(state: Option<&State>, sides: &[SideStatus], traffic: &[TrafficStatus]) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(state) = state.filter(|state| !state.ended() && state.switch().is_none()) else { return warnings };
    for side in sides {
        let authority = side.side == state.authority;
        match side.open {
            Some(true) if !authority => {
                warnings.push(format!("the {}'s gate is open, but the {} is in charge", side.side, state.authority));
            }
            Some(false) if authority => {
                warnings.push(format!("the {} is in charge, but its gate is closed: writes are refused", side.side));
            }
            _ => {}
        }
        if !authority && !side.clients.is_empty() && state.authority == Side::Target {
            let sessions: i64 = side.clients.iter().map(|client| client.sessions).sum();
            warnings.push(format!("{sessions} sessions of clients are still at the {}; their writes are refused there", side.side));
        }
    }
    for adapter in traffic {
        match adapter.points_at {
            Some(side) if side != state.authority => {
                warnings.push(format!("{} sends traffic to the {side}, but the {} is in charge", adapter.name, state.authority));
            }
            _ if adapter.held => warnings.push(format!("{} holds traffic, though no switch is under way", adapter.name)),
            _ => {}
        }
    }
    warnings
}

fn next_command(state: Option<&State>) -> String {
    let Some(state) = state else { return "cutover check, then cutover run --until ready".to_owned() };
    match (&state.phase, state.authority) {
        (Phase::Following, Side::Source) => "cutover run: switches to the target".to_owned(),
        (Phase::Following, Side::Target) if !state.shape.reverse => "cutover complete".to_owned(),
        (Phase::Completed, _) if !state.shape.reverse => "cutover retire --archive FILE".to_owned(),
        (Phase::Following, Side::Target) => "cutover complete, or cutover rollback --reason …".to_owned(),
        (Phase::Smoking(_), Side::Target) if !state.shape.reverse => "cutover run --until ready: tries the target again".to_owned(),
        (Phase::Smoking(_), Side::Target) => "cutover run --until ready: tries the target again; or cutover rollback --reason …".to_owned(),
        (Phase::Smoking(_), Side::Source) => format!(
            "cutover run --until ready: tries the source again; or cutover rollback --reason … --confirm {}: gives the copy up",
            state.plan.name
        ),
        (Phase::Restoring(_), Side::Source) => format!(
            "cutover run --until ready: restores the stream; or cutover rollback --reason … --confirm {}: gives the copy up",
            state.plan.name
        ),
        (Phase::Completed, _) => "cutover retire --archive FILE, or cutover rollback --reason …".to_owned(),
        (Phase::Retired | Phase::TornDown, _) => "nothing: it is over".to_owned(),
        (Phase::Preparing { .. }, _) => "cutover run --until ready: goes on with the preparation".to_owned(),
        _ => "cutover run --until ready: finishes or undoes what was begun".to_owned(),
    }
}
