//! `cutover agent`: answers for a server on localhost.

use cutover_server::{ServerError, Upstream, agent};
use cutover_wire::{Reach, Token};

use super::serve::{address, conditions, through};
use crate::{
    args::{Agent, Global, Output},
    output::{Failure, print_json, to_stderr, to_stdout},
    stop,
};

pub(crate) async fn run(global: &Global, args: &Agent) -> Result<(), Failure> {
    let reach = Reach::with_ca_file(&args.server, token(args)?, args.ca.clone()).map_err(ServerError::Reach)?;
    let (server, instance) = (reach.address().to_owned(), args.name.clone().unwrap_or_else(host));
    let options = through(global, args.listen, &args.door, args.lease);
    let mut stop = stop::on_signal_saying("closing: requests under way may end");
    let mut running = agent(Upstream { reach, instance: instance.clone() }, options.clone()).await?;
    let address = address(&options, running.address());
    match global.output {
        Output::Json => print_json(&serde_json::json!({ "address": address, "server": server, "name": instance })),
        Output::Human => to_stdout(&format!("answering for {server} at {address}, as {instance}")),
    }
    to_stderr(&conditions(&options)?);
    tokio::select! {
        ended = running.ended() => return Ok(ended?),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    Ok(running.close().await?)
}

/// From the file, else from the environment. It is never an argument: those can be seen by everybody on the machine.
fn token(args: &Agent) -> Result<Option<Token>, Failure> {
    let Some(path) = &args.token_file else {
        return Ok(std::env::var("CUTOVER_TOKEN").ok().filter(|token| !token.is_empty()).map(Token::from));
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Token::from(text.trim().to_owned()))),
        Err(error) => Err(Failure::usage(format!("can't read the token in {}: {error}", path.display()))),
    }
}

fn host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
