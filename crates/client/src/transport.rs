//! HTTP: asks the server for a lease, and says goodbye to it.

use std::{sync::Arc, time::Duration};

use cutover_api::{Permit, PermitRequest, Problem};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap},
    redirect::Policy,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{Error, settings::Checked};

/// A longer answer is none of the server's. Unit: bytes.
const MOST_BODY: usize = 64 * 1024;

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long the server may take to hear a goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct Transport {
    http: Client,
    permits: Url,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}", with_causes(.0))]
    Http(reqwest::Error),
    #[error("the server answered {status}{}", words(.problem.as_ref()))]
    Status { status: StatusCode, problem: Option<Problem> },
    #[error("the server's answer is no permit: {0}")]
    Unreadable(serde_json::Error),
    #[error("the server's answer is longer than {MOST_BODY} bytes")]
    TooLong,
    #[error("the server's answer is older than what is known: revision {revision} of epoch {epoch}")]
    Stale { revision: u64, epoch: u64 },
    #[error("the server answers for another cutover: {cutover}")]
    Other { cutover: String },
}

impl Failure {
    /// Whether the server would say so again.
    pub(crate) fn is_rejection(&self) -> bool {
        let for_good = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
        matches!(self, Self::Status { status, .. } if for_good.contains(status))
    }
}

impl Transport {
    pub(crate) fn new(settings: &Checked) -> Result<Self, Error> {
        let permits = settings
            .server
            .join("v1/permits")
            .map_err(|error| Error::Server { server: settings.server.to_string(), why: error.to_string() })?;
        let mut headers = HeaderMap::new();
        headers.extend(settings.authorization.clone().map(|value| (AUTHORIZATION, value)));
        let http = Client::builder()
            .user_agent(concat!("cutover-client/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .tls_backend_preconfigured(tls(settings)?)
            .redirect(Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .map_err(|source| Error::Http { source })?;
        Ok(Self { http, permits })
    }

    /// Asks for a lease.
    pub(crate) async fn ask(&self, request: &PermitRequest, limit: Duration) -> Result<Permit, Failure> {
        let body = serde_json::to_vec(request).map_err(Failure::Unreadable)?;
        let sent = self.http.post(self.permits.clone()).header(CONTENT_TYPE, "application/json").timeout(limit).body(body).send();
        let answer = sent.await.map_err(Failure::Http)?;
        let status = answer.status();
        let body = read(answer).await?;
        if status != StatusCode::OK {
            return Err(Failure::Status { status, problem: serde_json::from_slice(&body).ok() });
        }
        serde_json::from_slice(&body).map_err(Failure::Unreadable)
    }

    /// Says that nobody has to wait for this process' lease to run out.
    pub(crate) async fn leave(&self, incarnation: &str) -> Result<(), Failure> {
        let mut url = self.permits.clone();
        url.set_path(&format!("{}/{incarnation}", url.path()));
        let answer = self.http.delete(url).timeout(GOODBYE_LIMIT).send().await.map_err(Failure::Http)?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(Failure::Status { status, problem: None }) }
    }
}

async fn read(mut answer: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(Failure::Http)? {
        if body.len() + chunk.len() > MOST_BODY {
            return Err(Failure::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Trusts whom the settings name, else whom the system trusts.
fn tls(settings: &Checked) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &settings.ca {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|error| Error::Certificate { why: error.to_string() })?;
        for certificate in certificates {
            roots.add(certificate).map_err(|error| Error::Certificate { why: error.to_string() })?;
        }
        if roots.is_empty() {
            return Err(Error::Certificate { why: "there is none in what was given".to_owned() });
        }
    } else if settings.server.scheme() == "https" {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Error::Certificate { why: "this system trusts nobody".to_owned() });
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Error::Certificate { why: error.to_string() })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
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
