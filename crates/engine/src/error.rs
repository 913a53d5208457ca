//! What can stop a cutover, kept apart by what it means for whoever started it.

use cutover_core::{Illegal, Refusal};
use cutover_journal::{AppendError, DriveError, JournalError};
use cutover_postgres::{
    PgError,
    preflight::Finding,
    verify::user_check::{self, Verdict},
};
use cutover_traffic::TrafficError;

/// Why a cutover stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another driver holds the cutover. Nothing was done.
    #[error("{0}")]
    Held(DriveError),
    /// Another driver took the cutover over while we drove it. We have stopped.
    #[error("another driver has taken this cutover over: {0}")]
    Superseded(String),
    /// It is not possible from where the cutover stands. Nothing was done.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Preflight found what blocks. Nothing was done.
    #[error("{} of preflight's findings block", blocking(findings))]
    Findings {
        /// All findings.
        findings: Vec<Finding>,
    },
    /// The plan wants a green rehearsal, and there is none that counts. Nothing was done.
    #[error("the plan wants to be rehearsed before the switch: {why}")]
    NotRehearsed {
        /// What is missing.
        why: String,
    },
    /// Both sides differ.
    #[error("the two sides differ in {count} rows")]
    Differences {
        /// How many rows.
        count: u64,
        /// The first of them.
        examples: Vec<String>,
    },
    /// More rows differ than are to be mended. None was.
    #[error("the two sides differ in {rows} rows, more than --max-repairs ({most}); none was repaired")]
    TooManyDiffer {
        /// How many rows differ.
        rows: u64,
        /// How many may be mended.
        most: u64,
        /// The plan's name.
        plan: String,
    },
    /// Rows that changed while a switch was prepared are not the same on both sides; the switch was undone.
    #[error("the switch was undone, and writes go on at the old side: {count} rows that changed differ: {}", examples.join("; "))]
    Changed {
        /// How many rows.
        count: u64,
        /// The first of them.
        examples: Vec<String>,
    },
    /// Large objects are not the same on both sides, behind the fence; the switch was undone.
    #[error("the switch was undone, and writes go on at the old side: {count} large objects differ: {}", examples.join("; "))]
    LargeObjects {
        /// How many.
        count: u64,
        /// The first of them.
        examples: Vec<String>,
    },
    /// The user's own checks did not all pass.
    #[error("{}", not_passed(reports))]
    Checks {
        /// Those that did not.
        reports: Vec<user_check::Report>,
    },
    /// It could not be established whether both sides are the same. That is not a yes.
    #[error("{0}")]
    Inconclusive(String),
    /// The pause did not end within its budget, and was undone each time.
    #[error("the pause ran out of its budget {attempts} times and was undone: {last}")]
    PauseExhausted {
        /// How often it was tried.
        attempts: u32,
        /// What took too long the last time.
        last: String,
    },
    /// A switch was given up before its commit point, and was undone.
    #[error("the switch was undone: {why}")]
    Undone {
        /// Why.
        why: String,
        /// How to do better next time.
        hint: Option<String>,
    },
    /// Somebody pressed Ctrl-C, before the commit point.
    #[error("interrupted; {0}")]
    Interrupted(String),
    /// The outcome of an effect can't be established. A person must look.
    #[error("{what}")]
    Unknown {
        /// What is not known.
        what: String,
        /// What to look at.
        look: String,
    },
    /// A hook of the user's failed.
    #[error("{0}")]
    Hook(String),
    /// The plan, the journal and the databases don't fit together.
    #[error("{what}")]
    Mismatch {
        /// How.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A database refused or broke off.
    #[error("{side}: {source}")]
    Database {
        /// Which, or both.
        side: String,
        /// What it said.
        source: PgError,
    },
    /// Traffic could not be held or sent elsewhere.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// The plan describes traffic that can't be. Nothing was done.
    #[error(transparent)]
    Plan(TrafficError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An entry was certainly not appended.
    #[error(transparent)]
    Append(AppendError),
    /// The journal holds what this protocol can't have written.
    #[error("the journal is damaged: {0}")]
    Illegal(#[from] Illegal),
    /// A file could not be used.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Result of the engine.
pub type EngineResult<T> = Result<T, EngineError>;

impl EngineError {
    /// Wraps a database's answer; a newer driver's mark on it becomes [`EngineError::Superseded`].
    pub fn database(side: impl ToString) -> impl FnOnce(PgError) -> Self {
        move |source| match source {
            PgError::Superseded(what) => Self::Superseded(what),
            source => Self::Database { side: side.to_string(), source },
        }
    }

    /// The exit code that says so: 1 failed, 3 a gate said no, 4 inconclusive, 5 ran out of the pause and was undone,
    /// 6 somebody else drives it, 7 outcome unknown.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Plan(_) => 2,
            Self::Findings { .. }
            | Self::NotRehearsed { .. }
            | Self::Differences { .. }
            | Self::TooManyDiffer { .. }
            | Self::Changed { .. }
            | Self::LargeObjects { .. } => 3,
            Self::Checks { reports } if reports.iter().any(|report| report.verdict == Verdict::Fail) => 3,
            Self::Inconclusive(_) | Self::Checks { .. } => 4,
            Self::PauseExhausted { .. } => 5,
            Self::Held(_) | Self::Superseded(_) => 6,
            Self::Unknown { .. } => 7,
            _ => 1,
        }
    }

    /// Whether it repeats what a database or a program of its said, and not only words of ours.
    #[must_use]
    pub fn quotes_a_database(&self) -> bool {
        let ours = |error: &PgError| matches!(error, PgError::Refused { .. } | PgError::Mismatch(_) | PgError::TimedOut { .. });
        matches!(self, Self::Database { source, .. } if !ours(source))
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(Refusal::TablesChanged { .. }) => {
                let hint =
                    "put [tables] back as it was; other tables want a cutover begun anew, after `cutover rollback --confirm` with this one";
                Some(hint.to_owned())
            }
            Self::Held(_) => Some("wait for it, or stop it; `cutover status` shows where it stands".to_owned()),
            Self::Superseded(_) => Some("nothing was harmed; `cutover status` shows where it stands".to_owned()),
            Self::Findings { .. } => Some("mend what is marked `error`; each finding says how; then `cutover check` again".to_owned()),
            Self::NotRehearsed { .. } => {
                Some("`cutover rehearse` holds one and remembers it beside the plan, in .cutover/rehearsed.json".to_owned())
            }
            Self::Differences { .. } => Some("`cutover verify` lists the rows; the target must not be written to by others".to_owned()),
            Self::TooManyDiffer { plan, .. } => Some(format!(
                "so many are copied anew rather: before any switch `cutover rollback --confirm {plan}` and a new cutover; or raise --max-repairs"
            )),
            Self::Changed { .. } => Some(
                "mend the rows at the side that follows, then `cutover verify`; `in_pause = \"off\"` in the plan's [verify] does without"
                    .to_owned(),
            ),
            Self::LargeObjects { .. } => Some(
                "somebody wrote them at the side that follows; try again: before the next pause they are made what the other side's are"
                    .to_owned(),
            ),
            Self::Checks { .. } => Some("nothing was held; `cutover verify --only-checks` asks again".to_owned()),
            Self::Inconclusive(_) => Some("`cutover status` shows whether the stream flows; then try again".to_owned()),
            Self::PauseExhausted { .. } => {
                Some("writes go on as before; end long transactions, or allow more with pause.budget and pause.attempts".to_owned())
            }
            Self::Undone { hint, .. } => hint.clone(),
            Self::Unknown { look, .. } => Some(look.clone()),
            Self::Mismatch { hint, .. } => Some(hint.clone()),
            Self::Database { source, .. } => source.hint().map(str::to_owned),
            Self::Interrupted(_) => Some("`cutover status` shows where it stands and what is next".to_owned()),
            Self::Traffic(error) | Self::Plan(error) => error.hint(),
            _ => None,
        }
    }
}

fn blocking(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.blocks()).count()
}

impl From<PgError> for EngineError {
    fn from(error: PgError) -> Self {
        Self::database("database")(error)
    }
}

/// Each in full: what a person needs to see is what both sides answered.
fn not_passed(reports: &[user_check::Report]) -> String {
    let each: Vec<String> = reports.iter().map(|report| report.to_string().replace('\n', "\n  ")).collect();
    let checks = if reports.len() == 1 { "check" } else { "checks" };
    format!("{} {checks} of the plan did not pass:\n  {}", reports.len(), each.join("\n  "))
}
