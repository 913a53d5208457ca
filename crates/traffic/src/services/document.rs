//! The document that tells all of the route, where a service has room for one.

use cutover_core::{Side, clients::Wanted};
use serde_json::{Value, json};

use super::shown::Record;

/// What is written. Epochs of another cutover are no measure for ours, so its name is in it.
pub(super) fn document(cutover: &str, wanted: &Wanted) -> Value {
    let route = wanted.route;
    json!({
        "cutover": cutover,
        "enabled": wanted.open(),
        "epoch": route.epoch,
        "authority": route.authority,
        "writes": route.writes,
        "databases": wanted.databases,
    })
}

/// The route in a document that any cutover wrote.
pub(super) fn record(document: &Value) -> Option<Record> {
    let authority = Side::BOTH.into_iter().find(|side| document["authority"] == json!(side))?;
    Some(Record { epoch: document["epoch"].as_u64()?, authority })
}

/// The epoch there, if this cutover wrote it and a newer driver did.
pub(super) fn newer(document: &Value, cutover: &str, wanted: &Wanted) -> Option<u64> {
    document["epoch"].as_u64().filter(|epoch| document["cutover"] == cutover && *epoch > wanted.route.epoch)
}
