//! A server of ours in a process of its own, and a client of it.

use std::{path::Path, process::Stdio, time::Duration};

use reqwest::{Certificate, Client, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) client: Client,
    pub(crate) child: Child,
}

impl Server {
    /// Starts what the command says, which tells its address in JSON. Where it speaks TLS, it is trusted by `root`.
    pub(crate) async fn spawn(mut command: Command, root: Option<&Path>) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("it does not begin").unwrap().expect("it ended");
        let said: Value = serde_json::from_str(&line).unwrap();
        let address = said["address"].as_str().unwrap().replace("0.0.0.0", "127.0.0.1");
        rustls::crypto::ring::default_provider().install_default().ok();
        let roots: Vec<Certificate> = root.map(|root| Certificate::from_pem(&std::fs::read(root).unwrap()).unwrap()).into_iter().collect();
        let client = Client::builder().timeout(LIMIT).tls_certs_only(roots).build().unwrap();
        Self { address, client, child }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.address))
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<String>) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.address)).header("content-type", "application/json").body(body.into())
    }
}

/// Status and body.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) };
    (status, body)
}
