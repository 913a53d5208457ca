//! Asks a server.

use std::time::Duration;

use cutover_api::Problem;
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap},
    redirect::Policy,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Reach, ReachError};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Asks one server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Wire {
    http: Client,
    reach: Reach,
    /// A longer answer is none of the server's. Unit: bytes.
    most: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server can't be reached, or did not answer in time.
    #[error("{}", with_causes(.0))]
    Http(reqwest::Error),
    /// The server refuses.
    #[error("the server answered {status}{}", words(.problem.as_ref()))]
    Status {
        /// With this status.
        status: StatusCode,
        /// In these words, where it said any.
        problem: Option<Problem>,
    },
    /// The answer is not what was asked for.
    #[error("the server's answer can't be understood: {0}")]
    Unreadable(serde_json::Error),
    /// The answer is too long.
    #[error("the server's answer is longer than {0} bytes")]
    TooLong(usize),
}

impl Failure {
    /// Whether the server would say so again.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        let for_good = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
        matches!(self, Self::Status { status, .. } if for_good.contains(status))
    }
}

impl Wire {
    /// Asks as `agent` (`name/version`), and takes answers of at most `most` bytes.
    ///
    /// # Errors
    /// The HTTP client can't be made.
    pub fn new(reach: &Reach, agent: &str, most: usize) -> Result<Self, ReachError> {
        let mut headers = HeaderMap::new();
        headers.extend(reach.authorization.clone().map(|value| (AUTHORIZATION, value)));
        let http = Client::builder()
            .user_agent(agent)
            .default_headers(headers)
            .tls_backend_preconfigured(reach.tls.clone())
            .redirect(Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .map_err(ReachError::Http)?;
        Ok(Self { http, reach: reach.clone(), most })
    }

    /// Asks with a body, and reads the answer, all of it within `limit`. The path may have a query.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        limit: Duration,
    ) -> Result<A, Failure> {
        let answer = self.send(method, path, body, limit).await?;
        serde_json::from_slice(&answer).map_err(Failure::Unreadable)
    }

    /// Says something that wants no answer.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn say(&self, method: Method, path: &str, limit: Duration) -> Result<(), Failure> {
        self.send(method, path, None::<&()>, limit).await.map(drop)
    }

    /// The same, with a body.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn tell(&self, method: Method, path: &str, body: &(impl Serialize + Sync), limit: Duration) -> Result<(), Failure> {
        self.send(method, path, Some(body), limit).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&(impl Serialize + Sync)>, limit: Duration) -> Result<Vec<u8>, Failure> {
        let mut url = self.reach.server.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", url.path()));
        url.set_query(query);
        let mut request = self.http.request(method, url).timeout(limit).headers(within_trace());
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(serde_json::to_vec(body).map_err(Failure::Unreadable)?);
        }
        let answer = request.send().await.map_err(Failure::Http)?;
        let status = answer.status();
        let body = self.read(answer).await?;
        if status.is_success() { Ok(body) } else { Err(Failure::Status { status, problem: serde_json::from_slice(&body).ok() }) }
    }

    async fn read(&self, mut answer: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(Failure::Http)? {
            if body.len() + chunk.len() > self.most {
                return Err(Failure::TooLong(self.most));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// What names the caller's trace, if there is one.
fn within_trace() -> HeaderMap {
    #[cfg_attr(not(feature = "opentelemetry"), expect(unused_mut, reason = "there is nothing to name"))]
    let mut headers = HeaderMap::new();
    #[cfg(feature = "opentelemetry")]
    opentelemetry::global::get_text_map_propagator(|propagator| {
        let mut headers = opentelemetry_http::HeaderInjector(&mut headers);
        propagator.inject_context(&opentelemetry::Context::current(), &mut headers);
    });
    headers
}

/// The HTTP library's own message names only the URL.
fn with_causes(error: &reqwest::Error) -> String {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

fn words(problem: Option<&Problem>) -> String {
    problem.map(|problem| format!(": {}", problem.message)).unwrap_or_default()
}
