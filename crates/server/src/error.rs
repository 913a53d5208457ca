//! Why a server can't be started, or ends.

use std::io;

use cutover_engine::EngineError;
use cutover_wire::ReachError;

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
    /// An agent's name can't be sent to a server.
    #[error("`{0}` is no name of an agent: 1 to 200 characters, none of which is a control character")]
    Name(String),
    /// An agent can't reach its server.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// An agent's server has begun to answer for another cutover.
    #[error("the server answers for the cutover {is}, and this agent began with {was}")]
    OtherCutover {
        /// Which cutover it was.
        was: String,
        /// Which it is now.
        is: String,
    },
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
            Self::Reach(error) => error.hint().map(str::to_owned),
            Self::OtherCutover { .. } => Some("start the agent anew: epochs of two cutovers can't be told apart".to_owned()),
            Self::Tokens(_) | Self::Place(_) | Self::Name(_) => None,
        }
    }
}
