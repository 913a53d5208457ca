//! A feature of Flagsmith: off for all, and on for one of two segments, which are made beforehand.
//!
//! `GET` and `PUT /api/__future__/environments/KEY/features/ID/`, which Flagsmith calls experimental. It replaces default and
//! overrides in one go, whether the environment has versions of features or not; the older calls do neither. The
//! feature's value in the environment is a document that tells all of the route.

use std::{collections::BTreeSet, path::Path};

use async_trait::async_trait;
use cutover_core::{
    Side,
    clients::{Names, Wanted},
    plan::{FlagService, FlagsmithFlag},
};
use reqwest::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Service,
    document::{document, newer, record},
    fault::ServiceFault,
    http::{Call, Http},
    shown::{Shown, To},
};
use crate::{Problem, TrafficError};

pub(super) struct Flagsmith {
    name: String,
    http: Http,
    place: FlagsmithFlag,
    names: Names,
    cutover: String,
}

impl Flagsmith {
    pub(super) fn new(
        service: &FlagService,
        place: &FlagsmithFlag,
        (cutover, names): (&str, Names),
        folder: &Path,
    ) -> Result<Self, TrafficError> {
        let name = format!("flagsmith {} in {}", place.flag, place.environment);
        let http = Http::new(&name, service, folder, AUTHORIZATION, "Api-Key ")?;
        Ok(Self { name, http, place: place.clone(), names, cutover: cutover.to_owned() })
    }

    fn states(&self) -> Call {
        let path = ["api", "v1", "environments", &self.place.environment, "featurestates", ""];
        Call::new(Method::GET, path).query("feature_name", &self.place.flag)
    }

    fn feature(&self, method: Method, id: &str) -> Call {
        Call::new(method, ["api", "__future__", "environments", &self.place.environment, "features", id, ""])
    }

    /// The side that is not in charge has no override: an instance may be in both segments, and the first one counts.
    fn put(&self, wanted: &Wanted, id: &str) -> Call {
        let value = document(&self.cutover, wanted).to_string();
        let segment =
            wanted.open().then(|| json!({ "segment": { "id": self.segment(wanted.route.authority) }, "priority": 0, "enabled": true }));
        self.feature(Method::PUT, id).body(json!({
            "environment_default": { "enabled": false, "value": { "type": "string", "value": value } },
            "segment_overrides": segment.into_iter().collect::<Vec<_>>(),
        }))
    }

    fn segment(&self, side: Side) -> u64 {
        self.place.segments[usize::from(side == Side::Target)]
    }

    /// By its name.
    async fn id(&self, deadline: Instant) -> Result<String, TrafficError> {
        let call = self.states();
        let states = self.http.call(&call, deadline).await?;
        let found = states["results"].as_array().and_then(|states| states.iter().find_map(|state| state["feature"].as_u64()));
        found.map(|id| id.to_string()).ok_or_else(|| self.http.lacks(&call, format!("feature {}", self.place.flag)))
    }

    async fn state(&self, id: &str, deadline: Instant) -> Result<Value, TrafficError> {
        let call = self.feature(Method::GET, id);
        let state = self.http.call(&call, deadline).await?;
        if state["environment_default"]["enabled"].is_boolean() && state["segment_overrides"].is_array() {
            return Ok(state);
        }
        Err(self.http.lacks(&call, "`environment_default` and `segment_overrides` in its answer"))
    }

    fn shown(&self, state: &Value) -> Shown {
        let record = record(&written(state));
        if state["environment_default"]["enabled"] == true {
            return Shown { on: true, to: To::Everybody, record };
        }
        let enabled = overrides(state).iter().filter(|one| one["enabled"] == true);
        let segments: Vec<_> = enabled.map(|one| one["segment"]["id"].as_u64()).collect();
        let to = match &segments[..] {
            [] => To::Databases(BTreeSet::new()),
            [Some(only)] => match Side::BOTH.into_iter().find(|side| self.segment(*side) == *only) {
                Some(side) if overrides(state).len() == 1 => To::Databases(self.names.leading_to(side).clone()),
                _ => To::Others("overrides of its own".to_owned()),
            },
            several => To::Others(format!("{} overrides of its own", several.len())),
        };
        Shown { on: !segments.is_empty(), to, record }
    }

    /// What of a segment keeps it from being the one of `side`.
    async fn judge(&self, project: &str, side: Side, deadline: Instant) -> Result<Option<Problem>, TrafficError> {
        let id = self.segment(side);
        let call = Call::new(Method::GET, ["api", "v1", "projects", project, "segments", &id.to_string(), ""]);
        let segment = self.http.call(&call, deadline).await?;
        let names = self.names.leading_to(side);
        if named(&segment, &self.place.attribute).as_ref() == Some(names) {
            return Ok(None);
        }
        let list = names.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let message = format!("segment {id} is not that of the names of the {side}");
        let fix = format!("give it one rule and nothing else: any of the conditions `{}` IN `{list}`", self.place.attribute);
        Ok(Some(Problem::error(message, fix)))
    }
}

/// The document in the feature's value, if there is one.
fn written(state: &Value) -> Value {
    let value = state["environment_default"]["value"]["value"].as_str().unwrap_or_default();
    serde_json::from_str(value).unwrap_or_default()
}

fn overrides(state: &Value) -> &[Value] {
    list(&state["segment_overrides"])
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The values of a trait that make somebody a member of a segment, if nothing else does.
fn named(segment: &Value, attribute: &str) -> Option<BTreeSet<String>> {
    let [all] = list(&segment["rules"]) else { return None };
    let [any] = list(&all["rules"]) else { return None };
    let alone = all["type"] == "ALL" && list(&all["conditions"]).is_empty() && list(&any["rules"]).is_empty() && any["type"] == "ANY";
    let values = list(&any["conditions"]).iter().map(|condition| {
        let value = condition["value"].as_str().filter(|_| condition["property"] == attribute)?;
        match condition["operator"].as_str()? {
            "EQUAL" => Some(vec![value.to_owned()]),
            "IN" => Some(value.split(',').map(str::to_owned).collect()),
            _ => None,
        }
    });
    let values = values.collect::<Option<Vec<_>>>().filter(|_| alone)?;
    Some(values.into_iter().flatten().collect())
}

#[async_trait]
impl Service for Flagsmith {
    fn name(&self) -> &str {
        &self.name
    }

    fn http(&self) -> &Http {
        &self.http
    }

    fn calls(&self, wanted: &Wanted) -> Vec<String> {
        [self.states(), self.feature(Method::GET, "ID"), self.put(wanted, "ID")].map(|call| self.http.show(&call)).to_vec()
    }

    async fn read(&self, deadline: Instant) -> Result<Shown, TrafficError> {
        let id = self.id(deadline).await?;
        Ok(self.shown(&self.state(&id, deadline).await?))
    }

    async fn write(&self, wanted: &Wanted, deadline: Instant) -> Result<(), TrafficError> {
        let id = self.id(deadline).await?;
        let put = self.put(wanted, &id);
        if let Some(epoch) = newer(&written(&self.state(&id, deadline).await?), &self.cutover, wanted) {
            return Err(self.http.refused(&put, ServiceFault::Newer { epoch }));
        }
        self.http.call(&put, deadline).await?;
        Ok(())
    }

    async fn check(&self, _wanted: &Wanted, deadline: Instant) -> Result<Vec<Problem>, TrafficError> {
        let state = self.state(&self.id(deadline).await?, deadline).await?;
        let mut problems = Vec::new();
        if !list(&state["environment_default"]["variants"]).is_empty() {
            problems.push(Problem::error("it is a multivariate feature", "name a standard one, which is on or off"));
        }
        let call = Call::new(Method::GET, ["api", "v1", "environments", &self.place.environment, ""]);
        let environment = self.http.call(&call, deadline).await?;
        let project = environment["project"].as_u64().ok_or_else(|| self.http.lacks(&call, "project in its answer"))?;
        for side in Side::BOTH {
            problems.extend(self.judge(&project.to_string(), side, deadline).await?);
        }
        Ok(problems)
    }
}
