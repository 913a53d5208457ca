//! A boolean flag of LaunchDarkly: one rule over the names, written by semantic patch.
//!
//! `GET` and `PATCH /api/v2/flags/PROJECT/FLAG`. A patch is all or nothing, so there is no moment in between.

use std::path::Path;

use async_trait::async_trait;
use cutover_core::{
    clients::Wanted,
    plan::{FlagService, LaunchDarklyFlag},
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

const SEMANTIC_PATCH: &str = "application/json; domain-model=launchdarkly.semanticpatch";

pub(super) struct LaunchDarkly {
    name: String,
    http: Http,
    place: LaunchDarklyFlag,
}

/// What is needed of a flag.
struct Flag {
    /// Of the environment.
    targeting: Value,
    /// The places of `true` and `false` among the variations, and their ids.
    yes: (u64, String),
    no: (u64, String),
}

impl LaunchDarkly {
    pub(super) fn new(service: &FlagService, place: &LaunchDarklyFlag, folder: &Path) -> Result<Self, TrafficError> {
        let name = format!("launchdarkly {}/{} in {}", place.project, place.flag, place.environment);
        let http = Http::new(&name, service, folder, AUTHORIZATION, "")?;
        Ok(Self { name, http, place: place.clone() })
    }

    fn get(&self) -> Call {
        self.call(Method::GET).query("env", &self.place.environment)
    }

    fn call(&self, method: Method) -> Call {
        Call::new(method, ["api", "v2", "flags", &self.place.project, &self.place.flag])
    }

    /// Changes that others have planned for later are no reason to leave it as it is.
    fn patch(&self, wanted: &Wanted, yes: &str, no: &str) -> Call {
        let instructions = if wanted.open() { self.opens(wanted, yes, no) } else { closes(no) };
        let body = json!({
            "environmentKey": self.place.environment,
            "comment": format!("cutover: epoch {}", wanted.route.epoch),
            "instructions": instructions,
        });
        self.call(Method::PATCH).query("ignoreConflicts", "true").content_type(SEMANTIC_PATCH).body(body)
    }

    fn opens(&self, wanted: &Wanted, yes: &str, no: &str) -> Value {
        let clause = json!({
            "contextKind": self.place.context, "attribute": self.place.attribute, "op": "in", "negate": false, "values": wanted.databases,
        });
        json!([
            { "kind": "updateOffVariation", "variationId": no },
            { "kind": "updateFallthroughVariationOrRollout", "variationId": no },
            { "kind": "replacePrerequisites", "prerequisites": [] },
            { "kind": "replaceTargets", "targets": [] },
            { "kind": "replaceRules", "rules": [{ "description": "cutover", "variationId": yes, "clauses": [clause] }] },
            { "kind": "turnFlagOn" },
        ])
    }

    async fn flag(&self, deadline: Instant) -> Result<Flag, TrafficError> {
        let call = self.get();
        let answer = self.http.call(&call, deadline).await?;
        let lacks = |what: &str| self.http.lacks(&call, what);
        let targeting = answer["environments"].get(&self.place.environment);
        let targeting = targeting.cloned().ok_or_else(|| lacks(&format!("environment {}", self.place.environment)))?;
        let variation = |value: bool| {
            let variations = answer["variations"].as_array()?;
            let at = variations.iter().position(|variation| variation["value"] == value)?;
            Some((at as u64, variations[at]["_id"].as_str()?.to_owned()))
        };
        match (variation(true), variation(false)) {
            (Some(yes), Some(no)) if answer["kind"] == "boolean" => Ok(Flag { targeting, yes, no }),
            _ => Err(lacks("boolean flag of that name, but one of another kind")),
        }
    }

    /// Whom the flag would be open to if its targeting were on.
    fn to(&self, flag: &Flag) -> To {
        let (targeting, yes, no) = (&flag.targeting, flag.yes.0, flag.no.0);
        let filled = |key: &str| targeting[key].as_array().map_or(0, Vec::len);
        if targeting["fallthrough"]["variation"] != no {
            return if targeting["fallthrough"]["variation"] == yes {
                To::Everybody
            } else {
                To::Others("a rollout by percentage".to_owned())
            };
        }
        for (key, what) in [("targets", "targets"), ("contextTargets", "targets"), ("prerequisites", "prerequisites")] {
            if filled(key) > 0 {
                return To::Others(format!("{} {what} of its own", filled(key)));
            }
        }
        let [rule] = targeting["rules"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            return To::Others(format!("{} rules of its own", filled("rules")));
        };
        let other = || To::Others("a rule of its own".to_owned());
        let [clause] = rule["clauses"].as_array().map(Vec::as_slice).unwrap_or_default() else { return other() };
        let ours = clause["attribute"] == self.place.attribute.as_str()
            && clause["contextKind"].as_str().unwrap_or("user") == self.place.context
            && clause["op"] == "in"
            && clause["negate"] != true
            && rule["variation"] == yes;
        texts(&clause["values"]).filter(|_| ours).map_or_else(other, To::Databases)
    }
}

/// The rule stays, so that it is seen whom it was open to.
fn closes(no: &str) -> Value {
    json!([{ "kind": "turnFlagOff" }, { "kind": "updateOffVariation", "variationId": no }])
}

#[async_trait]
impl Service for LaunchDarkly {
    fn name(&self) -> &str {
        &self.name
    }

    fn http(&self) -> &Http {
        &self.http
    }

    fn calls(&self, wanted: &Wanted) -> Vec<String> {
        vec![self.http.show(&self.get()), self.http.show(&self.patch(wanted, "ID-OF-TRUE", "ID-OF-FALSE"))]
    }

    /// While it is off a flag serves its off variation, which need not be `false`.
    async fn read(&self, deadline: Instant) -> Result<Shown, TrafficError> {
        let flag = self.flag(deadline).await?;
        let on = flag.targeting["on"] != false;
        if !on && flag.targeting["offVariation"] != flag.no.0 {
            return Ok(Shown { on: true, to: To::Others("what it serves while it is off".to_owned()), record: None });
        }
        Ok(Shown { on, to: self.to(&flag), record: None })
    }

    async fn write(&self, wanted: &Wanted, deadline: Instant) -> Result<(), TrafficError> {
        let flag = self.flag(deadline).await?;
        self.http.call(&self.patch(wanted, &flag.yes.1, &flag.no.1), deadline).await?;
        Ok(())
    }

    async fn check(&self, _wanted: &Wanted, deadline: Instant) -> Result<Vec<Problem>, TrafficError> {
        self.flag(deadline).await?;
        Ok(Vec::new())
    }
}
