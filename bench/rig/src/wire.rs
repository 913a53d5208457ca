//! One HTTP connection that is kept.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection, with what stands in the head of each of its requests.
pub(crate) struct Wire {
    sender: SendRequest<Full<Bytes>>,
    headers: HeaderMap,
}

impl Wire {
    /// Connects to where a server listens; only on this machine.
    pub(crate) async fn open(server: SocketAddr) -> Result<Self> {
        ensure!(server.ip().is_loopback(), "{server} is not on this machine");
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(server)).await.context("no connection in time")??;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender, or with the server; then the next request fails.
        tokio::spawn(connection);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(&server.to_string())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self { sender, headers })
    }

    /// Another head for each request.
    pub(crate) fn headers(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn ask(&mut self, method: Method, path: Uri, body: Bytes) -> Result<(StatusCode, Bytes)> {
        self.sender.ready().await?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path;
        request.headers_mut().clone_from(&self.headers);
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}
