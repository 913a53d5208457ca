//! Server processes that run as an ordinary user, in a folder of their own, and never outlive their owner.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use tempfile::TempDir;

use crate::{Error, Result, eventually};

/// How long an auxiliary program, such as `initdb`, may run. Generous: many may run at once on a small machine.
const PROGRAM_LIMIT: Duration = Duration::from_secs(120);

/// How long a process may take to go after it was killed, or told to go at once.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How much of a log or of a program's output is shown, in lines.
const TAIL_LINES: usize = 30;

/// Waits until its owner is gone, however that happened, then ends the server whose pid it was told last.
/// An own process group and deaf ears keep it alive when a terminal's Ctrl-C or hang-up takes the owner.
const WATCHDOG: &str = r#"
trap '' HUP INT QUIT TERM
pid=0
while read -r line; do pid=$line; done
if [ "$pid" -gt 0 ]; then
  kill -"$1" "$pid"
  kill -CONT "$pid"
  n=0
  while [ "$n" -lt 100 ] && kill -0 "$pid"; do sleep 0.1; n=$((n + 1)); done
  kill -KILL "$pid"
fi
rm -rf "$2"
"#;

/// A folder for one server, with the server that runs in it.
pub(crate) struct Home {
    name: String,
    dir: TempDir,
    account: Option<Account>,
    quit: Signal,
    server: Mutex<Option<Child>>,
    /// Where in the log the present run of the server begins, in bytes.
    run_start: AtomicUsize,
    watchdog: Mutex<Watchdog>,
}

impl Home {
    /// A new folder, and a watchdog over it. `quit` is the signal upon which the server ends at once, but tidily.
    pub(crate) fn create(name: &str, quit: Signal) -> Result<Self> {
        let account = Account::for_servers()?;
        let dir = temp_dir(name, account.as_ref())?;
        let watchdog = Mutex::new(Watchdog::start(dir.path(), quit)?);
        Ok(Self { name: name.to_owned(), dir, account, quit, server: Mutex::new(None), run_start: AtomicUsize::new(0), watchdog })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A program to run here: as the servers' user, with nothing of our environment.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.path()).env("LC_ALL", locale()).env("TZ", "UTC");
        command.current_dir(self.path()).stdin(Stdio::null()).process_group(0);
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Writes a file that the server may read.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<PathBuf> {
        let path = self.path().join(file);
        std::fs::write(&path, text)
            .and_then(|()| self.give(&path))
            .map_err(|source| Error::io(format!("write {}", path.display()), source))?;
        Ok(path)
    }

    /// Runs a program to its end.
    pub(crate) async fn run(&self, command: Command) -> Result<()> {
        let program = PathBuf::from(command.get_program());
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let output = match tokio::time::timeout(PROGRAM_LIMIT, command.output()).await {
            Ok(output) => output.map_err(|source| Error::Spawn { program, source })?,
            Err(_) => return Err(Error::timed_out(format!("the end of {name}"), PROGRAM_LIMIT)),
        };
        if output.status.success() {
            return Ok(());
        }
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Err(Error::Program { program: name, output: tail(&said) })
    }

    /// Starts the server; what it says goes to its log.
    pub(crate) fn spawn(&self, mut command: Command) -> Result<()> {
        let log = self.open_log()?;
        let copy = log.try_clone().map_err(|source| Error::io("share the log", source))?;
        self.run_start.store(self.log().len(), Ordering::Relaxed);
        let mut server = self.server();
        let child = command.stdout(log).stderr(copy).spawn();
        let child = child.map_err(|source| Error::Spawn { program: command.get_program().into(), source })?;
        self.watchdog().tell(child.id());
        *server = Some(child);
        Ok(())
    }

    /// The server's process, while it lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        let mut server = self.server();
        let ended = server.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if !ended {
            return server.as_ref().map(Child::id);
        }
        if server.take().is_some() {
            // Its number may be somebody else's soon.
            self.watchdog().tell(0);
        }
        None
    }

    /// The server's process.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if there is none.
    pub(crate) fn running(&self) -> Result<u32> {
        self.pid().ok_or_else(|| Error::NotRunning(self.name.clone()))
    }

    /// Sends a signal to the server itself.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        send(self.running()?, signal);
        Ok(())
    }

    /// Waits for the server's end.
    pub(crate) async fn ended(&self, limit: Duration) -> Result<()> {
        let what = || Error::timed_out(format!("the end of {}", self.name), limit);
        eventually(limit, || async { self.pid().is_none() }).await.map_err(|_| what())
    }

    /// Stops the server and its children in their tracks, and lists them: the server first.
    pub(crate) async fn freeze(&self) -> Result<Vec<u32>> {
        let pid = self.running()?;
        send(pid, Signal::SIGSTOP);
        // Only a server that has really stopped can't start another child behind our back.
        eventually(EXIT_LIMIT, || async { process(pid).is_none_or(|process| process.state == 'T') }).await?;
        let children = children(pid);
        children.iter().for_each(|child| send(*child, Signal::SIGSTOP));
        Ok([vec![pid], children].concat())
    }

    /// Lets the server and its children go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        let pid = self.running()?;
        children(pid).into_iter().chain([pid]).for_each(|pid| send(pid, Signal::SIGCONT));
        Ok(())
    }

    /// Kills the server and its children with no warning, and waits until none of them is left.
    pub(crate) async fn kill(&self) -> Result<()> {
        let all = self.freeze().await?;
        all.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
        self.ended(EXIT_LIMIT).await?;
        eventually(EXIT_LIMIT, || async { !all.iter().any(|pid| alive(*pid)) }).await
    }

    /// The end of the server's log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log())
    }

    /// What the server has said since it was started last.
    pub(crate) fn log_of_this_run(&self) -> String {
        self.log().get(self.run_start.load(Ordering::Relaxed)..).unwrap_or_default().to_owned()
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.path().join("server.log")
    }

    /// An error that carries the end of the log.
    pub(crate) fn error(&self, what: &str) -> Error {
        Error::Server { server: self.name.clone(), what: what.to_owned(), log: self.log_tail() }
    }

    /// Ends the server now. Blocks for the moment that takes: it is what `Drop` uses.
    fn take_down(&self) {
        let Some(pid) = self.pid() else { return };
        // The server first: it must hear of the end before its children go, or it takes them for crashed.
        send(pid, self.quit);
        children(pid).into_iter().chain([pid]).for_each(|pid| send(pid, Signal::SIGCONT));
        let began = Instant::now();
        while self.pid().is_some() && began.elapsed() < EXIT_LIMIT {
            std::thread::sleep(LOOK_EVERY);
        }
        if let Some(pid) = self.pid() {
            [vec![pid], children(pid)].concat().into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
            while self.pid().is_some() && began.elapsed() < 2 * EXIT_LIMIT {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read(self.log_file()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn open_log(&self) -> Result<File> {
        let path = self.log_file();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        log.and_then(|log| self.give(&path).map(|()| log)).map_err(|source| Error::io(format!("open {}", path.display()), source))
    }

    fn give(&self, path: &Path) -> std::io::Result<()> {
        self.account.as_ref().map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watchdog(&self) -> MutexGuard<'_, Watchdog> {
        self.watchdog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.take_down();
    }
}

/// The user that servers run as when we are root, since PostgreSQL and `PgBouncer` refuse to be root.
struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None` if we are an ordinary user ourselves.
    fn for_servers() -> Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name).map_err(|errno| Error::io("read the users", errno.into()))? {
                return Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
            }
        }
        Err(Error::NotInstalled {
            what: "an ordinary user to run servers as".to_owned(),
            hint: "run this as an ordinary user, or add the user postgres".to_owned(),
        })
    }
}

/// The small process that sees our end when its pipe from us closes.
struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    fn start(dir: &Path, quit: Signal) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "watchdog", quit.as_str().trim_start_matches("SIG")]).arg(dir);
        command.current_dir("/").process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| Error::Spawn { program: "sh".into(), source })?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Whom to end; 0 for nobody.
    fn tell(&mut self, pid: u32) {
        if let Some(pipe) = &mut self.pipe {
            // One write, so that it is heard whole or not at all. A watchdog that is gone can't be helped from here.
            let _ = pipe.write_all(format!("{pid}\n").as_bytes());
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.pipe = None;
        let _ = self.child.wait();
    }
}

/// One line of the system's table of processes.
struct Process {
    pid: u32,
    parent: u32,
    state: char,
}

fn alive(pid: u32) -> bool {
    process(pid).is_some_and(|process| process.state != 'Z' && process.state != 'X')
}

fn children(parent: u32) -> Vec<u32> {
    processes().into_iter().filter(|process| process.parent == parent).map(|process| process.pid).collect()
}

fn process(pid: u32) -> Option<Process> {
    if has_proc() { from_proc(pid) } else { processes().into_iter().find(|process| process.pid == pid) }
}

fn processes() -> Vec<Process> {
    if !has_proc() {
        return from_ps();
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| from_proc(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}

/// `pid (name) state parent …`, where the name may hold anything, even brackets.
fn from_proc(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Process { pid, parent: fields.next()?.parse().ok()?, state })
}

fn from_ps() -> Vec<Process> {
    let Ok(output) = Command::new("ps").args(["-A", "-o", "pid=,ppid=,state="]).stdin(Stdio::null()).output() else { return Vec::new() };
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        Some(Process { pid: fields.next()?.parse().ok()?, parent: fields.next()?.parse().ok()?, state: fields.next()?.chars().next()? })
    };
    lines.lines().filter_map(parse).collect()
}

/// A process that is gone already needs no signal.
fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// A folder which the account owns and can reach; a socket's path in it stays short enough.
fn temp_dir(name: &str, account: Option<&Account>) -> Result<TempDir> {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    let candidates = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
    let base =
        candidates.into_iter().find(|base| base.is_dir() && (account.is_none() || searchable(base))).unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix(&format!("cutover-{name}-")).tempdir_in(&base);
    let give = |dir: TempDir| {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        account.map_or(Ok(()), |account| chown(dir.path(), Some(account.uid), Some(account.gid)))?;
        Ok(dir)
    };
    dir.and_then(give).map_err(|source| Error::io(format!("make a folder in {}", base.display()), source))
}

/// Whether everybody can pass through this folder and all above it.
fn searchable(folder: &Path) -> bool {
    folder.ancestors().all(|part| part.metadata().is_ok_and(|meta| meta.mode() & 0o001 != 0))
}

/// One that has UTF-8 and sorts by code point, the same everywhere.
pub(crate) fn locale() -> &'static str {
    if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
