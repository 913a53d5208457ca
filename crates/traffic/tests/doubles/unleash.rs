//! A flag of Unleash: its environment, with strategies, `on` and `off`, and what an SDK makes of it.

use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{Api, Reply, Request, TOKEN, ok};

/// Where the flag is.
pub(crate) const PATH: [&str; 8] =
    ["api", "admin", "projects", "default", "features", "database-writes-enabled", "environments", "production"];

/// The flag in one environment.
#[derive(Clone, PartialEq)]
pub(crate) struct Feature {
    pub(crate) enabled: bool,
    pub(crate) strategies: Vec<Value>,
    made: u64,
}

impl Feature {
    /// On, with one strategy constrained to these names.
    pub(crate) fn open_to(names: &[&str]) -> Self {
        let constraint = json!({
            "contextName": "database", "operator": "IN", "values": names, "inverted": false, "caseInsensitive": false,
        });
        let strategy = json!({
            "id": "ID", "name": "flexibleRollout", "title": null, "disabled": false, "sortOrder": 0, "constraints": [constraint],
            "parameters": { "groupId": PATH[5], "rollout": "100", "stickiness": "default" }, "segments": [], "variants": [],
        });
        Self { enabled: true, strategies: vec![strategy], made: 0 }
    }

    fn shown(&self) -> Value {
        json!({
            "name": PATH[5], "environment": PATH[7], "type": "production", "enabled": self.enabled, "sortOrder": 1, "variants": [],
            "strategies": self.strategies,
        })
    }

    fn with_id(strategy: &Value, id: &str) -> Value {
        let mut strategy = strategy.clone();
        strategy["id"] = json!(id);
        strategy
    }

    fn strategy(&mut self, request: &Request, id: &str) -> Reply {
        let Some(at) = self.strategies.iter().position(|strategy| strategy["id"] == id) else {
            return Reply::Json(404, Self::complaint(404));
        };
        if request.method == Method::DELETE {
            self.strategies.remove(at);
            return ok(Value::Null);
        }
        assert_eq!(request.method, Method::PUT);
        self.strategies[at] = Self::with_id(&request.body, id);
        ok(self.strategies[at].clone())
    }
}

impl Api for Feature {
    fn lets_in(headers: &HeaderMap) -> bool {
        headers.get("authorization").is_some_and(|token| token == TOKEN)
    }

    fn complaint(status: u16) -> Value {
        let name = match status {
            401 => "AuthenticationRequired",
            403 => "NoAccessError",
            404 => "NotFoundError",
            409 => "ConflictError",
            _ => "InternalError",
        };
        let message = format!("{name} for {TOKEN}");
        json!({ "id": "8f3ad8b2-…", "name": name, "message": message, "details": [{ "message": message }] })
    }

    fn answer(&mut self, request: &Request) -> Reply {
        assert_eq!(request.path[..PATH.len()], PATH);
        let below: Vec<_> = request.path[PATH.len()..].iter().map(String::as_str).collect();
        match (&request.method, &below[..]) {
            (&Method::GET, []) => return ok(self.shown()),
            (&Method::POST, ["on"]) => self.enabled = true,
            (&Method::POST, ["off"]) => self.enabled = false,
            (&Method::POST, ["strategies"]) => {
                self.made += 1;
                let strategy = Self::with_id(&request.body, &format!("made-{}", self.made));
                self.strategies.push(strategy.clone());
                return ok(strategy);
            }
            (_, ["strategies", id]) => return self.strategy(request, id),
            other => panic!("there is no {other:?}"),
        }
        ok(Value::Null)
    }

    /// Strategies add up; none at all is for everybody.
    fn says(&self, database: &str) -> bool {
        let meets = |constraint: &Value| {
            let listed = constraint["values"].as_array().unwrap().contains(&json!(database));
            constraint["contextName"] == "database" && constraint["operator"] == "IN" && listed != (constraint["inverted"] == true)
        };
        let lets_in = |strategy: &Value| {
            let whole = strategy["name"] == "default" || strategy["parameters"]["rollout"] != "0";
            let segments = strategy["segments"].as_array().is_some_and(|segments| !segments.is_empty());
            let constraints = strategy["constraints"].as_array().unwrap();
            strategy["disabled"] != true && whole && !segments && constraints.iter().all(meets)
        };
        self.enabled && (self.strategies.is_empty() || self.strategies.iter().any(lets_in))
    }

    fn opened_by_hand(&mut self) {
        self.enabled = true;
        self.strategies = vec![json!({ "id": "ID", "name": "default", "constraints": [], "parameters": {}, "segments": [] })];
    }
}
