//! One run of a shell command: bounded in time and output, killed as a group.

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cutover_core::plan::Secret;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    task::JoinSet,
    time::Instant,
};

use crate::TrafficError;

/// How much of a command's output is kept, in bytes, from its end.
const KEPT: usize = 4096;

/// How long to read on after the command ended: a child it left in the background may keep the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What a command that succeeded left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookOutput {
    /// The last 4 KiB of its standard output.
    pub stdout: String,
    /// The last 4 KiB of both its outputs, as they came.
    pub output: String,
    /// How long it ran.
    pub elapsed: Duration,
}

/// A command about to be run.
pub(crate) struct Process<'a> {
    action: String,
    command: &'a str,
    cwd: &'a Path,
    /// Variables to set, the last of a name wins.
    pub(crate) env: Vec<(String, String)>,
    /// Inherited variables to take out.
    pub(crate) remove: &'a [&'a str],
    /// Blotted out wherever it appears in the output.
    pub(crate) secret: Option<Secret>,
}

impl<'a> Process<'a> {
    /// `action` names it in errors.
    pub(crate) fn new(action: &str, command: &'a str, cwd: &'a Path) -> Self {
        Self { action: action.to_owned(), command, cwd, env: Vec::new(), remove: &[], secret: None }
    }

    /// Runs it to its end, but no longer than `timeout`.
    pub(crate) async fn run(self, timeout: Duration) -> Result<HookOutput, TrafficError> {
        let begun = Instant::now();
        let mut child = self.spawn().map_err(|source| self.io_error(source))?;
        let group = Group::of(&child);
        let listening = Listening::to(&mut child);
        let Ok(ended) = tokio::time::timeout_at(begun + timeout, child.wait()).await else {
            drop(group);
            let (_, output) = listening.finish(self.secret.as_ref()).await;
            return Err(TrafficError::CommandTimedOut { command: self.name(), waited: begun.elapsed(), output });
        };
        group.forget();
        let status = ended.map_err(|source| self.io_error(source))?;
        let (stdout, output) = listening.finish(self.secret.as_ref()).await;
        if status.success() {
            Ok(HookOutput { stdout, output, elapsed: begun.elapsed() })
        } else {
            Err(TrafficError::CommandFailed { command: self.name(), status, output })
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(self.command).current_dir(self.cwd);
        for name in self.remove {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true).spawn()
    }

    fn name(&self) -> String {
        if self.action == "hook" { "the hook's command".to_owned() } else { format!("the command for {}", self.action) }
    }

    fn io_error(&self, source: std::io::Error) -> TrafficError {
        TrafficError::CommandIo { command: self.name(), source }
    }
}

/// The process group of a child that was not waited for yet; dropping it kills all of it.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// The child ended by itself; its number may belong to somebody else from now on.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It fails only when the group is gone already, which is what is wanted.
        let _ = self.0.map(|group| killpg(group, Signal::SIGKILL));
    }
}

/// Reads both outputs of a child as they come.
struct Listening {
    readers: JoinSet<()>,
    stdout: Arc<Mutex<Vec<u8>>>,
    both: Arc<Mutex<Vec<u8>>>,
}

impl Listening {
    fn to(child: &mut Child) -> Self {
        let (mut readers, stdout, both) = (JoinSet::new(), Arc::default(), Arc::default());
        if let Some(pipe) = child.stdout.take() {
            readers.spawn(listen(pipe, vec![Arc::clone(&stdout), Arc::clone(&both)]));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.spawn(listen(pipe, vec![Arc::clone(&both)]));
        }
        Self { readers, stdout, both }
    }

    /// Standard output, and both outputs, with `secret` blotted out.
    async fn finish(mut self, secret: Option<&Secret>) -> (String, String) {
        // Whether or not all was read: what there is by now is what is kept.
        let _ = tokio::time::timeout(LAST_WORDS, async { while self.readers.join_next().await.is_some() {} }).await;
        (text(&self.stdout, secret), text(&self.both, secret))
    }
}

async fn listen(mut pipe: impl AsyncRead + Unpin, sinks: Vec<Arc<Mutex<Vec<u8>>>>) {
    let mut buffer = [0; KEPT];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        for sink in &sinks {
            let mut kept = sink.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..count]);
            let surplus = kept.len().saturating_sub(KEPT);
            kept.drain(..surplus);
        }
    }
}

fn text(kept: &Mutex<Vec<u8>>, secret: Option<&Secret>) -> String {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let text = String::from_utf8_lossy(&kept).into_owned();
    match secret.map(Secret::expose).filter(|secret| !secret.is_empty()) {
        Some(secret) => text.replace(secret, "***"),
        None => text,
    }
}
