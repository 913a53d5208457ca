//! Why there is no client.

use std::{path::PathBuf, time::Duration};

/// A client can't be made, or has got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither the code nor the environment names a server.
    #[error("no cutover server is named\n\nhint: Client::builder(\"https://…\"), or CUTOVER_SERVER in the environment")]
    NoServer,
    /// The server's address is none.
    #[error("`{server}` is no address of a cutover server: {why}\n\nhint: http://127.0.0.1:7700, or https://cutover.example")]
    Server {
        /// As it was given, without a password.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// A setting can't be sent to a server.
    #[error("the {setting} has to have 1 to {most} characters, none of which is a control character")]
    Setting {
        /// Which: `instance`, `database`.
        setting: &'static str,
        /// How long it may be, in characters.
        most: usize,
    },
    /// The token can't be sent to a server.
    #[error("{source}")]
    Token {
        /// Why not.
        source: cutover_wire::ReachError,
    },
    /// A variable of the environment is not text.
    #[error("{variable} in the environment is not UTF-8")]
    Environment {
        /// Its name.
        variable: &'static str,
    },
    /// The file with the certificate can't be read.
    #[error("can't read the certificate in {}", path.display())]
    CertificateFile {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is nothing to check the server's certificate by.
    #[error("can't check the server's certificate: {why}\n\nhint: give the certificate of its authority, in PEM form")]
    Certificate {
        /// What is wrong.
        why: String,
    },
    /// The HTTP client can't be made.
    #[error("can't make an HTTP client")]
    Http {
        /// Why not.
        source: reqwest::Error,
    },
    /// It was called outside of a tokio runtime.
    #[error("a client needs a tokio runtime to keep its lease in\n\nhint: connect inside of one")]
    NoRuntime,
    /// The server refuses this client, and would go on doing so.
    #[error("the cutover server refuses this client: {why}")]
    Rejected {
        /// The server's words.
        why: String,
    },
    /// The server did not answer in time.
    #[error("the cutover server did not answer within {within:?}{}\n\nhint: connect_lazily() goes on without an answer, and refuses writes until there is one",
        why.as_deref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoAnswer {
        /// How long it was waited for.
        within: Duration,
        /// What went wrong last.
        why: Option<String>,
    },
}
