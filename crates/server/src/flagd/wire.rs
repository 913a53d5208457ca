//! What flagd's clients say and are told: the messages of `flagd.evaluation.v1` and `v2` and of `flagd.sync.v1`, by their
//! numbers on the wire.
//!
//! The two versions of evaluation differ only in which fields may be left out of an answer. Ours leave out none, so one set serves both.

use std::collections::BTreeMap;

use prost_types::Struct;

/// Asks for one flag.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResolveRequest {
    #[prost(string, tag = "1")]
    pub(crate) flag_key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) context: Option<Struct>,
}

/// A boolean's value. It is there also where it is false.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BooleanResponse {
    #[prost(bool, optional, tag = "1")]
    pub(crate) value: Option<bool>,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
    #[prost(string, optional, tag = "3")]
    pub(crate) variant: Option<String>,
    #[prost(message, optional, tag = "4")]
    pub(crate) metadata: Option<Struct>,
}

/// A text's value. It is there also where it is empty.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StringResponse {
    #[prost(string, optional, tag = "1")]
    pub(crate) value: Option<String>,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
    #[prost(string, optional, tag = "3")]
    pub(crate) variant: Option<String>,
    #[prost(message, optional, tag = "4")]
    pub(crate) metadata: Option<Struct>,
}

/// Asks for all flags.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResolveAllRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) context: Option<Struct>,
}

/// All flags by their names.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResolveAllResponse {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) flags: BTreeMap<String, AnyFlag>,
    #[prost(message, optional, tag = "2")]
    pub(crate) metadata: Option<Struct>,
}

/// A flag among others.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnyFlag {
    #[prost(string, tag = "1")]
    pub(crate) reason: String,
    #[prost(string, optional, tag = "2")]
    pub(crate) variant: Option<String>,
    #[prost(oneof = "AnyValue", tags = "3, 4")]
    pub(crate) value: Option<AnyValue>,
    #[prost(message, optional, tag = "7")]
    pub(crate) metadata: Option<Struct>,
}

/// Its value; 5 and 6 are numbers and objects, which no flag of ours is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum AnyValue {
    #[prost(bool, tag = "3")]
    Flag(bool),
    #[prost(string, tag = "4")]
    Text(String),
}

/// Something that happened.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EventStreamResponse {
    /// `provider_ready`, `configuration_change` or `keep_alive`.
    #[prost(string, tag = "1")]
    pub(crate) r#type: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) data: Option<Struct>,
}

/// Asks for the rules, once or as they change.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RulesRequest {
    #[prost(string, tag = "1")]
    pub(crate) provider_id: String,
    #[prost(string, tag = "2")]
    pub(crate) selector: String,
}

/// All flags as flagd's configuration, in JSON. Number 2 is for what belongs into every context, of which we have nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SyncFlagsResponse {
    #[prost(string, tag = "1")]
    pub(crate) flag_configuration: String,
}

/// The same, once.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FetchAllFlagsResponse {
    #[prost(string, tag = "1")]
    pub(crate) flag_configuration: String,
}

/// What belongs into every context.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GetMetadataResponse {
    #[prost(message, optional, tag = "2")]
    pub(crate) metadata: Option<Struct>,
}

/// A message without any field that counts.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Nothing {}
