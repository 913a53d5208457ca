//! Runs all the tests, and says at the end how many there were.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{ExitCode, Stdio},
    thread::available_parallelism,
};

use anyhow::{Context as _, Result};

use crate::{cargo, complain};

/// So many tests at once and no more: most of them start servers, and want more than one core each.
const MOST_AT_ONCE: usize = 8;

/// What the closing lines of the test binaries say, together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs `cargo test` over the workspace, or the packages that the arguments name. Every line is passed on as it comes; the last one is the sum. The exit code is
/// cargo's.
///
/// # Errors
/// Cargo can't be run, or nobody takes the output.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(scope(arguments)).args(arguments).current_dir(root).stdout(Stdio::piped());
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = available_parallelism().map_or(1, usize::from);
        command.env("RUST_TEST_THREADS", cores.min(MOST_AT_ONCE).to_string());
    }
    let mut child = command.spawn().context("can't run cargo")?;
    let mut total = Total::default();
    if let Some(output) = child.stdout.take() {
        pass_on(BufReader::new(output), &mut total)?;
    }
    let status = child.wait().context("cargo was lost")?;
    if !status.success() && total.failed == 0 {
        complain(
            "error: cargo failed without a failed test: something did not compile, or a test binary did not reach its end; see above\n",
        );
    }
    writeln!(std::io::stdout(), "\n{total}")?;
    Ok(ExitCode::from(status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1))))
}

/// Cargo would pass over a package's name in silence if it was asked for the whole workspace too.
fn scope(arguments: &[&str]) -> Option<&'static str> {
    let of_cargo = arguments.iter().take_while(|argument| **argument != "--");
    let named = of_cargo.into_iter().any(|argument| argument.starts_with("-p") || argument.starts_with("--package"));
    (!named).then_some("--workspace")
}

/// Prints each line at once, and notes down those that close a test binary.
fn pass_on(mut lines: impl BufRead, total: &mut Total) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).context("can't read what cargo says")? > 0 {
        out.write_all(&line)?;
        out.flush()?;
        // A test may print anything.
        total.add(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

impl Total {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    /// Any other line changes nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.trim_end().strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
        let count = |what: &str| {
            let part = counts.split("; ").find_map(|part| part.strip_suffix(what))?;
            part.trim().parse::<u64>().ok()
        };
        if let (Some(passed), Some(failed)) = (count(" passed"), count(" failed")) {
            self.passed += passed;
            self.failed += failed;
            self.ignored += count(" ignored").unwrap_or(0);
        }
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.ignored > 0 {
            writeln!(f, "{} are left out: they are started by other tests, or by their names", self.ignored)?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

test b ... FAILED
test result: FAILED. 40 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 61.20s
";

    #[test]
    fn the_closing_lines_of_all_binaries_are_summed_up() {
        let mut total = Total::default();
        OUTPUT.lines().for_each(|line| total.add(line));
        assert_eq!(total, Total { passed: 42, failed: 3, ignored: 1 });
    }

    #[test]
    fn a_package_that_is_named_is_tested_alone() {
        assert_eq!(scope(&[]), Some("--workspace"));
        assert_eq!(scope(&["gate", "--", "-p"]), Some("--workspace"));
        assert_eq!(scope(&["-p", "xtask"]), None);
        assert_eq!(scope(&["--package=xtask"]), None);
    }

    #[test]
    fn the_last_line_is_the_sum() {
        let total = Total { passed: 42, failed: 3, ignored: 1 };
        assert_eq!(total.to_string().lines().last(), Some("42 passed, 3 failed"));
    }

    #[test]
    fn what_a_test_prints_is_not_counted() {
        let mut total = Total::default();
        for line in ["test result: who knows", "the test result: ok. 2 passed; 0 failed", "test result: ok. many passed; 0 failed", ""] {
            total.add(line);
        }
        assert_eq!(total, Total::default());
    }
}
