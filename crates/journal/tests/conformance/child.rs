//! Other processes: this test program, started once more to do one thing until it is killed.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use cutover_journal::{AppendError, Position};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::backend::{draft, open};

const ROLE: &str = "CUTOVER_JOURNAL_TEST_ROLE";
const PLACE: &str = "CUTOVER_JOURNAL_TEST_PLACE";
/// Begins what a process says to the test that started it.
const MARK: &str = "@@";
const LIMIT: Duration = Duration::from_secs(30);

/// A process at work on the journal at a place. It ends when it is dropped or its owner ends.
pub(crate) struct Process {
    child: Child,
    _stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(role: &str, place: &str) -> Self {
        Self::spawn(Command::new(std::env::current_exe().unwrap()), role, place)
    }

    /// One that can't write files beyond a size, in units of 512 bytes.
    pub(crate) fn start_with_file_limit(role: &str, place: &str, blocks: u32) -> Self {
        let mut command = Command::new("sh");
        // Ignored, the signal becomes an error of write().
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]).arg(std::env::current_exe().unwrap());
        Self::spawn(command, role, place)
    }

    /// What it says next; nothing when it has ended.
    pub(crate) async fn says(&mut self) -> Option<String> {
        loop {
            let line = timeout(LIMIT, self.lines.next_line()).await.expect("the process says nothing").unwrap()?;
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.to_owned());
            }
        }
    }

    /// Kills it with no warning, as `kill -9` does.
    pub(crate) async fn kill_9(&mut self) {
        self.child.kill().await.unwrap();
    }

    fn spawn(mut command: Command, role: &str, place: &str) -> Self {
        command.args(["child::process", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env(PLACE, place).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, _stdin: stdin, lines }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by other tests"]
async fn process() {
    let place = std::env::var(PLACE).expect("only other tests start this");
    match std::env::var(ROLE).unwrap().as_str() {
        "drive" => drive(&place).await,
        "append" => append(&place).await,
        "fill" => fill(&place).await,
        other => panic!("no such role: {other}"),
    }
}

async fn drive(place: &str) {
    let hold = open(place, "shop").await.drive("berta@elsewhere").await.unwrap();
    say(hold.who());
    until_abandoned().await;
}

/// Appends for ever, and says how far it is.
async fn append(place: &str) {
    let journal = open(place, "shop").await;
    let mut at = journal.head().await.unwrap().map_or(Position::ORIGIN, |(newest, _)| newest);
    let mut abandoned = tokio::spawn(until_abandoned());
    loop {
        at = journal.append_if(at, vec![draft(0, at.seq)]).await.unwrap().pop().unwrap().position();
        say(&at.seq.to_string());
        if timeout(Duration::ZERO, &mut abandoned).await.is_ok() {
            return;
        }
    }
}

/// Appends until the disk takes no more, then says how that ended and what the journal says then.
async fn fill(place: &str) {
    let journal = open(place, "shop").await;
    let mut at = Position::ORIGIN;
    let error = loop {
        let mut large = draft(0, at.seq);
        large.body = json!({ "filling": "x".repeat(64 * 1024) });
        match journal.append_if(at, vec![large]).await {
            Ok(mut entries) => at = entries.pop().unwrap().position(),
            Err(error) => break error,
        }
    };
    let how = if matches!(error, AppendError::Unknown { .. }) { "unknown" } else { "failed" };
    let entries = journal.load().await.unwrap().len();
    say(&format!("{how} {} {entries}", at.seq));
}

/// Returns when the test that started this process is gone.
async fn until_abandoned() {
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
}

fn say(what: &str) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{MARK}{what}").unwrap();
    stdout.flush().unwrap();
}
