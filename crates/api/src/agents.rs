//! How an agent keeps its own lease: `POST /v1/agents`.
//!
//! An agent lends to clients of its own what it was lent, and none of them for longer. It asks as a client does
//! ([`PermitRequest`](crate::PermitRequest)), and tells with each request the sum of its clients: so whoever waits for an
//! acknowledgement waits for them too.

use serde::{Deserialize, Serialize};

use crate::{Side, Unit, Writes};

/// What an agent asks with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentRequest {
    /// Which agent, for a person: a node's name. At most 200 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub instance: String,
    /// Made up by the process when it starts. At most 64 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub incarnation: String,
    /// Grows with each request of this process: of two that overtake each other the later one counts.
    pub beat: u64,
    /// The sum of its clients. None while it knows nothing yet, and lends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientSum>,
    /// The newest revision that it knows; the answer comes at once if there is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The `tables` of the newest answer; the next comes at once if there are others. None waits for no change of theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// How long the answer may be held back while nothing changes. The server may take less. Unit: milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}

/// The sum of an agent's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClientSum {
    /// The epoch that the agent acts on: it lends nothing under an older one any more.
    pub epoch: u64,
    /// Clients with a lease. At most ten million.
    #[cfg_attr(feature = "openapi", schema(maximum = 10_000_000))]
    pub clients: u64,
    /// How many of them have not acknowledged that epoch yet.
    #[cfg_attr(feature = "openapi", schema(maximum = 10_000_000))]
    pub behind: u64,
    /// How many don't write to the side in charge, as far as is known.
    #[cfg_attr(feature = "openapi", schema(maximum = 10_000_000))]
    pub astray: u64,
    /// How many of those name no database that is known.
    #[cfg_attr(feature = "openapi", schema(maximum = 10_000_000))]
    pub unknown: u64,
    /// Some of those that are behind or astray, with why. At most ten, of at most 300 characters.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 10))]
    pub names: Vec<String>,
}

/// The answer: what holds, and for how long the agent may rely on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentPermit {
    /// The cutover's name.
    pub cutover: String,
    /// Grows with everything that happens; what is newest wins.
    pub revision: u64,
    /// Grows with each change of the route: the fencing token.
    pub epoch: u64,
    /// Whose data counts.
    pub authority: Side,
    /// Whether anybody may write.
    pub writes: Writes,
    /// Where the reads of each unit go. An older server names none: then all reads go to the authority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
    /// What tells one state of the tables among the units from another; it neither grows nor falls. 0: there are none.
    #[serde(default, skip_serializing_if = "crate::permits::is_none")]
    pub tables: u64,
    /// The names under which instances know the databases.
    pub places: Vec<PlaceName>,
    /// How long this may be relied on, from when the request was sent. 0: not at all. Unit: milliseconds.
    pub lease_ms: u64,
}

/// A name under which instances know a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlaceName {
    /// `host`, `host:port` or `host:port/database`.
    pub name: String,
    /// Where writes go from there. None: through something that always leads to the side in charge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
}
