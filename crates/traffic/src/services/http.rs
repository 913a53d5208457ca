//! HTTP: one call to a service, made again while there is time and something else may come of it.
//!
//! Every call that writes says what is to be so, never what is to change, so that it can be made twice.

use std::{path::Path, time::Duration};

use cutover_core::plan::FlagService;
use cutover_wire::trust;
use reqwest::{
    Client, Method, Response, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::Value;
use tokio::time::Instant;

use super::fault::ServiceFault;
use crate::TrafficError;

/// A longer answer is none of these services'. Unit: bytes.
const MOST_BODY: usize = 1 << 20;

/// How much of what a service says to a call that it refuses is told. Unit: characters.
const MOST_SAID: usize = 200;

/// Before a call is made again, the first time and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(800)];

/// How a service is reached.
pub(super) struct Http {
    adapter: String,
    client: Client,
    base: Url,
    timeout: Duration,
    token: Option<String>,
}

/// What is asked for.
#[derive(Clone)]
pub(super) struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    content_type: &'static str,
    body: Option<Value>,
}

impl Call {
    pub(super) fn new<'a>(method: Method, path: impl IntoIterator<Item = &'a str>) -> Self {
        let path = path.into_iter().map(str::to_owned).collect();
        Self { method, path, query: Vec::new(), content_type: "application/json", body: None }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) fn content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        // A URL with a host always has segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&self.path);
        }
        for (name, value) in &self.query {
            let mut pairs = url.query_pairs_mut();
            if value.is_empty() {
                pairs.append_key_only(name)
            } else {
                pairs.append_pair(name, value)
            };
        }
        url
    }
}

impl Http {
    /// The token goes into `header`, behind `word`.
    pub(super) fn new(adapter: &str, service: &FlagService, folder: &Path, header: HeaderName, word: &str) -> Result<Self, TrafficError> {
        let wrong = |reason: String| TrafficError::Plan { adapter: adapter.to_owned(), reason };
        let base = Url::parse(&service.url).map_err(|error| wrong(format!("its URL: {error}")))?;
        let token = service.token.as_ref().map(|token| token.expose().to_owned());
        let mut headers = HeaderMap::new();
        if let Some(token) = &token {
            let value = HeaderValue::from_str(&format!("{word}{token}"));
            let mut value = value.map_err(|_| wrong("its token can't be sent in a header".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let pem = service.ca_file.as_ref().map(|file| {
            let file = folder.join(file);
            std::fs::read(&file).map_err(|error| wrong(format!("its ca_file {}: {error}", file.display())))
        });
        let pem = pem.transpose()?;
        let trusted = trust(&base, pem.as_deref()).map_err(|error| wrong(error.to_string()))?;
        let client = Client::builder()
            .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .tls_backend_preconfigured(trusted)
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { adapter: adapter.to_owned(), client, base, timeout: service.timeout, token })
    }

    /// Whether others on the way can read the token.
    pub(super) fn tells_its_token(&self) -> bool {
        let here = self.base.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
        self.token.is_some() && self.base.scheme() == "http" && !here
    }

    /// A call as a person would type it, without what lets it in.
    pub(super) fn show(&self, call: &Call) -> String {
        let body = call.body.as_ref().map(|body| format!(" {body}")).unwrap_or_default();
        format!("{} {}{body}", call.method, call.url(&self.base))
    }

    /// Makes a call, and again until `deadline` as long as that may help. What comes back is JSON, null where it is empty.
    pub(super) async fn call(&self, call: &Call, deadline: Instant) -> Result<Value, TrafficError> {
        let begun = Instant::now();
        let mut pause = PAUSES[0];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let source = match self.once(call, left.min(self.timeout)).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            if !source.is_transient() {
                return Err(self.refused(call, source));
            }
            let wait = source.retry_after().unwrap_or(pause);
            if Instant::now() + wait >= deadline {
                return Err(self.unserved(call, begun, source));
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// The same for what may not be there: none where the service says so.
    pub(super) async fn find(&self, call: &Call, deadline: Instant) -> Result<Option<Value>, TrafficError> {
        match self.call(call, deadline).await {
            Err(TrafficError::Service { source: ServiceFault::Status { status: 404, .. }, .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// The error of an answer that lacks something.
    pub(super) fn lacks(&self, call: &Call, what: impl Into<String>) -> TrafficError {
        self.refused(call, ServiceFault::Lacks(what.into()))
    }

    pub(super) fn refused(&self, call: &Call, source: ServiceFault) -> TrafficError {
        TrafficError::Service { adapter: self.adapter.clone(), call: self.name(call), source }
    }

    pub(super) fn unserved(&self, call: &Call, begun: Instant, source: ServiceFault) -> TrafficError {
        TrafficError::Unserved { adapter: self.adapter.clone(), call: self.name(call), waited: begun.elapsed(), source }
    }

    fn name(&self, call: &Call) -> String {
        format!("{} {}", call.method, call.url(&self.base).path())
    }

    async fn once(&self, call: &Call, limit: Duration) -> Result<Value, ServiceFault> {
        let mut request = self.client.request(call.method.clone(), call.url(&self.base)).timeout(limit);
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, call.content_type).body(body.to_string());
        }
        let answer = request.send().await.map_err(ServiceFault::NoAnswer)?;
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = read(answer).await?;
        if !status.is_success() {
            let said = self.said(&body);
            return Err(ServiceFault::Status { status: status.as_u16(), said, retry_after: retry_after.map(Duration::from_secs) });
        }
        if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body).map_err(ServiceFault::Unreadable) }
    }

    /// The beginning of what a service says, in one line, without our token.
    fn said(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let text = self.token.as_ref().map_or_else(|| text.to_string(), |token| text.replace(token.as_str(), "***"));
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars().take(MOST_SAID).collect()
    }
}

async fn read(mut answer: Response) -> Result<Vec<u8>, ServiceFault> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(ServiceFault::NoAnswer)? {
        if body.len() + chunk.len() > MOST_BODY {
            return Err(ServiceFault::TooLong { most: MOST_BODY });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use cutover_core::{Plan, plan::Traffic};

    use super::*;

    fn http(keys: &str) -> Result<Http, TrafficError> {
        let plan = format!(
            "name = \"a\"\nkind = \"switch\"\n[source]\nurl = \"postgres://a@b/c\"\n[target]\nurl = \"postgres://a@d/c\"\n\
             [[traffic]]\nkind = \"consul\"\nkey = \"k\"\n{keys}"
        );
        let mut plan = Plan::parse(&plan, &|_| None).unwrap();
        let Traffic::Service(service) = plan.traffic.remove(0) else { panic!("it is no service") };
        Http::new("consul", &service, Path::new("/nowhere"), HeaderName::from_static("x-token"), "")
    }

    #[test]
    fn a_token_over_plain_http_is_seen_by_others_unless_it_stays_on_this_machine() {
        for (keys, told) in [
            ("url = \"http://flags.example\"\ntoken = \"t\"", true),
            ("url = \"http://flags.example\"", false),
            ("url = \"http://127.0.0.1:8500\"\ntoken = \"t\"", false),
            ("url = \"http://[::1]:8500\"\ntoken = \"t\"", false),
        ] {
            assert_eq!(http(keys).unwrap().tells_its_token(), told, "{keys}");
        }
    }

    #[test]
    fn a_ca_file_that_is_none_is_named() {
        let error = http("url = \"https://flags.example\"\nca_file = \"ca.pem\"").err().unwrap();
        assert!(error.report().contains("/nowhere/ca.pem"), "{}", error.report());
    }

    #[test]
    fn a_call_goes_below_the_path_of_the_service_whatever_its_names_are() {
        let call = Call::new(Method::GET, ["v1", "a b", "c?d#e", "%2e"]).query("env", "x&y").query("consistent", "");
        let url = call.url(&Url::parse("https://flags.example/base/").unwrap());
        assert_eq!(url.as_str(), "https://flags.example/base/v1/a%20b/c%3Fd%23e/%252e?env=x%26y&consistent");
    }
}
