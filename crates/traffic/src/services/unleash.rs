//! A flag of Unleash: one strategy, constrained to the names.
//!
//! `/api/admin/projects/PROJECT/features/FLAG/environments/ENVIRONMENT`, with `on`, `off` and `strategies` below it. A
//! strategy is made right while the flag is off, or changed as a whole; it is turned on last.

use std::path::Path;

use async_trait::async_trait;
use cutover_core::{
    clients::Wanted,
    plan::{FlagService, UnleashFlag},
};
use reqwest::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Service,
    http::{Call, Http},
    shown::{Shown, To, texts},
};
use crate::{Problem, TrafficError};

pub(super) struct Unleash {
    name: String,
    http: Http,
    path: Vec<String>,
    flag: String,
    attribute: String,
}

impl Unleash {
    pub(super) fn new(service: &FlagService, place: &UnleashFlag, folder: &Path) -> Result<Self, TrafficError> {
        let UnleashFlag { project, environment, flag, attribute } = place.clone();
        let name = format!("unleash {project}/{flag} in {environment}");
        let http = Http::new(&name, service, folder, AUTHORIZATION, "")?;
        let path = ["api", "admin", "projects", &project, "features", &flag, "environments", &environment];
        Ok(Self { name, http, path: path.map(str::to_owned).to_vec(), flag, attribute })
    }

    fn call(&self, method: Method, below: &[&str]) -> Call {
        Call::new(method, self.path.iter().map(String::as_str).chain(below.iter().copied()))
    }

    fn strategy(&self, wanted: &Wanted) -> Value {
        let constraint = json!({
            "contextName": self.attribute, "operator": "IN", "values": wanted.databases, "inverted": false, "caseInsensitive": false,
        });
        json!({
            "name": "flexibleRollout",
            "title": "cutover",
            "disabled": false,
            "parameters": { "rollout": "100", "stickiness": "default", "groupId": self.flag },
            "constraints": [constraint],
            "segments": [],
            "variants": [],
        })
    }

    async fn environment(&self, deadline: Instant) -> Result<Value, TrafficError> {
        let call = self.call(Method::GET, &[]);
        let environment = self.http.call(&call, deadline).await?;
        if environment["enabled"].is_boolean() && environment["strategies"].is_array() {
            return Ok(environment);
        }
        Err(self.http.lacks(&call, "`enabled` and `strategies` in its answer"))
    }

    /// Whom the flag would be open to if it were on. Strategies add up: one that lets everybody in is enough.
    fn to(&self, environment: &Value) -> To {
        let all = strategies(environment);
        if all.is_empty() {
            return To::Everybody;
        }
        let enabled: Vec<_> = all.iter().filter(|strategy| strategy["disabled"] != true).collect();
        let [strategy] = enabled[..] else { return To::Others(format!("{} strategies of its own", enabled.len())) };
        let whole = strategy["name"] == "default" || (strategy["name"] == "flexibleRollout" && strategy["parameters"]["rollout"] == "100");
        let segments = strategy["segments"].as_array().map_or(0, Vec::len);
        match strategy["constraints"].as_array().map(Vec::as_slice) {
            None | Some([]) if whole && segments == 0 => To::Everybody,
            Some([constraint]) if whole && segments == 0 => self.constrained(constraint),
            _ => To::Others("a strategy of its own".to_owned()),
        }
    }

    fn constrained(&self, constraint: &Value) -> To {
        let ours = constraint["contextName"] == self.attribute.as_str()
            && constraint["operator"] == "IN"
            && constraint["inverted"] != true
            && constraint["caseInsensitive"] != true;
        let values = texts(&constraint["values"]).filter(|_| ours);
        values.map_or_else(|| To::Others("a constraint of its own".to_owned()), To::Databases)
    }

    async fn opens(&self, wanted: &Wanted, deadline: Instant) -> Result<(), TrafficError> {
        let environment = self.environment(deadline).await?;
        let ids: Vec<_> = strategies(&environment).iter().filter_map(|strategy| strategy["id"].as_str()).collect();
        let ours = match ids.first() {
            Some(id) => self.call(Method::PUT, &["strategies", id]),
            None => self.call(Method::POST, &["strategies"]),
        };
        self.http.call(&ours.body(self.strategy(wanted)), deadline).await?;
        for id in ids.iter().skip(1) {
            // One that is gone by now is as good.
            self.http.find(&self.call(Method::DELETE, &["strategies", id]), deadline).await?;
        }
        if environment["enabled"] != true {
            self.http.call(&self.call(Method::POST, &["on"]), deadline).await?;
        }
        Ok(())
    }
}

fn strategies(environment: &Value) -> &[Value] {
    environment["strategies"].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[async_trait]
impl Service for Unleash {
    fn name(&self) -> &str {
        &self.name
    }

    fn http(&self) -> &Http {
        &self.http
    }

    fn calls(&self, wanted: &Wanted) -> Vec<String> {
        let show = |method, below: &[&str]| self.http.show(&self.call(method, below));
        if !wanted.open() {
            return vec![show(Method::POST, &["off"]), show(Method::GET, &[])];
        }
        let strategy = self.strategy(wanted);
        let made = |method, below: &[&str]| self.http.show(&self.call(method, below).body(strategy.clone()));
        vec![
            show(Method::GET, &[]),
            made(Method::PUT, &["strategies", "ID"]),
            format!("or, where it has no strategy: {}", self.http.show(&self.call(Method::POST, &["strategies"]))),
            format!("for each further strategy: {}", show(Method::DELETE, &["strategies", "ID"])),
            show(Method::POST, &["on"]),
        ]
    }

    async fn read(&self, deadline: Instant) -> Result<Shown, TrafficError> {
        let environment = self.environment(deadline).await?;
        Ok(Shown { on: environment["enabled"] != false, to: self.to(&environment), record: None })
    }

    async fn write(&self, wanted: &Wanted, deadline: Instant) -> Result<(), TrafficError> {
        if wanted.open() {
            return self.opens(wanted, deadline).await;
        }
        self.http.call(&self.call(Method::POST, &["off"]), deadline).await?;
        Ok(())
    }

    async fn check(&self, _wanted: &Wanted, deadline: Instant) -> Result<Vec<Problem>, TrafficError> {
        self.environment(deadline).await?;
        Ok(Vec::new())
    }
}
