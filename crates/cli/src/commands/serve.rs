//! `cutover serve`: the control plane over HTTP; and `cutover token`, who may use it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use cutover_core::plan::Traffic;
use cutover_engine::{Cutover, shadow::ShadowTables};
use cutover_server::{Options, Role, ServerError, Tell, Tls, TokenFile, serve, serve_tables};
use jiff::{SignedDuration, Timestamp};

use super::{remote::plain, sql::status::text};
use crate::{
    args::{Door, Global, Output, Serve, Token},
    output::{Failure, Paint, print_json, to_stderr, to_stdout},
    plan_file, stop,
};

/// How long an answer counts where neither the plan nor the command says.
const LEASE: Duration = Duration::from_secs(2);

/// How long requests under way may go on after Ctrl-C.
const GRACE: Duration = Duration::from_secs(5);

/// How what is known is told to whoever asks the server for it.
const TELL: Tell = Tell { status: plain, tables: |tables| text(tables, Paint::none()) };

pub(crate) async fn run(global: &Global, args: &Serve) -> Result<(), Failure> {
    let tables = shadow_tables(args)?;
    if plan_file::is_none(global)
        && let Some(tables) = tables
    {
        return serve_alone(global, args, tables).await;
    }
    let cutover = plan_file::open(global).await?;
    let places = cutover.plan().places().map_err(ServerError::Place)?;
    let options = options(global, args, &cutover);
    let (name, journal) = (cutover.plan().name.clone(), cutover.journal_location());
    let mut stop = stop::on_signal_saying("closing: requests under way may end");
    let archives = args.archives.clone().unwrap_or_else(|| plan_file::state(&global.plan).join("archives"));
    let mut running = serve(cutover, places, archives, TELL, tables, options.clone()).await?;
    let address = address(&options, running.address());
    match global.output {
        Output::Json => print_json(&serde_json::json!({ "address": address, "cutover": name })),
        Output::Human => to_stdout(&format!("serving {name} at {address}")),
    }
    to_stderr(&format!("journal {journal}\n{}", conditions(&options)?));
    tokio::select! {
        ended = running.ended() => return Ok(ended?),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    Ok(running.close().await?)
}

/// Serves shadow tables without any switch.
async fn serve_alone(global: &Global, args: &Serve, tables: ShadowTables) -> Result<(), Failure> {
    let options = through(global, args.listen, &args.door, args.lease.unwrap_or(LEASE));
    let (name, place) = (tables.name().to_owned(), tables.place());
    let mut stop = stop::on_signal_saying("closing: requests under way may end");
    let mut running = serve_tables(tables, TELL, options.clone()).await?;
    let address = address(&options, running.address());
    match global.output {
        Output::Json => print_json(&serde_json::json!({ "address": address, "shadow_tables": place })),
        Output::Human => to_stdout(&format!("serving the shadow tables of {name} at {address}")),
    }
    to_stderr(&conditions(&options)?);
    tokio::select! {
        ended = running.ended() => return Ok(ended?),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    Ok(running.close().await?)
}

fn shadow_tables(args: &Serve) -> Result<Option<ShadowTables>, Failure> {
    let url = args.shadow.shadow_tables.as_deref().map(plan_file::url).transpose()?;
    Ok(url.map(|url| ShadowTables::new(url, args.shadow.schema.clone()).watched(args.watch_tables)))
}

/// Where it can be reached.
pub(super) fn address(options: &Options, at: SocketAddr) -> String {
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{at}")
}

/// Who may ask, and how long an answer counts.
pub(super) fn conditions(options: &Options) -> Result<String, Failure> {
    let many = match options.tokens.read()?.len() {
        0 => "none: whoever reaches this address may do everything".to_owned(),
        many => format!("{many}, in {}", options.tokens.path().display()),
    };
    Ok(format!("tokens  {many}\nlease   {} s\nCtrl-C ends it", options.lease.as_secs_f64()))
}

fn options(global: &Global, args: &Serve, cutover: &Cutover) -> Options {
    let plan = cutover.plan();
    let planned = plan.traffic.iter().find_map(|traffic| if let Traffic::Flags { lease, .. } = traffic { Some(*lease) } else { None });
    through(global, args.listen, &args.door, args.lease.or(planned).unwrap_or(LEASE))
}

/// What a door's options come to.
pub(super) fn through(global: &Global, listen: SocketAddr, door: &Door, lease: Duration) -> Options {
    let tls = door.tls_certificate.clone().zip(door.tls_key.clone()).map(|(certificate, key)| Tls { certificate, key });
    let tokens = token_file(global, door.tokens.clone());
    Options { listen, tls, tokens, without_tokens: door.without_tokens, lease, grace: GRACE }
}

pub(crate) fn token(global: &Global, args: &Token) -> Result<(), Failure> {
    match args {
        Token::Create { name, role, expires, file } => {
            let file = token_file(global, file.clone());
            let until = expires.map(|life| SignedDuration::try_from(life).ok().and_then(|life| Timestamp::now().checked_add(life).ok()));
            let expires_at = match until {
                Some(None) => {
                    return Err(Failure::usage("--expires is too long").with_hint("leave it away for a token that does not expire"));
                }
                Some(at) => at,
                None => None,
            };
            let text = file.make(name, Role::from(*role), expires_at)?;
            match global.output {
                Output::Json => print_json(&serde_json::json!({ "name": name, "token": text, "expires_at": expires_at })),
                Output::Human => to_stdout(&text),
            }
            to_stderr(&format!("{} keeps its hash only: nobody can show it again", file.path().display()));
        }
        Token::List { file } => list(global, &token_file(global, file.clone()))?,
        Token::Revoke { name, file } => {
            let file = token_file(global, file.clone());
            if !file.revoke(name)? {
                return Err(Failure::new(format!("there is no token `{name}` in {}", file.path().display()))
                    .with_hint("`cutover token list` shows them"));
            }
            to_stderr(&format!("`{name}` is revoked: servers refuse it within a second"));
        }
    }
    Ok(())
}

fn list(global: &Global, file: &TokenFile) -> Result<(), Failure> {
    let tokens = file.read()?;
    if global.output == Output::Json {
        let tokens: Vec<_> = tokens
            .iter()
            .map(|token| serde_json::json!({ "name": token.name, "role": token.role, "made_at": token.made_at, "expires_at": token.expires_at }))
            .collect();
        print_json(&serde_json::json!({ "tokens": tokens }));
        return Ok(());
    }
    let now = Timestamp::now();
    for token in tokens {
        let life = match token.expires_at {
            None => "does not expire".to_owned(),
            Some(at) if token.is_valid(now) => format!("until {at:.0}"),
            Some(at) => Paint::stdout().yellow(&format!("expired {at:.0}")),
        };
        to_stdout(&format!("{:<24} {:<9} made {:.0}  {life}", token.name, format!("{:?}", token.role).to_lowercase(), token.made_at));
    }
    Ok(())
}

/// Beside the journal, where none is named.
fn token_file(global: &Global, named: Option<PathBuf>) -> TokenFile {
    TokenFile::new(named.unwrap_or_else(|| plan_file::state(&global.plan).join("tokens.json")))
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Engine(error) => error.into(),
            other => match other.hint() {
                Some(hint) => Self::new(other.to_string()).with_hint(hint),
                None => Self::new(other.to_string()),
            },
        }
    }
}
