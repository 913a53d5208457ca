//! The lease protocol: `POST /v1/permits`.
//!
//! A client asks again and again, each time for a lease. The server answers at once if something has changed since the
//! revision that the client names, else after `wait_ms`: so a change reaches each client at once, and one request serves
//! for news, renewal and acknowledgement. The lease counts from the instant when the client *sent* the request, by its
//! own monotonic clock; the server counts it from when the request arrived, which is later: whatever the network does,
//! the client stops first.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names of HTTP headers.
pub mod header {
    /// Names a request in the server's log; the server makes one up where the client gives none.
    pub const REQUEST_ID: &str = "x-request-id";
}

/// One of the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where the data was at first.
    Source,
    /// Where it goes.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// Whether clients may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Writes {
    /// At the authority.
    Open,
    /// Nowhere.
    Held,
}

/// What moves on its own: in a switch the whole database, under the name `database`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unit {
    /// Its name. A key's bucket depends on it.
    pub name: String,
    /// The share of its reads that goes to the target. Unit: basis points.
    #[cfg_attr(feature = "openapi", schema(maximum = 10_000))]
    pub target_reads: u16,
    /// Of a table that moves to its shadow, inside its own database: what that says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<ShadowTable>,
}

/// A table whose target is its shadow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShadowTable {
    /// The salt of its keys' buckets. That of any other unit is `<cutover>.<unit>`.
    pub salt: String,
    /// Where it stands.
    pub stage: String,
    /// Grows with each change of that.
    pub epoch: u64,
    /// Whether its database has not been heard of for a lease: its reads go where they went.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// What a client asks with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PermitRequest {
    /// Who asks, for a person: a pod's name. At most 200 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub instance: String,
    /// Made up by the process when it starts, so that two that have the same name are two. At most 64 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    pub incarnation: String,
    /// The database that this process is connected to, as it knows it: `host`, `host:port`, `host:port/database` or a
    /// URL, of which the password is thrown away. At most 500 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 500, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The epoch that it acts on: no write of its is under way under an older one. None while it acts on nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<u64>,
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

/// The answer: what holds, and for how long it may be relied on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Permit {
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
    #[serde(default, skip_serializing_if = "is_none")]
    pub tables: u64,
    /// The name of the stage, for a person.
    pub stage: String,
    /// Whether this client may write to the database that it named, under this epoch.
    pub write: bool,
    /// Why not, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How long this may be relied on, from when the request was sent. 0: not at all. Unit: milliseconds.
    pub lease_ms: u64,
}

/// Where there are no tables.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
pub(crate) fn is_none(tables: &u64) -> bool {
    *tables == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_an_older_client_and_an_answer_of_a_newer_server_are_understood() {
        let request: PermitRequest = serde_json::from_str(r#"{"instance":"a","incarnation":"b"}"#).unwrap();
        assert_eq!((request.acknowledged, request.revision, request.tables, request.wait_ms), (None, None, None, 0));
        let answer = r#"{"cutover":"shop","revision":7,"epoch":3,"authority":"target","writes":"open","stage":"target","write":true,
            "lease_ms":1500,"since":"later"}"#;
        let permit: Permit = serde_json::from_str(answer).unwrap();
        assert_eq!((permit.authority, permit.writes, permit.write, permit.lease_ms), (Side::Target, Writes::Open, true, 1500));
        assert_eq!((permit.units, permit.tables), (vec![], 0), "an older server names none");
    }
}
