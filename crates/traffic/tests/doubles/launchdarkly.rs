//! A boolean flag of LaunchDarkly: `GET` and semantic `PATCH` of `/api/v2/flags/PROJECT/FLAG`, and what an SDK makes of it.

use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{Api, Reply, Request, TOKEN, ok};

/// Where the flag is.
pub(crate) const PATH: [&str; 5] = ["api", "v2", "flags", "default", "database-writes-enabled"];

const YES: &str = "e432f62b-55f6-49dd-a02f-eb24acf39d05";
const NO: &str = "a00bf58d-d252-476c-b915-15a74becacb4";

/// The flag in the environment `production`, as the API shows it: variations by their places.
#[derive(Clone, PartialEq)]
pub(crate) struct Flag {
    pub(crate) kind: &'static str,
    pub(crate) production: Value,
}

impl Flag {
    /// On, with one rule over these names.
    pub(crate) fn open_to(names: &[&str]) -> Self {
        let clause = json!({
            "_id": "c1", "contextKind": "user", "attribute": "database", "op": "in", "negate": false, "values": names,
        });
        let production = json!({
            "on": true, "archived": false, "version": 3, "_environmentName": "Production", "offVariation": 1, "fallthrough": { "variation": 1 },
            "targets": [], "contextTargets": [], "prerequisites": [],
            "rules": [{ "_id": "r1", "variation": 0, "trackEvents": false, "clauses": [clause] }],
        });
        Self { kind: "boolean", production }
    }

    fn shown(&self) -> Value {
        json!({
            "name": "Database writes", "kind": self.kind, "key": PATH[4], "_version": 7, "archived": false, "temporary": false,
            "variations": [{ "_id": YES, "value": true }, { "_id": NO, "value": false }],
            "defaults": { "onVariation": 0, "offVariation": 1 },
            "environments": { "production": self.production },
        })
    }

    fn follow(&mut self, instruction: &Value) {
        let place = |id: &Value| match id.as_str() {
            Some(YES) => json!(0),
            Some(NO) => json!(1),
            other => panic!("there is no variation {other:?}"),
        };
        let at = &mut self.production;
        match instruction["kind"].as_str().unwrap() {
            "turnFlagOn" => at["on"] = json!(true),
            "turnFlagOff" => at["on"] = json!(false),
            "updateOffVariation" => at["offVariation"] = place(&instruction["variationId"]),
            "updateFallthroughVariationOrRollout" => at["fallthrough"] = json!({ "variation": place(&instruction["variationId"]) }),
            "replacePrerequisites" => at["prerequisites"] = instruction["prerequisites"].clone(),
            "replaceTargets" => {
                at["targets"] = instruction["targets"].clone();
                at["contextTargets"] = json!([]);
            }
            "replaceRules" => {
                let rules = instruction["rules"].as_array().unwrap().iter().map(|rule| {
                    let mut rule = rule.clone();
                    rule["variation"] = place(&rule["variationId"]);
                    rule.as_object_mut().unwrap().remove("variationId");
                    rule
                });
                at["rules"] = rules.collect();
            }
            other => panic!("there is no instruction {other}"),
        }
    }

    /// What a user in whose context the database has this name is served: the place of a variation.
    fn serves(&self, database: &str) -> Value {
        let at = &self.production;
        if at["on"] == false {
            return at["offVariation"].clone();
        }
        let targeted =
            at["targets"].as_array().unwrap().iter().find(|target| target["values"].as_array().unwrap().contains(&json!("admin")));
        let matches = |clause: &Value| {
            let known = clause["attribute"] == "database" && clause["contextKind"] == "user" && clause["op"] == "in";
            known && clause["values"].as_array().unwrap().contains(&json!(database)) != (clause["negate"] == true)
        };
        let rules = at["rules"].as_array().unwrap();
        let matched = rules.iter().find(|rule| rule["clauses"].as_array().unwrap().iter().all(matches));
        targeted.or(matched).unwrap_or(&at["fallthrough"])["variation"].clone()
    }
}

impl Api for Flag {
    fn lets_in(headers: &HeaderMap) -> bool {
        headers.get("authorization").is_some_and(|token| token == TOKEN)
    }

    fn complaint(status: u16) -> Value {
        let code = match status {
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            409 => "optimistic_locking_error",
            429 => "rate_limited",
            _ => "internal_service_error",
        };
        json!({ "code": code, "message": format!("{code} for {TOKEN}") })
    }

    fn answer(&mut self, request: &Request) -> Reply {
        assert_eq!(request.path, PATH);
        if request.method == Method::GET {
            assert_eq!(request.query["env"], "production");
            return ok(self.shown());
        }
        assert_eq!(request.method, Method::PATCH);
        assert_eq!(request.content_type, "application/json; domain-model=launchdarkly.semanticpatch");
        assert_eq!((&request.body["environmentKey"], &request.query["ignoreConflicts"][..]), (&json!("production"), "true"));
        request.body["instructions"].as_array().unwrap().iter().for_each(|instruction| self.follow(instruction));
        ok(self.shown())
    }

    fn says(&self, database: &str) -> bool {
        self.serves(database) == 0
    }

    fn opened_by_hand(&mut self) {
        self.production["on"] = json!(true);
        self.production["rules"] = json!([]);
        self.production["fallthrough"] = json!({ "variation": 0 });
    }
}
