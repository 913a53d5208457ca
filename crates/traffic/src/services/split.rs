//! A feature flag of Split: one rule over the names, which serves `on` or `off`.
//!
//! `GET` and `PUT /internal/api/v2/splits/ws/WORKSPACE/FLAG/environments/ENVIRONMENT`. A definition is replaced as a whole.
//! To close, the rule serves `off`: killing the flag would do as much, but then it is not told by whom.

use std::{collections::BTreeSet, path::Path};

use async_trait::async_trait;
use cutover_core::{
    clients::Wanted,
    plan::{FlagService, SplitFlag},
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

const ON: &str = "on";
const OFF: &str = "off";
const IN_LIST: &str = "IN_LIST_STRING";

pub(super) struct Split {
    name: String,
    http: Http,
    path: Vec<String>,
    attribute: String,
}

impl Split {
    pub(super) fn new(service: &FlagService, place: &SplitFlag, folder: &Path) -> Result<Self, TrafficError> {
        let SplitFlag { workspace, environment, flag, attribute } = place.clone();
        let name = format!("split {workspace}/{flag} in {environment}");
        let http = Http::new(&name, service, folder, AUTHORIZATION, "Bearer ")?;
        let path = ["internal", "api", "v2", "splits", "ws", &workspace, &flag, "environments", &environment];
        Ok(Self { name, http, path: path.map(str::to_owned).to_vec(), attribute })
    }

    fn call(&self, method: Method) -> Call {
        self.below(method, &[])
    }

    fn below(&self, method: Method, below: &[&str]) -> Call {
        Call::new(method, self.path.iter().map(String::as_str).chain(below.iter().copied()))
    }

    async fn definition(&self, deadline: Instant) -> Result<Value, TrafficError> {
        let call = self.call(Method::GET);
        let definition = self.http.call(&call, deadline).await?;
        let has = |treatment: &str| treatments(&definition).iter().any(|one| one["name"] == treatment);
        if has(ON) && has(OFF) { Ok(definition) } else { Err(self.http.lacks(&call, "flag with the treatments `on` and `off`")) }
    }

    /// The whole definition: `serves` to whoever gives one of these names, and `off` to all others.
    fn made(&self, of: &Value, names: Option<&BTreeSet<String>>, serves: &str) -> Value {
        let treatments = treatments(of).iter().map(|one| {
            let mut one = one.clone();
            // Whom somebody let in by name.
            one["keys"] = json!([]);
            one["segments"] = json!([]);
            one
        });
        let rules = names.map(|names| {
            let matcher = json!({ "type": IN_LIST, "attribute": self.attribute, "strings": names, "negate": false });
            json!({ "condition": { "combiner": "AND", "matchers": [matcher] }, "buckets": all(serves) })
        });
        json!({
            "treatments": treatments.collect::<Vec<_>>(),
            "defaultTreatment": OFF,
            "trafficAllocation": 100,
            "rules": rules.into_iter().collect::<Vec<_>>(),
            "defaultRule": all(OFF),
            "comment": "cutover",
        })
    }

    /// Whom its rule is about, and whether that serves `on`.
    fn to(&self, definition: &Value) -> (To, bool) {
        let others = |what: &str| (To::Others(what.to_owned()), true);
        if definition["defaultRule"] == all(ON) {
            return (To::Everybody, true);
        }
        if definition["defaultRule"] != all(OFF) || definition["trafficAllocation"].as_u64().is_some_and(|part| part != 100) {
            return others("a percentage");
        }
        let named = |one: &Value| ["keys", "segments"].iter().any(|key| one[key].as_array().is_some_and(|list| !list.is_empty()));
        if treatments(definition).iter().any(named) {
            return others("individual targets");
        }
        match definition["rules"].as_array().map(Vec::as_slice) {
            None | Some([]) => (To::Databases(BTreeSet::new()), false),
            Some([rule]) => self.rule(rule).unwrap_or_else(|| others("a rule of its own")),
            Some(rules) => others(&format!("{} rules of its own", rules.len())),
        }
    }

    fn rule(&self, rule: &Value) -> Option<(To, bool)> {
        let [matcher] = &rule["condition"]["matchers"].as_array()?[..] else { return None };
        let ours = matcher["type"] == IN_LIST && matcher["attribute"] == self.attribute.as_str() && matcher["negate"] != true;
        let names = texts(&matcher["strings"]).filter(|_| ours)?;
        let serves = [ON, OFF].into_iter().find(|treatment| rule["buckets"] == all(treatment))?;
        Some((To::Databases(names), serves == ON))
    }

    fn shown(&self, definition: &Value) -> Shown {
        let (to, serves_on) = self.to(definition);
        let on = if definition["killed"] == true { definition["defaultTreatment"] != OFF } else { serves_on };
        Shown { on, to, record: None }
    }
}

fn treatments(definition: &Value) -> &[Value] {
    definition["treatments"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn all(treatment: &str) -> Value {
    json!([{ "treatment": treatment, "size": 100 }])
}

#[async_trait]
impl Service for Split {
    fn name(&self) -> &str {
        &self.name
    }

    fn http(&self) -> &Http {
        &self.http
    }

    fn calls(&self, wanted: &Wanted) -> Vec<String> {
        let put = self.call(Method::PUT);
        let get = self.http.show(&self.call(Method::GET));
        if !wanted.open() {
            return vec![get, format!("{} with its treatments and its rule, which serves `off`", self.http.show(&put))];
        }
        let restore = self.http.show(&self.below(Method::PUT, &["restore"]));
        let like = json!({ "treatments": [{ "name": ON }, { "name": OFF }] });
        vec![get, self.http.show(&put.body(self.made(&like, Some(&wanted.databases), ON))), format!("if it was killed: {restore}")]
    }

    async fn read(&self, deadline: Instant) -> Result<Shown, TrafficError> {
        Ok(self.shown(&self.definition(deadline).await?))
    }

    /// The rule stays when it is closed, so that it is seen whom it was open to.
    async fn write(&self, wanted: &Wanted, deadline: Instant) -> Result<(), TrafficError> {
        let now = self.definition(deadline).await?;
        let body = match (wanted.open(), self.to(&now).0) {
            (true, _) => self.made(&now, Some(&wanted.databases), ON),
            (false, To::Databases(names)) if !names.is_empty() => self.made(&now, Some(&names), OFF),
            (false, _) => self.made(&now, None, OFF),
        };
        self.http.call(&self.call(Method::PUT).body(body), deadline).await?;
        if wanted.open() && now["killed"] == true {
            self.http.call(&self.below(Method::PUT, &["restore"]), deadline).await?;
        }
        Ok(())
    }

    async fn check(&self, _wanted: &Wanted, deadline: Instant) -> Result<Vec<Problem>, TrafficError> {
        self.definition(deadline).await?;
        Ok(Vec::new())
    }
}
