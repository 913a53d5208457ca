//! Data on standard output, everything else on standard error.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use cutover_engine::{EngineError, LastVerification};
use cutover_postgres::PgError;
use serde::Serialize;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{args::Output, traces::Traces};

/// The version of the JSON that `--output json` prints.
pub(crate) const JSON_VERSION: u32 = 1;

/// Why a command failed, as a person is told.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) code: u8,
    /// Whether standard output has its JSON object already: there is one for each command.
    answered: bool,
}

impl Failure {
    /// Exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1, answered: false }
    }

    /// Exit code 2: what was typed, or the plan, can't be meant.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, ..Self::new(message) }
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What failed is told by the data that was printed.
    pub(crate) fn answered(self) -> Self {
        Self { answered: true, ..self }
    }

    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self { message: describe(&error), hint: error.hint(), code: error.exit_code(), answered: false }
    }
}

/// The server's own words and hint.
impl From<PgError> for Failure {
    fn from(error: PgError) -> Self {
        Self { hint: error.hint().map(str::to_owned), ..Self::new(error.to_string()) }
    }
}

impl From<cutover_testkit::Error> for Failure {
    fn from(error: cutover_testkit::Error) -> Self {
        Self { hint: error.hint(), ..Self::new(error.to_string()) }
    }
}

fn describe(error: &EngineError) -> String {
    match error {
        EngineError::Traffic(traffic) | EngineError::Plan(traffic) => traffic.report(),
        EngineError::Differences { examples, .. } if !examples.is_empty() => format!("{error}:\n  {}", examples.join("\n  ")),
        other => other.to_string(),
    }
}

/// Prints a failure, and gives its exit code.
pub(crate) fn fail(failure: &Failure, output: Output) -> ExitCode {
    let paint = Paint::stderr();
    to_stderr(&format!("{} {}", paint.red("error:"), failure.message));
    if let Some(hint) = &failure.hint {
        to_stderr(&format!("\n{} {hint}", paint.cyan("hint:")));
    }
    if output == Output::Json && !failure.answered {
        let error = serde_json::json!({ "error": { "message": failure.message, "hint": failure.hint, "exit_code": failure.code } });
        print_json(&error);
    }
    ExitCode::from(failure.code)
}

/// One JSON object on one line of standard output, with the format's version.
pub(crate) fn print_json(value: &impl Serialize) {
    let mut object = serde_json::json!({ "version": JSON_VERSION });
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(fields)) => {
            if let Some(object) = object.as_object_mut() {
                object.extend(fields);
            }
        }
        Ok(other) => object["data"] = other,
        Err(error) => object["error"] = serde_json::json!({ "message": error.to_string() }),
    }
    to_stdout(&object.to_string());
}

/// One line of standard output. A closed pipe is nobody's error.
pub(crate) fn to_stdout(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// One line of standard error.
pub(crate) fn to_stderr(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Logs of our own and of libraries to standard error, for `-v`; and traces, where somebody collects them.
pub(crate) fn log(verbose: u8, traces: Option<&Traces>) {
    let level = match verbose {
        // A server has nobody but its log to tell why it refuses.
        0 => "error,cutover_server=warn",
        1 => "cutover=info,cutover_engine=info,cutover_postgres=info,cutover_server=info,cutover_traffic=info,warn",
        _ => "debug",
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(Paint::stderr().on);
    let lines = lines.with_filter(EnvFilter::new(level));
    tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)).init();
}

/// Colours, where somebody can see them and has not asked for none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    pub(crate) fn stdout() -> Self {
        Self { on: wanted() && std::io::stdout().is_terminal() }
    }

    pub(crate) fn stderr() -> Self {
        Self { on: wanted() && std::io::stderr().is_terminal() }
    }

    /// For text that is read elsewhere.
    pub(crate) fn none() -> Self {
        Self { on: false }
    }

    fn code(self, code: u8, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.code(31, text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.code(32, text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.code(33, text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.code(36, text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.code(1, text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.code(2, text)
    }
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `1.5 GB`, `12 kB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `4 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// What a verification has established, and when: `1,234,567 rows up to 0/3A000000, 12 min 5 s ago`.
pub(crate) fn verified(last: &LastVerification) -> String {
    let upto = last.lsn.map(|lsn| format!(" up to {lsn}")).unwrap_or_default();
    format!("{} rows{upto}, {} ago", thousands(last.rows), duration(last.age().as_secs_f64()))
}

/// `1,234,567`.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!((bytes(999).as_str(), bytes(1500).as_str(), bytes(2_000_000_000).as_str()), ("999 B", "1.5 kB", "2.0 GB"));
        assert_eq!((thousands(12).as_str(), thousands(1234).as_str(), thousands(1_234_567).as_str()), ("12", "1,234", "1,234,567"));
    }
}
