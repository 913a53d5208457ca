//! Why a server can't be started, or ends.

use std::io;

use cutover_engine::EngineError;

/// Why a server can't be started, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address can't be listened at.
    #[error("can't listen at {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// It would be open to everybody.
    #[error("{0} can be reached from outside, and there is no token: everybody could drive the cutover")]
    Open(String),
    /// Certificates that are none.
    #[error("TLS: {0}")]
    Tls(String),
    /// The file of tokens can't be used.
    #[error("{0}")]
    Tokens(String),
    /// The names of the databases can't be used.
    #[error("`{0}` is no name of a database: host, host:port or host:port/database is")]
    Place(String),
    /// The journal can't be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ServerError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { .. } => Some("is another server running there? --listen names another address".to_owned()),
            Self::Open(_) => Some(
                "make one with `cutover token create`, or listen at 127.0.0.1, or say --without-tokens if the network keeps others out"
                    .to_owned(),
            ),
            Self::Tls(_) => {
                Some("--tls-certificate and --tls-key name files in PEM form; the certificate's chain comes in one file".to_owned())
            }
            Self::Engine(error) => error.hint(),
            Self::Tokens(_) | Self::Place(_) => None,
        }
    }
}
