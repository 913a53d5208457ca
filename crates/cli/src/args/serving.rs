//! What can be typed to serve, and to say who may ask.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use cutover_server::Role;

use super::ShadowTables;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cutover serve
  cutover serve --listen 0.0.0.0:7700 --tls-certificate tls.crt --tls-key tls.key
  cutover serve --shadow-tables 'postgres://viewer:${PASSWORD}@db.example/shop'
  curl -s http://127.0.0.1:7700/v1/status | jq .phase
  curl -s http://127.0.0.1:7700/ofrep/v1/evaluate/flags/database-writes-enabled -d '{\"context\":{\"database\":\"db1:5432/orders\"}}'

GET /openapi.json lists what it answers. Beyond this machine it wants tokens: `cutover token create`.")]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7700", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) door: Door,
    /// How long clients may rely on an answer without asking again; the plan's `lease` where it is not given, else 2s. A
    /// switch waits so long for one that is silent.
    #[arg(long, value_name = "DURATION", value_parser = lease)]
    pub(crate) lease: Option<Duration>,
    /// Where `retire --server` has archives written; `.cutover/archives` beside the plan where no folder is named.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) archives: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) shadow: ShadowTables,
    /// Also look after the tables, as `cutover sql watch` does: check each, roll back what is unhealthy, bring what is queued. Then the
    /// role of --shadow-tables has to be an operator.
    #[arg(long, value_name = "DURATION", requires = "shadow_tables", num_args = 0..=1, default_missing_value = "60s", value_parser = super::sql::every)]
    pub(crate) watch_tables: Option<Duration>,
}

/// Who asks a server, and whom to trust.
#[derive(Args, Debug)]
pub(crate) struct Trust {
    /// A file with the token that the server knows us by; else CUTOVER_TOKEN in the environment.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The certificates of those who vouch for the server, in PEM form; else those count that the system trusts.
    #[arg(long, value_name = "FILE", env = "CUTOVER_CA")]
    pub(crate) ca: Option<PathBuf>,
}

/// Where a verb is done, if not here.
#[derive(Args, Debug)]
pub(crate) struct Remote {
    /// Have a server do it (`cutover serve`), rather than this machine. Then no plan file is read.
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// How it listens, and who may ask.
#[derive(Args, Debug)]
pub(crate) struct Door {
    /// Speak TLS with this certificate and its chain, in PEM form.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// The certificate's key, in PEM form.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The file of tokens; `.cutover/tokens.json` beside the plan where none is named.
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Can be reached from outside, and asks for no token. Only where the network keeps others out.
    #[arg(long)]
    pub(crate) without_tokens: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cutover agent --server https://cutover.example
  CUTOVER_TOKEN=… cutover agent --server https://cutover.example --ca ca.pem --name \"$NODE_NAME\"
  curl -s http://127.0.0.1:8016/ofrep/v1/evaluate/flags/database-writes-enabled -d '{\"context\":{\"database\":\"db1:5432/orders\"}}'

It needs no plan. What it is asked, it answers itself: the server hears of its clients in sum.")]
pub(crate) struct Agent {
    /// The server that it gets its own lease from.
    #[arg(long, value_name = "URL", env = "CUTOVER_SERVER")]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// What the server calls this agent; else the host's name.
    #[arg(long, value_name = "NAME", env = "CUTOVER_INSTANCE")]
    pub(crate) name: Option<String>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8016", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) door: Door,
    /// How long clients may rely on an answer without asking again, at most; never longer than the agent's own lease.
    #[arg(long, value_name = "DURATION", value_parser = lease, default_value = "2s")]
    pub(crate) lease: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token. It is printed once, on standard output; the file keeps its hash.
    #[command(after_help = "Example:\n  cutover token create checkout --role client --expires 90d")]
    Create {
        /// Whose it is; what the journal names as the actor.
        name: String,
        /// What it lets its holder do.
        #[arg(long, value_name = "ROLE")]
        role: TokenRole,
        /// How long it is good for; without end where not given.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
        /// The file of tokens.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List all tokens: names, roles and times.
    List {
        /// The file of tokens.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Take a token back. Servers refuse it within a second.
    Revoke {
        /// Its name.
        name: String,
        /// The file of tokens.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// What a token lets its holder do; each may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenRole {
    /// Ask for flags and leases: an application.
    Client,
    /// Look at everything: a dashboard.
    Viewer,
    /// Drive a cutover.
    Operator,
    /// All of it.
    Admin,
}

impl From<TokenRole> for Role {
    fn from(role: TokenRole) -> Self {
        match role {
            TokenRole::Client => Self::Client,
            TokenRole::Viewer => Self::Viewer,
            TokenRole::Operator => Self::Operator,
            TokenRole::Admin => Self::Admin,
        }
    }
}

/// Shorter ones cost more requests than they save time; longer ones stop a switch for too long.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(200)..=Duration::from_secs(60);
    if allowed.contains(&lease) { Ok(lease) } else { Err("has to be 200ms to 60s".to_owned()) }
}
