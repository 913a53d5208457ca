//! A feature flag of Split: its definition in one environment, `kill` and `restore`, and what an SDK makes of it.

use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{Api, Reply, Request, TOKEN, ok};

/// Where the flag is.
pub(crate) const PATH: [&str; 9] =
    ["internal", "api", "v2", "splits", "ws", "e0d1fd30", "database-writes-enabled", "environments", "Production Default"];

/// The definition as the API shows it.
#[derive(Clone, PartialEq)]
pub(crate) struct Definition(pub(crate) Value);

impl Definition {
    /// One rule that serves `on` to these names.
    pub(crate) fn open_to(names: &[&str]) -> Self {
        let matcher = json!({ "negate": false, "type": "IN_LIST_STRING", "attribute": "database", "strings": names });
        let on = json!([{ "treatment": "on", "size": 100 }]);
        Self(json!({
            "name": PATH[6], "environment": { "id": "c31c3050", "name": PATH[8] }, "trafficType": { "id": "b1", "name": "user" },
            "killed": false, "treatments": [{ "name": "on", "configurations": "{\"color\":1}" }, { "name": "off" }],
            "defaultTreatment": "off", "baselineTreatment": "off", "trafficAllocation": 100,
            "rules": [{ "buckets": on, "condition": { "combiner": "AND", "matchers": [matcher] } }],
            "defaultRule": [{ "treatment": "off", "size": 100 }], "creationTime": 1, "lastUpdateTime": 2,
        }))
    }

    /// A whole definition; what is left out goes back to its default.
    fn replace(&mut self, body: &Value) {
        let names: Vec<_> = body["treatments"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["on", "off"]);
        let kept = ["name", "environment", "trafficType", "killed", "creationTime", "lastUpdateTime"];
        let mut new: Value = kept.into_iter().map(|key| (key.to_owned(), self.0[key].clone())).collect();
        for key in ["treatments", "defaultTreatment", "trafficAllocation", "rules", "defaultRule"] {
            new[key] = body[key].clone();
        }
        assert!(!new["defaultTreatment"].is_null() && !new["defaultRule"].is_null(), "{body}");
        self.0 = new;
    }

    fn treatment(&self, database: &str) -> &str {
        let at = &self.0;
        if at["killed"] == true {
            return at["defaultTreatment"].as_str().unwrap();
        }
        let listed = |one: &&Value| one["keys"].as_array().is_some_and(|keys| keys.contains(&json!("admin")));
        if let Some(treatment) = at["treatments"].as_array().unwrap().iter().find(listed) {
            return treatment["name"].as_str().unwrap();
        }
        let meets = |matcher: &Value| {
            let known = matcher["type"] == "IN_LIST_STRING" && matcher["attribute"] == "database";
            known && matcher["strings"].as_array().unwrap().contains(&json!(database)) != (matcher["negate"] == true)
        };
        let rules = at["rules"].as_array().unwrap();
        let matched = rules.iter().find(|rule| rule["condition"]["matchers"].as_array().unwrap().iter().all(meets));
        matched.map_or(&at["defaultRule"], |rule| &rule["buckets"])[0]["treatment"].as_str().unwrap()
    }
}

impl Api for Definition {
    fn lets_in(headers: &HeaderMap) -> bool {
        headers.get("authorization").is_some_and(|token| *token == *format!("Bearer {TOKEN}"))
    }

    fn complaint(status: u16) -> Value {
        json!({ "code": status, "message": format!("refused for {TOKEN}"), "details": "", "transactionId": "7b" })
    }

    fn answer(&mut self, request: &Request) -> Reply {
        assert_eq!(request.path[..PATH.len()], PATH);
        let below: Vec<_> = request.path[PATH.len()..].iter().map(String::as_str).collect();
        match (&request.method, &below[..]) {
            (&Method::GET, []) => {}
            (&Method::PUT, []) => self.replace(&request.body),
            (&Method::PUT, ["restore"]) => self.0["killed"] = json!(false),
            other => panic!("there is no {other:?}"),
        }
        ok(self.0.clone())
    }

    fn says(&self, database: &str) -> bool {
        self.treatment(database) == "on"
    }

    fn opened_by_hand(&mut self) {
        self.0["killed"] = json!(false);
        self.0["rules"] = json!([]);
        self.0["defaultRule"] = json!([{ "treatment": "on", "size": 100 }]);
    }
}
