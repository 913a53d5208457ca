//! Developer tasks: `cargo xtask` says which.

use std::{
    io::Write as _,
    process::{Command, ExitCode},
};

mod test;
mod tidy;
mod tree;

const HELP: &str = "\
usage: cargo xtask TASK

tasks:
  tidy           checks the rules of the house that no compiler knows (xtask/src/tidy/, one file each)
  test [ARG…]    runs `cargo test --workspace` with these arguments, and sums up all its test binaries
  help           this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["help" | "--help" | "-h"] => say(HELP).map(|()| ExitCode::SUCCESS),
        ["tidy"] => tidy::run(&tree::root()),
        ["test", rest @ ..] => test::run(&tree::root(), rest),
        _ => {
            complain(&format!("error: no such task: {}\n\n{HELP}", arguments.join(" ")));
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        complain(&format!("error: {error:#}\n"));
        ExitCode::FAILURE
    })
}

/// What was asked for.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Everything else. If nobody listens on stderr, there is nobody to tell.
fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Cargo, the one that started us.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
