//! A feature of Flagsmith with the overrides of its segments, and what an SDK makes of it for an identity.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{Api, Reply, Request, TOKEN, ok};

/// The feature's id, its environment's key and its project.
const FEATURE: u64 = 17;
const ENVIRONMENT: &str = "B62qaMZNwfiqT76p38ggrQ";
const PROJECT: u64 = 5;

/// The feature in the environment, as `GET` shows it, and the project's segments.
#[derive(Clone, PartialEq)]
pub(crate) struct Feature {
    pub(crate) state: Value,
    pub(crate) segments: BTreeMap<u64, Value>,
}

impl Feature {
    /// On for the first of these segments, each with its names.
    pub(crate) fn open_to_first(segments: [(u64, &[&str]); 2]) -> Self {
        let state = json!({
            "environment_default": { "enabled": false, "value": null, "variants": [] },
            "segment_overrides": [{ "segment": { "id": segments[0].0 }, "priority": 0, "enabled": true, "value": null, "variants": [] }],
        });
        let segments = segments.map(|(id, names)| {
            let condition = json!({ "id": 9, "operator": "IN", "property": "database", "value": names.join(",") });
            let any = json!({ "id": 8, "type": "ANY", "rules": [], "conditions": [condition] });
            let rules = json!([{ "id": 7, "type": "ALL", "rules": [any], "conditions": [] }]);
            (id, json!({ "id": id, "name": format!("at-{id}"), "project": PROJECT, "rules": rules }))
        });
        Self { state, segments: segments.into() }
    }

    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(self.state["environment_default"]["value"]["value"].as_str().unwrap()).unwrap()
    }

    /// Replaces each property that is given, whole.
    fn put(&mut self, body: &Value) -> Reply {
        let default = &body["environment_default"];
        assert_eq!(default["value"]["type"], "string");
        self.state["environment_default"] = json!({ "enabled": default["enabled"], "value": default["value"], "variants": [] });
        let overrides = body["segment_overrides"].as_array().unwrap().iter().map(|one| {
            assert!(self.segments.contains_key(&one["segment"]["id"].as_u64().unwrap()), "{one}");
            json!({ "segment": one["segment"], "priority": one["priority"], "enabled": one["enabled"], "value": null, "variants": [] })
        });
        self.state["segment_overrides"] = overrides.collect();
        ok(self.state.clone())
    }

    fn segment(&self, id: &str) -> Reply {
        let segment = id.parse().ok().and_then(|id: u64| self.segments.get(&id));
        segment.map_or_else(|| Reply::Json(404, Self::complaint(404)), |segment| ok(segment.clone()))
    }
}

impl Api for Feature {
    fn lets_in(headers: &HeaderMap) -> bool {
        headers.get("authorization").is_some_and(|token| *token == *format!("Api-Key {TOKEN}"))
    }

    fn complaint(status: u16) -> Value {
        json!({ "detail": format!("status {status} for {TOKEN}") })
    }

    fn answer(&mut self, request: &Request) -> Reply {
        let (feature, project) = (FEATURE.to_string(), PROJECT.to_string());
        let path: Vec<_> = request.path.iter().map(String::as_str).collect();
        match (&request.method, &path[..]) {
            (&Method::GET, ["api", "v1", "environments", ENVIRONMENT, "featurestates", ""]) => {
                let known = request.query["feature_name"] == "database-writes-enabled";
                let state = json!({
                    "id": 4, "feature": FEATURE, "enabled": self.state["environment_default"]["enabled"], "environment": 3, "identity": null,
                    "feature_segment": null, "feature_state_value": self.state["environment_default"]["value"]["value"],
                });
                let results = if known { vec![state] } else { vec![] };
                ok(json!({ "count": results.len(), "next": null, "previous": null, "results": results }))
            }
            (&Method::GET, ["api", "v1", "environments", ENVIRONMENT, ""]) => {
                ok(json!({ "id": 3, "name": "Production", "api_key": ENVIRONMENT, "project": PROJECT }))
            }
            (&Method::GET, ["api", "v1", "projects", id, "segments", segment, ""]) if *id == project => self.segment(segment),
            (method, ["api", "__future__", "environments", ENVIRONMENT, "features", id, ""]) if *id == feature => match *method {
                Method::GET => ok(self.state.clone()),
                Method::PUT => self.put(&request.body),
                _ => panic!("there is no {method}"),
            },
            other => panic!("there is no {other:?}"),
        }
    }

    /// Of an identity's segments with an override, the one with the lowest number counts.
    fn says(&self, database: &str) -> bool {
        let member = |one: &&Value| {
            let segment = &self.segments[&one["segment"]["id"].as_u64().unwrap()];
            let conditions = segment["rules"][0]["rules"][0]["conditions"].as_array().unwrap();
            conditions.iter().any(|condition| condition["value"].as_str().unwrap().split(',').any(|name| name == database))
        };
        let overrides = self.state["segment_overrides"].as_array().unwrap();
        let counts = overrides.iter().filter(member).min_by_key(|one| one["priority"].as_u64());
        counts.unwrap_or(&self.state["environment_default"])["enabled"] == true
    }

    fn opened_by_hand(&mut self) {
        self.state["environment_default"]["enabled"] = json!(true);
        self.state["segment_overrides"] = json!([]);
    }
}
