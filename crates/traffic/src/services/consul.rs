//! A key of Consul's KV store: a JSON document, written by check-and-set.
//!
//! `GET /v1/kv/KEY?consistent`, `PUT /v1/kv/KEY?cas=INDEX`. Instances watch the key with blocking queries.

use std::path::Path;

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use cutover_core::{clients::Wanted, plan::FlagService};
use reqwest::{Method, header::HeaderName};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    LOOKS, Service,
    document::{document, newer, record},
    fault::ServiceFault,
    http::{Call, Http},
    shown::{Shown, To, texts},
};
use crate::{Problem, TrafficError};

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

pub(super) struct Consul {
    name: String,
    http: Http,
    key: String,
    cutover: String,
}

/// The value of the key.
struct Entry {
    /// What a check-and-set has to name.
    index: u64,
    /// None where it is no JSON.
    document: Option<Value>,
}

impl Consul {
    pub(super) fn new(service: &FlagService, key: &str, cutover: &str, folder: &Path) -> Result<Self, TrafficError> {
        let name = format!("consul {} {key}", service.url);
        let http = Http::new(&name, service, folder, TOKEN, "")?;
        Ok(Self { name, http, key: key.to_owned(), cutover: cutover.to_owned() })
    }

    fn call(&self, method: Method) -> Call {
        Call::new(method, ["v1", "kv"].into_iter().chain(self.key.split('/')))
    }

    fn put(&self, wanted: &Wanted, index: impl ToString) -> Call {
        self.call(Method::PUT).query("cas", index.to_string()).body(self.document(wanted))
    }

    fn document(&self, wanted: &Wanted) -> Value {
        document(&self.cutover, wanted)
    }

    /// From the leader, who has seen every write. None where the key is not there.
    async fn entry(&self, deadline: Instant) -> Result<Option<Entry>, TrafficError> {
        let call = self.call(Method::GET).query("consistent", "");
        let Some(answer) = self.http.find(&call, deadline).await? else { return Ok(None) };
        let index = answer[0]["ModifyIndex"].as_u64().ok_or_else(|| self.http.lacks(&call, "ModifyIndex in its answer"))?;
        let value = answer[0]["Value"].as_str().unwrap_or_default();
        let bytes = BASE64_STANDARD.decode(value).map_err(|_| self.http.lacks(&call, "Value in Base64 in its answer"))?;
        Ok(Some(Entry { index, document: serde_json::from_slice(&bytes).ok() }))
    }
}

#[async_trait]
impl Service for Consul {
    fn name(&self) -> &str {
        &self.name
    }

    fn http(&self) -> &Http {
        &self.http
    }

    fn calls(&self, wanted: &Wanted) -> Vec<String> {
        let get = self.http.show(&self.call(Method::GET).query("consistent", ""));
        vec![get, self.http.show(&self.put(wanted, "INDEX"))]
    }

    async fn read(&self, deadline: Instant) -> Result<Shown, TrafficError> {
        let missing = || self.http.lacks(&self.call(Method::GET), format!("key {}", self.key));
        let entry = self.entry(deadline).await?.ok_or_else(missing)?;
        Ok(entry.document.as_ref().map_or_else(|| unknown("a value that is no JSON"), shown))
    }

    async fn write(&self, wanted: &Wanted, deadline: Instant) -> Result<(), TrafficError> {
        let begun = Instant::now();
        loop {
            let entry = self.entry(deadline).await?;
            let written = entry.as_ref().and_then(|entry| entry.document.clone()).unwrap_or_default();
            let put = self.put(wanted, entry.map_or(0, |entry| entry.index));
            if let Some(epoch) = newer(&written, &self.cutover, wanted) {
                return Err(self.http.refused(&put, ServiceFault::Newer { epoch }));
            }
            if self.http.call(&put, deadline).await? == Value::Bool(true) {
                return Ok(());
            }
            if Instant::now() + LOOKS[0] >= deadline {
                return Err(self.http.unserved(&put, begun, ServiceFault::Contended));
            }
            sleep(LOOKS[0]).await;
        }
    }

    async fn check(&self, wanted: &Wanted, deadline: Instant) -> Result<Vec<Problem>, TrafficError> {
        let missing = match self.entry(deadline).await? {
            Some(Entry { document: Some(document), .. }) if document.is_object() => return Ok(Vec::new()),
            Some(_) => format!("the value of {} is no JSON object", self.key),
            None => format!("there is no key {}", self.key),
        };
        let fix = format!("make it what your application reads, before the switch: consul kv put {} '{}'", self.key, self.document(wanted));
        Ok(vec![Problem::error(missing, fix)])
    }
}

fn shown(document: &Value) -> Shown {
    match (document["enabled"].as_bool(), texts(&document["databases"])) {
        (Some(on), Some(databases)) => Shown { on, to: To::Databases(databases), record: record(document) },
        _ if *document == Value::Bool(true) => Shown { on: true, to: To::Everybody, record: None },
        _ => unknown("a document of another kind"),
    }
}

/// What somebody else put there is taken for open: nobody knows what instances make of it.
fn unknown(what: &str) -> Shown {
    Shown { on: true, to: To::Others(what.to_owned()), record: None }
}
