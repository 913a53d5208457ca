//! Connections: time-outs, TLS with libpq's meanings, and replication connections.
//!
//! The socket and its encryption are made here, and the PostgreSQL protocol runs inside: that way an ordinary and a
//! replication connection are made by the same code (see [`startup`](crate::startup)).

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use cutover_core::plan::{DatabaseUrl, SslMode};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::Notify,
    time::timeout,
};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, tls::NoTlsStream};

use crate::{PgError, PgResult, startup::ReplicationStartup};

/// How long a connection may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection is for, beyond where it goes.
#[derive(Clone, Debug)]
pub struct Purpose<'a> {
    /// `application_name`, by which the server's views show the connection.
    pub application_name: &'a str,
    /// The longest that one statement may take; none where it takes as long as the data is large.
    pub statement_timeout: Option<Duration>,
    /// The longest that a statement may wait for a lock.
    pub lock_timeout: Duration,
    /// Whether it speaks the replication protocol as well as SQL.
    pub replication: bool,
}

impl<'a> Purpose<'a> {
    /// An ordinary connection: 30 s for a statement, 5 s for a lock.
    #[must_use]
    pub fn new(application_name: &'a str) -> Self {
        Self {
            application_name,
            statement_timeout: Some(Duration::from_secs(30)),
            lock_timeout: Duration::from_secs(5),
            replication: false,
        }
    }

    /// One whose statements take as long as the data is large.
    #[must_use]
    pub fn unbounded(application_name: &'a str) -> Self {
        Self { statement_timeout: None, ..Self::new(application_name) }
    }
}

/// Connects. Dropping the client ends the connection.
///
/// # Errors
/// [`PgError::Connect`] with the reason, never with the password.
pub async fn connect(url: &DatabaseUrl, purpose: &Purpose<'_>) -> PgResult<Client> {
    connect_hearing(url, purpose, None).await
}

/// Connects, and tells whenever the server notifies of something that is listened to, and when the connection has ended.
///
/// # Errors
/// As [`connect`].
pub async fn connect_hearing(url: &DatabaseUrl, purpose: &Purpose<'_>, heard: Option<Arc<Notify>>) -> PgResult<Client> {
    let failed = |reason: String| PgError::Connect { address: url.address(), reason };
    match timeout(CONNECT_TIMEOUT, connect_now(url, purpose, heard)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(reason)) => Err(failed(reason)),
        Err(_) => Err(failed(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

/// Logs in on a replication connection, runs one statement, and hands the socket over with nothing under way on it:
/// what comes next, [`replication`](crate::replication) speaks itself.
///
/// # Errors
/// [`PgError::Connect`], or the server's answer to the statement.
pub(crate) async fn connect_for_replication(url: &DatabaseUrl, purpose: &Purpose<'_>, doing: &str, sql: &str) -> PgResult<Box<dyn Socket>> {
    let failed = |reason: String| PgError::Connect { address: url.address(), reason };
    let limit = CONNECT_TIMEOUT + purpose.statement_timeout.unwrap_or(CONNECT_TIMEOUT);
    let handed_over = async {
        let socket = Shared::new(open_socket(url).await.map_err(failed)?);
        let startup = ReplicationStartup::new(socket.clone());
        let (client, mut connection) = config(url, purpose).connect_raw(startup, NoTls).await.map_err(|error| failed(explain(&error)))?;
        tokio::select! {
            biased;
            answer = client.simple_query(sql) => drop(answer.map_err(|error| PgError::sql(doing, error))?),
            _ = &mut connection => return Err(failed("the connection ended".to_owned())),
        }
        drop(connection);
        socket.give_back().ok_or_else(|| failed("the connection ended".to_owned()))
    };
    timeout(limit, handed_over).await.map_err(|_| PgError::TimedOut { doing: doing.to_owned(), limit })?
}

async fn connect_now(url: &DatabaseUrl, purpose: &Purpose<'_>, heard: Option<Arc<Notify>>) -> Result<Client, String> {
    let socket = open_socket(url).await?;
    let socket: Box<dyn Socket> = if purpose.replication { Box::new(ReplicationStartup::new(socket)) } else { socket };
    let (client, connection) = config(url, purpose).connect_raw(socket, NoTls).await.map_err(|error| explain(&error))?;
    tokio::spawn(attend(connection, heard));
    Ok(client)
}

/// Moves a connection's messages until it ends, which it does once its client is dropped.
async fn attend(mut connection: Connection<Box<dyn Socket>, NoTlsStream>, heard: Option<Arc<Notify>>) {
    let tell = || heard.iter().for_each(|heard| heard.notify_one());
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notification(_)) => tell(),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection ended");
                break;
            }
        }
    }
    tell();
}

fn config(url: &DatabaseUrl, purpose: &Purpose<'_>) -> Config {
    let mut config = Config::new();
    config.user(&url.user).dbname(&url.database).application_name(purpose.application_name);
    if let Some(password) = &url.password {
        config.password(password.expose());
    }
    let statement_ms = purpose.statement_timeout.map_or(0, |limit| limit.as_millis());
    let lock_ms = purpose.lock_timeout.as_millis();
    // Qualified names only: nothing that a user's search_path holds can stand in for what we mean.
    config.options(format!(
        "-c statement_timeout={statement_ms} -c lock_timeout={lock_ms} -c idle_in_transaction_session_timeout=0 -c search_path=pg_catalog \
         -c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c extra_float_digits=3 -c bytea_output=hex \
         -c default_transaction_isolation=read\\ committed -c default_transaction_read_only=off"
    ));
    config
}

fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} [{}]", db.message(), db.code().code()),
        None => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    }
}

/// A byte stream to a server.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A socket that the client library uses until it is taken back.
#[derive(Clone)]
struct Shared(Arc<Mutex<Option<Box<dyn Socket>>>>);

impl Shared {
    fn new(socket: Box<dyn Socket>) -> Self {
        Self(Arc::new(Mutex::new(Some(socket))))
    }

    fn give_back(&self) -> Option<Box<dyn Socket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn with<T>(&self, poll: impl FnOnce(Pin<&mut dyn Socket>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(socket) => poll(Pin::new(&mut **socket)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| socket.poll_read(cx, buf))
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|socket| socket.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| socket.poll_shutdown(cx))
    }
}

async fn open_socket(url: &DatabaseUrl) -> Result<Box<dyn Socket>, String> {
    if url.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", url.host, url.port);
        let socket = UnixStream::connect(&path).await.map_err(|error| format!("{path}: {error}"))?;
        return Ok(Box::new(socket));
    }
    let mut socket = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|error| error.to_string())?;
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    if url.ssl_mode == SslMode::Disable || !server_speaks_tls(&mut socket).await? {
        return match url.ssl_mode {
            SslMode::Disable | SslMode::Prefer => Ok(Box::new(socket)),
            mode => Err(format!("the server does not speak TLS, and sslmode is {}", mode.name())),
        };
    }
    let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config(url)?));
    let encrypted = connector.connect(name, socket).await.map_err(|error| format!("TLS: {error}"))?;
    Ok(Box::new(encrypted))
}

/// Asks the server with PostgreSQL's `SSLRequest`.
async fn server_speaks_tls(socket: &mut TcpStream) -> Result<bool, String> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
    socket.write_all(&SSL_REQUEST).await.map_err(|error| error.to_string())?;
    let answer = socket.read_u8().await.map_err(|error| error.to_string())?;
    Ok(answer == b'S')
}

/// What is checked of a server's certificate, as the URL's `sslmode` and `sslrootcert` say.
///
/// # Errors
/// The file with the roots can't be read; in words.
pub fn tls_config(url: &DatabaseUrl) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let checked = matches!(url.ssl_mode, SslMode::VerifyCa | SslMode::VerifyFull) || url.ssl_root_cert.is_some();
    if !checked {
        return Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth());
    }
    let roots = Arc::new(roots(url)?);
    if url.ssl_mode == SslMode::VerifyFull {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(|error| error.to_string())?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(verifier))).with_no_client_auth())
}

fn roots(url: &DatabaseUrl) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if let Some(file) = &url.ssl_root_cert {
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| format!("{file}: {error}"))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| format!("{file}: {error}"))?;
            store.add(certificate).map_err(|error| format!("{file}: {error}"))?;
        }
        return Ok(store);
    }
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(store)
}

/// `sslmode=prefer` and `require`: encryption without a check of who answers, as libpq has it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `sslmode=verify-ca`: the issuer is checked, the host's name is not.
#[derive(Debug)]
struct AnyName(Arc<rustls::client::WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
