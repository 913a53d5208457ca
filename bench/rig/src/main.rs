//! The rig: what `bench/` measures a server and the SDK with. It is told what to do by `bench/main.py`, and answers in JSON.

mod crowd;
mod load;
mod permit;
mod wire;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(about = "Measures cutover's server and SDK; bench/run.sh calls it")]
enum Command {
    /// The same request over and over, over so many connections.
    Load(load::Load),
    /// Clients that keep a lease, until standard input ends.
    Crowd(crowd::Crowd),
    /// What one check costs in the application's own process.
    Permit(permit::Permit),
}

fn main() -> Result<()> {
    let answer = match Command::parse() {
        Command::Load(load) => serde_json::to_value(load.run()?)?,
        Command::Crowd(crowd) => serde_json::to_value(crowd.run()?)?,
        Command::Permit(permit) => serde_json::to_value(permit.run()?)?,
    };
    println!("{answer}");
    Ok(())
}

/// One thread: the server should have the others.
fn one_thread() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
