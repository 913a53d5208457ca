//! All flags as flagd's own configuration, which its providers evaluate themselves.
//!
//! Each is [`Flags::evaluate`], asked for every database beforehand. Nothing else decides, and no share of anything is left
//! to a provider: those disagree about what falls into it.

use std::collections::BTreeMap;

use cutover_core::clients::{Context, Evaluation, Flags};
use serde_json::{Map, Value, json};

/// The configuration. What it allows it allows until this second of the wall clock begins.
pub(super) fn configuration(flags: &Flags<'_>, until_s: u64, metadata: Map<String, Value>) -> String {
    let spellings: Vec<String> = flags.places.spellings().into_keys().collect();
    let rules: Map<String, Value> = flags.names().into_iter().map(|name| (name.clone(), rule(flags, &name, &spellings, until_s))).collect();
    json!({ "$schema": "https://flagd.dev/schema/v0/flags.json", "flags": rules, "metadata": metadata }).to_string()
}

/// One flag: what holds at each database, else, and when nothing is known any more.
fn rule(flags: &Flags<'_>, name: &str, spellings: &[String], until_s: u64) -> Value {
    let mut variants = Map::new();
    let mut says = |flags: &Flags<'_>, database: Option<&str>| {
        let told = flags.evaluate(name, Context { database, key: None }).ok();
        told.map(|Evaluation { variant, value, .. }| {
            variants.insert(variant.clone(), json!(value));
            variant
        })
    };
    let over = says(&Flags { fresh: false, ..*flags }, None);
    let elsewhere = says(flags, None);
    let mut at: BTreeMap<Option<String>, Vec<&str>> = BTreeMap::new();
    for spelling in spellings {
        at.entry(says(flags, Some(spelling))).or_default().push(spelling);
    }
    let mut branches: Vec<Value> = Vec::new();
    for (variant, databases) in at.into_iter().filter(|(variant, _)| *variant != elsewhere) {
        branches.extend([json!({ "in": [{ "var": "database" }, databases] }), json!(variant)]);
    }
    branches.push(json!(elsewhere));
    // A rule even where there is nothing to tell apart: who finds none calls it static, and may keep it.
    let now = if branches.len() == 1 { branches.remove(0) } else { json!({ "if": branches }) };
    let rule = json!({ "if": [{ "<": [{ "var": "$flagd.timestamp" }, until_s] }, now, over] });
    json!({ "state": "ENABLED", "variants": variants, "defaultVariant": over, "targeting": rule })
}

#[cfg(test)]
mod tests {
    use cutover_core::{
        Route, Side, Writes,
        clients::{Place, Places, ShadowTable, Unit},
    };

    use super::*;

    #[test]
    fn a_rule_names_the_databases_and_the_second_at_which_it_is_over() {
        let names = [("old:5432/shop", Place::At(Side::Source)), ("new", Place::At(Side::Target)), ("pool", Place::Through)];
        let places = Places::of_names(names.map(|(name, place)| (name.to_owned(), place))).unwrap();
        let route = Route { epoch: 4, authority: Side::Source, writes: Writes::Open };
        let units = [Unit::of_switch(&route)];
        let flags = Flags { cutover: "shop", route, units: &units, fresh: true, places: &places };
        let told: Value = serde_json::from_str(&configuration(&flags, 1_700_000_000, Map::new())).unwrap();
        let expected = json!({
            "state": "ENABLED",
            "variants": { "off": false, "on": true },
            "defaultVariant": "off",
            "targeting": { "if": [
                { "<": [{ "var": "$flagd.timestamp" }, 1_700_000_000] },
                { "if": [{ "in": [{ "var": "database" }, ["old", "old/shop", "old:5432", "old:5432/shop", "pool"]] }, "on", "off"] },
                "off"
            ] }
        });
        assert_eq!(told["flags"]["database-writes-enabled"], expected);
        assert_eq!(told["flags"]["shop.write.permit"]["variants"], json!({ "none": "", "4": "4" }));
        let branches = |flag: &str, place: usize| told["flags"][flag]["targeting"]["if"][place].clone();
        assert_eq!([1, 2].map(|place| branches("shop.database.write", place)), ["source", "hold"]);
        assert_eq!([1, 2].map(|place| branches("shop.database.read", place)), ["source", "source"], "a rule all the same");
        // What depends on a key is left to the default in the application's code, and no share is ever pushed.
        let table = |target_reads| {
            let table = ShadowTable { salt: "shop.orders".to_owned(), stage: "test_10".to_owned(), epoch: 3, stale: false };
            Unit { name: "orders".to_owned(), target_reads, table: Some(table) }
        };
        for (share, expected) in [(0, json!("source")), (1_000, Value::Null), (10_000, json!("target"))] {
            let units = [table(share)];
            let told = configuration(&Flags { units: &units, ..flags }, 1_700_000_000, Map::new());
            assert!(!told.contains("fractional"), "{told}");
            let told: Value = serde_json::from_str(&told).unwrap();
            assert_eq!(told["flags"]["shop.orders.read"]["targeting"]["if"][1], expected, "{share}: {told}");
        }
        for closed in [Flags { fresh: false, ..flags }, Flags { route: Route { writes: Writes::Held, ..route }, ..flags }] {
            let told: Value = serde_json::from_str(&configuration(&closed, 1_700_000_000, Map::new())).unwrap();
            assert_eq!(told["flags"]["database-writes-enabled"]["variants"], json!({ "off": false }), "it can't be allowed");
        }
    }
}
