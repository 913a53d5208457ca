//! The `cutover` command: what was typed, what it means, and who does it.

mod args;
mod commands;
mod left_out;
mod listen;
mod output;
mod plan_file;
mod stop;
mod traces;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::{
    args::{Cli, Verb},
    output::Failure,
    traces::Traces,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&Failure::new(format!("no threads: {error}")), cli.global.output),
    };
    let output = cli.global.output;
    let traces = match Traces::from_env(runtime.handle()) {
        Ok(traces) => traces,
        Err(failure) => return output::fail(&failure, output),
    };
    output::log(cli.global.verbose, traces.as_ref());
    let done = runtime.block_on(run(cli));
    // As long as there are threads that can tell.
    drop(traces);
    // A connection that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::fail(&failure, output),
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let global = &cli.global;
    match cli.verb {
        Verb::Init(args) => commands::init::run(global, &args),
        Verb::Check(remote) => commands::check::run(global, &remote).await,
        Verb::Plan(remote) => commands::plan::run(global, &remote).await,
        Verb::Rehearse(args) => commands::rehearse::run(global, &args).await,
        Verb::Run(args) => commands::drive::run(global, &args).await,
        Verb::Status(args) => Box::pin(commands::status::run(global, &args)).await,
        Verb::Verify(args) => Box::pin(commands::verify::run(global, &args)).await,
        Verb::Rollback(args) => commands::drive::rollback(global, &args).await,
        Verb::Complete(args) => commands::drive::complete(global, &args).await,
        Verb::Retire(args) => commands::drive::retire(global, &args).await,
        Verb::Audit(args) => Box::pin(commands::audit::run(global, &args)).await,
        Verb::Report(remote) => commands::report::run(global, &remote).await,
        Verb::Serve(args) => Box::pin(commands::serve::run(global, &args)).await,
        Verb::Agent(args) => commands::agent::run(global, &args).await,
        Verb::Token(args) => commands::serve::token(global, &args),
        Verb::Sql(args) => commands::sql::run(global, &args).await,
        Verb::Demo(args) => Box::pin(commands::demo::run(global, &args)).await,
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "cutover", &mut std::io::stdout());
            Ok(())
        }
        Verb::Man => clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()).map_err(|error| Failure::new(error.to_string())),
    }
}
