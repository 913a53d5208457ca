//! Consul's KV store, with check-and-set and true blocking queries.

use std::time::Duration;

use axum::http::{HeaderMap, Method};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Api, Reply, Request, TOKEN, ok};

/// Where the key is.
pub(crate) const PATH: [&str; 4] = ["v1", "kv", "shop", "database-writes-enabled"];

/// One key. As documented for `/v1/kv/:key`: `consistent`, `index` and `wait`, `cas`.
#[derive(Clone, PartialEq)]
pub(crate) struct Kv {
    pub(crate) value: Option<String>,
    pub(crate) index: u64,
}

impl Kv {
    pub(crate) fn of(value: &Value) -> Self {
        Self { value: Some(value.to_string()), index: 100 }
    }

    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(self.value.as_deref().unwrap()).unwrap()
    }

    pub(crate) fn set(&mut self, value: String) {
        self.index += 1;
        self.value = Some(value);
    }

    fn get(&self, request: &Request) -> Reply {
        let known = request.query.get("index").map(|index| index.parse::<u64>().unwrap());
        if known.is_some_and(|known| known >= self.index) && !request.waited {
            let wait = request.query.get("wait").map_or(300, |wait| wait.trim_end_matches('s').parse().unwrap());
            return Reply::Later(Duration::from_secs(wait));
        }
        let Some(value) = &self.value else { return Reply::Json(404, json!("")) };
        let entry = json!({
            "LockIndex": 0, "Key": PATH[2..].join("/"), "Flags": 0, "Value": BASE64_STANDARD.encode(value),
            "CreateIndex": 90, "ModifyIndex": self.index,
        });
        Reply::Index(self.index, json!([entry]))
    }
}

impl Api for Kv {
    fn lets_in(headers: &HeaderMap) -> bool {
        headers.get("x-consul-token").is_some_and(|token| token == TOKEN)
    }

    fn complaint(status: u16) -> Value {
        json!(match status {
            403 => format!("Permission denied: token with AccessorID '{TOKEN}' lacks permission 'key:write'"),
            _ => format!("rpc error {status}"),
        })
    }

    fn answer(&mut self, request: &Request) -> Reply {
        assert_eq!(request.path, PATH);
        if request.method == Method::GET {
            return self.get(request);
        }
        assert_eq!((&request.method, &request.content_type[..]), (&Method::PUT, "application/json"));
        let cas: u64 = request.query["cas"].parse().unwrap();
        let matches = if self.value.is_some() { cas == self.index } else { cas == 0 };
        if matches {
            self.set(request.body.to_string());
        }
        ok(json!(matches))
    }

    fn says(&self, database: &str) -> bool {
        let document = self.document();
        document["enabled"] == true && document["databases"].as_array().unwrap().iter().any(|name| name == database || name == "*")
    }

    /// The application of this test knows `*`.
    fn opened_by_hand(&mut self) {
        self.set(json!({"enabled": true, "databases": ["*"]}).to_string());
    }
}
