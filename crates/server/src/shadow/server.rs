//! A server of shadow tables and nothing else: it needs no plan and no journal, and drives nothing.

use std::net::SocketAddr;

use axum::{Json, extract::State};
use cutover_core::{
    Side,
    clients::{Place, Places},
};
use cutover_engine::shadow::ShadowTables;
use serde_json::{Value, json};

use super::{Tell, ask, attend, take};
use crate::{
    ServerError,
    front::Front,
    house::{Door, House, Options},
    openapi,
    problem::{NotAllowed, Refusal},
};

/// A server of shadow tables that listens.
pub struct TablesServer {
    house: House,
}

impl TablesServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.house.address()
    }

    /// Takes no new request, lets those under way end, and returns when they have, or their time is over.
    ///
    /// # Errors
    /// If it had ended before, of itself.
    pub async fn close(self) -> Result<(), ServerError> {
        self.house.close().await
    }

    /// Returns when it has ended.
    ///
    /// # Errors
    /// What ended it.
    pub async fn ended(&mut self) -> Result<(), ServerError> {
        self.house.ended().await
    }
}

/// Starts a server of the tables of one database, under the database's name.
///
/// # Errors
/// See [`ServerError`]; the database has to answer.
pub async fn serve_tables(mut tables: ShadowTables, tell: Tell, options: Options) -> Result<TablesServer, ServerError> {
    let (door, manners) = Door::open(&options).await?;
    let places = Places::of_names([(tables.place(), Place::At(Side::Source))]).map_err(ServerError::Place)?;
    let front = Front::of_tables(tables.name(), places, manners);
    front.board.open(&tables, front.lease, tell);
    take(&front, ask(&mut tables).await?, None);
    let mut house = door.welcome(&front, openapi::of_tables(&front))?;
    attend(&mut house, &front, tables, None);
    Ok(TablesServer { house })
}

/// Where the tables stand; there is no switch.
#[utoipa::path(get, path = "/v1/status", tag = "look", responses((status = 200, description = "Where the tables stand", body = Object), NotAllowed))]
pub(crate) async fn status(State(front): State<Front>) -> Result<Json<Value>, Refusal> {
    Ok(Json(json!({ "shadow_tables": front.board.look()? })))
}

/// The same as lines for a person, in a JSON string.
#[utoipa::path(get, path = "/v1/status/text", tag = "look", responses(
    (status = 200, description = "Where the tables stand, as `cutover sql status` tells it", body = String, content_type = "application/json"),
    NotAllowed
))]
pub(crate) async fn status_text(State(front): State<Front>) -> Json<String> {
    Json(front.board.text().unwrap_or_default())
}
