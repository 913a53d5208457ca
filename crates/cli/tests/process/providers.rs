//! Stock OpenFeature providers, as their registries have them, each in a process of its own that asks what it is told to.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use cutover_testkit::providers;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::server::LIMIT;

/// How a provider asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The OpenFeature Remote Evaluation Protocol.
    Ofrep,
    /// flagd's evaluation, by gRPC.
    Rpc,
    /// flagd's sync: it is told the rules, and evaluates them itself.
    InProcess,
}

/// What the application is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    JavaScript,
    Python,
    Rust,
}

/// A provider that can be started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stock {
    pub(crate) language: Language,
    pub(crate) way: Way,
}

/// All of them.
pub(crate) const ALL: [Stock; 7] = [
    Stock { language: Language::JavaScript, way: Way::Ofrep },
    Stock { language: Language::Python, way: Way::Ofrep },
    Stock { language: Language::Rust, way: Way::Ofrep },
    Stock { language: Language::JavaScript, way: Way::Rpc },
    Stock { language: Language::Python, way: Way::Rpc },
    Stock { language: Language::JavaScript, way: Way::InProcess },
    Stock { language: Language::Python, way: Way::InProcess },
];

/// A provider that runs.
pub(crate) struct Provider {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Stock {
    /// Starts it, and returns when it is ready or has given up to be. TLS is trusted by `root`.
    pub(crate) async fn start(self, url: &str, token: Option<&str>, root: Option<&Path>) -> Provider {
        let mut child = self.command(root).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut provider = Provider { _child: child, stdin, lines: BufReader::new(stdout).lines() };
        let way = match self.way {
            Way::Ofrep => "ofrep",
            Way::Rpc => "rpc",
            Way::InProcess => "in-process",
        };
        assert_eq!(provider.says(&json!({ "url": url, "token": token, "way": way, "root": root })).await, json!("asks"));
        provider
    }

    fn command(self, root: Option<&Path>) -> Command {
        let flagd = if self.way == Way::Ofrep { "" } else { "-flagd" };
        let mut command = match self.language {
            Language::JavaScript => program("node", "ask.mjs", &format!("node{flagd}")),
            Language::Python => program("python3", "ask.py", &format!("python{flagd}")),
            Language::Rust => talking(Command::new(folder("rust").join("bin/cutover-ask"))),
        };
        if let Some(root) = root {
            command.env("NODE_EXTRA_CA_CERTS", root).env("REQUESTS_CA_BUNDLE", root);
        }
        command
    }
}

/// A program of ours, told where its packages are.
pub(crate) fn program(program: &str, script: &str, packages: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/providers").join(script)).arg(folder(packages));
    talking(command)
}

fn talking(mut command: Command) -> Command {
    command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn folder(packages: &str) -> PathBuf {
    let folder = providers().unwrap().join(packages);
    assert!(folder.is_dir(), "{} is missing: run scripts/providers.sh", folder.display());
    folder
}

impl Provider {
    /// Asks for flags, each with its type, which is that of what the application falls back to, and a context.
    pub(crate) async fn asked(&mut self, ask: &[(&str, Value, Value)]) -> Vec<Value> {
        let one = |(flag, fallback, context): &(&str, Value, Value)| {
            let kind = match fallback {
                Value::Bool(_) => "boolean",
                Value::Number(_) => "number",
                _ => "string",
            };
            json!({ "flag": flag, "type": kind, "fallback": fallback, "context": context })
        };
        let told = self.says(&ask.iter().map(one).collect()).await;
        told.as_array().unwrap().clone()
    }

    async fn says(&mut self, line: &Value) -> Value {
        let say = async {
            self.stdin.write_all(format!("{line}\n").as_bytes()).await?;
            self.lines.next_line().await
        };
        let told = tokio::time::timeout(LIMIT, say).await.expect("it says nothing").unwrap().expect("it ended");
        serde_json::from_str(&told).unwrap()
    }
}
