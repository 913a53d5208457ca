//! `cutover agent`: answers for a server on localhost.

use cutover_server::{Upstream, agent};

use super::{
    remote::reach,
    serve::{address, conditions, through},
};
use crate::{
    args::{Agent, Global, Output},
    output::{Failure, print_json, to_stderr, to_stdout},
    stop,
};

pub(crate) async fn run(global: &Global, args: &Agent) -> Result<(), Failure> {
    let reach = reach(&args.server, &args.trust)?;
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

fn host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
