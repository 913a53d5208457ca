//! The verbs that change something. This server drives one of them at a time; who drives the cutover at all, of several
//! servers and command lines, is the journal's to say.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use cutover_api::{Code, CompleteRequest, Drive, Outcome, Problem, RetireRequest, RollbackRequest, RunRequest, Until};
use cutover_core::{
    Event,
    clients::{Driving, Verb},
};
use cutover_engine::{EngineError, EngineResult, Failpoint, Goal, Notice, Report};
use opentelemetry::trace::FutureExt as _;
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use crate::{
    auth::Caller,
    front::whole_ms,
    permits::unreadable,
    problem::{NotAllowed, NotUnderstood, Refusal},
    serve::App,
    story::Story,
    words,
};

/// The longest reason. Unit: characters.
pub(crate) const MOST_REASON: usize = 1_000;

/// The exit code where somebody else drives.
const SOMEBODY_ELSE: u8 = 6;

/// What is driven, or was driven last.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    work: Mutex<Option<Work>>,
}

#[derive(Debug)]
struct Work {
    /// What another server would go on with; none where nobody does.
    driving: Option<Driving>,
    drive: Drive,
    began: Instant,
    /// Asks it to stop, as Ctrl-C does.
    stop: watch::Sender<bool>,
    stage: watch::Sender<Stage>,
}

/// How far a verb is that this server was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Asked,
    /// The journal says that it is this server that drives.
    Drives,
    Ended,
}

impl Work {
    fn now(&self) -> Drive {
        let elapsed_ms = if self.drive.outcome.is_some() { self.drive.elapsed_ms } else { whole_ms(self.began.elapsed()) };
        Drive { elapsed_ms, ..self.drive.clone() }
    }
}

fn name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Run { .. } => "run",
        Verb::Rollback { .. } => "rollback",
        Verb::Complete => "complete",
        Verb::Retire { .. } => "retire",
    }
}

/// Drives the cutover on: prepares, copies, follows, verifies, and switches. Goes on from wherever it stands.
#[utoipa::path(post, path = "/v1/run", tag = "drive", request_body = RunRequest, responses(Begun, NotAllowed, NotUnderstood))]
pub(crate) async fn run(State(app): State<App>, caller: Caller, request: Asked<RunRequest>) -> Answer {
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    let only_ready = request.until == Until::Ready;
    if !only_ready && !app.cutover.plan().switch.reverse && !confirmed(&app, request.confirm.as_deref())? {
        return Err(unconfirmed(&app, "the plan keeps no way back, so a switch wants to be confirmed"));
    }
    begin(&app, caller, Verb::Run { only_ready }, request.reason)
}

/// Goes back, keeping what the target took. With the plan's name confirmed, and the source in charge: gives the cutover up.
#[utoipa::path(post, path = "/v1/rollback", tag = "drive", request_body = RollbackRequest, responses(Begun, NotAllowed, NotUnderstood))]
pub(crate) async fn rollback(State(app): State<App>, caller: Caller, request: Asked<RollbackRequest>) -> Answer {
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    if request.reason.trim().is_empty() {
        return Err(Refusal::new(Code::BadRequest, "`reason` is empty").hint("say in a few words why, for the journal"));
    }
    let give_up = confirmed(&app, request.confirm.as_deref())?;
    begin(&app, caller, Verb::Rollback { give_up }, request.reason)
}

/// The target stays. The way back remains until `cutover retire`.
#[utoipa::path(post, path = "/v1/complete", tag = "drive", request_body = CompleteRequest, responses(Begun, NotAllowed, NotUnderstood))]
pub(crate) async fn complete(State(app): State<App>, caller: Caller, request: Asked<CompleteRequest>) -> Answer {
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    begin(&app, caller, Verb::Complete, request.reason)
}

/// Archives the source into a file in the server's folder of archives, reads it back, and drops the way back. For good.
#[utoipa::path(post, path = "/v1/retire", tag = "drive", request_body = RetireRequest, responses(Begun, NotAllowed, NotUnderstood))]
pub(crate) async fn retire(State(app): State<App>, caller: Caller, request: Asked<RetireRequest>) -> Answer {
    let Json(RetireRequest { archive, confirm, reason }) = request.map_err(|rejection| unreadable(&rejection))?;
    if !words::is_file_name(&archive) || archive.ends_with(".partial") {
        return Err(Refusal::new(Code::BadRequest, "`archive` is no name of a file in the server's folder of archives")
            .hint("1 to 128 letters, digits, `.`, `_` and `-`, such as orders-final.dump: no folder, no dot first, not .partial last"));
    }
    if !confirmed(&app, confirm.as_deref())? {
        return Err(unconfirmed(&app, "there is no way back from retiring, so it wants to be confirmed"));
    }
    begin(&app, caller, Verb::Retire { archive }, reason)
}

/// What this server drives, or drove last.
#[utoipa::path(get, path = "/v1/drive", tag = "drive", responses(
    (status = 200, description = "What it drives, or drove last", body = Drive),
    NotAllowed,
    (status = 404, description = "It has driven nothing yet", body = Problem)
))]
pub(crate) async fn driven(State(app): State<App>) -> Result<Json<Drive>, Refusal> {
    app.wheel.now().map(Json).ok_or_else(nothing)
}

/// Asks what is driven to stop, as Ctrl-C does: before the commit point a switch is undone, after it, it is finished.
#[utoipa::path(post, path = "/v1/stop", tag = "drive", responses(
    (status = 202, description = "It stops; GET /v1/drive says when it has", body = Drive),
    NotAllowed,
    (status = 404, description = "It has driven nothing yet", body = Problem)
))]
pub(crate) async fn stop(State(app): State<App>, caller: Caller) -> Answer {
    tracing::info!(actor = caller.name, "asked to stop");
    app.wheel.stop();
    app.wheel.now().map(|drive| (StatusCode::ACCEPTED, Json(drive))).ok_or_else(nothing)
}

/// How a verb is answered that can begin.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only what it documents is used")]
enum Begun {
    /// It drives; GET /v1/drive and the events say how far.
    #[response(status = 202)]
    Drives(Drive),
    /// This server drives already, or it is not confirmed with the plan's name.
    #[response(status = 409)]
    Unfit(Problem),
    /// The server is closing.
    #[response(status = 503)]
    Closing(Problem),
}

pub(crate) type Asked<T> = Result<Json<T>, JsonRejection>;
type Answer = Result<(StatusCode, Json<Drive>), Refusal>;

fn nothing() -> Refusal {
    Refusal::new(Code::NotFound, "this server has driven nothing yet").hint("GET /v1/status says where the cutover stands")
}

/// Whether the plan's name was given; another name is an error.
fn confirmed(app: &App, given: Option<&str>) -> Result<bool, Refusal> {
    let name = &app.cutover.plan().name;
    match given {
        None => Ok(false),
        Some(given) if given == name => Ok(true),
        Some(_) => Err(Refusal::new(Code::Unconfirmed, "`confirm` is not the plan's name; nothing was done")),
    }
}

pub(crate) fn bad_reason() -> Refusal {
    Refusal::new(Code::BadRequest, format!("`reason` has at most {MOST_REASON} characters, none of which is a control character"))
}

fn unconfirmed(app: &App, why: &str) -> Refusal {
    Refusal::new(Code::Unconfirmed, why).hint(format!("confirm it with the plan's name: {}", app.cutover.plan().name))
}

fn begin(app: &App, caller: Caller, verb: Verb, reason: String) -> Answer {
    if !words::is_line(&reason, MOST_REASON) {
        return Err(bad_reason());
    }
    let drive = start(&app.clone(), Driving { verb, actor: caller.name, reason })?;
    Ok((StatusCode::ACCEPTED, Json(drive)))
}

/// Drives, where this server drives nothing else and is not closing.
pub(crate) fn start(app: &App, driving: Driving) -> Result<Drive, Refusal> {
    app.refuse_when_closing()?;
    let Driving { verb, actor, reason } = driving.clone();
    let drive = Drive { verb: name(&verb).to_owned(), actor, reason, elapsed_ms: 0, told: None, outcome: None };
    let interrupt = app.wheel.begin(Some(driving.clone()), drive.clone())?;
    // Whoever would go on with it is to know of it at once.
    app.front.news.notify_one();
    // Within the trace of whoever asked, and on its own: the request does not last as long.
    tokio::spawn(work(app.clone(), driving, interrupt).with_current_context());
    Ok(drive)
}

async fn work(app: App, driving: Driving, interrupt: watch::Receiver<bool>) {
    let listener = Listener { story: &app.story, wheel: &app.wheel };
    let Driving { verb, actor, reason } = driving;
    let by = cutover_engine::Drive { actor, reason, report: &listener, interrupt, failpoint: Failpoint::default() };
    let done = match &verb {
        Verb::Run { only_ready } => app.cutover.run(by, if *only_ready { Goal::Ready } else { Goal::Switched }).await,
        Verb::Rollback { give_up } => app.cutover.rollback(by, *give_up).await,
        Verb::Complete => app.cutover.complete(by).await,
        Verb::Retire { archive } => retire_into(&app, by, archive).await,
    };
    let outcome = match done {
        Ok(_) => Outcome { code: 0, message: None, hint: None },
        Err(error) => outcome_of(&error, name(&verb)),
    };
    app.story.tell("outcome", json!(outcome));
    app.wheel.end(outcome);
    app.front.news.notify_one();
}

/// How it ended that failed. What a database said is for the log.
pub(crate) fn outcome_of(error: &EngineError, verb: &str) -> Outcome {
    tracing::warn!(%error, verb, "it ended");
    Outcome { code: error.exit_code(), message: Some(public(error)), hint: error.hint().filter(|_| !error.quotes_a_database()) }
}

/// Nobody but the server's own user can read what is in the folder of archives: it is the whole database.
async fn retire_into(app: &App, by: cutover_engine::Drive<'_>, archive: &str) -> EngineResult<cutover_core::State> {
    let folder = &app.archives;
    let made = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await;
    made.map_err(|source| EngineError::Io { doing: format!("making the folder {}", folder.display()), source })?;
    app.cutover.retire(by, &folder.join(archive)).await
}

/// What is said of a failure: not what a database said, which is for the log.
fn public(error: &EngineError) -> String {
    match error {
        EngineError::Database { side, .. } if error.quotes_a_database() => {
            format!("{side}: the database refused, or could not be reached; the server's log says what it said")
        }
        EngineError::Journal(_) | EngineError::Append(_) => "the journal failed; the server's log says how".to_owned(),
        EngineError::Io { doing, .. } => format!("{doing}: failed; the server's log says why"),
        other => other.to_string(),
    }
}

impl Wheel {
    /// Begins, where nothing is under way; the answer becomes true when it is to stop.
    pub(crate) fn begin(&self, driving: Option<Driving>, drive: Drive) -> Result<watch::Receiver<bool>, Refusal> {
        let (stop, interrupt) = watch::channel(false);
        self.take(Work { driving, drive, began: Instant::now(), stop, stage: watch::Sender::new(Stage::Asked) })?;
        Ok(interrupt)
    }

    fn take(&self, work: Work) -> Result<(), Refusal> {
        let mut current = self.lock();
        if let Some(current) = current.as_ref().filter(|current| current.drive.outcome.is_none()) {
            let Drive { verb, actor, .. } = &current.drive;
            let (does, hint) = match &current.driving {
                Some(_) => ("drives", "GET /v1/drive says how far it is; POST /v1/stop stops it"),
                None => ("verifies", "GET /v1/verify says how far it is; DELETE /v1/verify stops it"),
            };
            return Err(Refusal::new(Code::Busy, format!("this server {does} already: `{verb}`, asked for by {actor}")).hint(hint));
        }
        *current = Some(work);
        Ok(())
    }

    pub(crate) fn now(&self) -> Option<Drive> {
        self.lock().as_ref().map(Work::now)
    }

    fn tell(&self, line: String) {
        if let Some(work) = self.lock().as_mut() {
            work.drive.told = Some(line);
        }
    }

    pub(crate) fn end(&self, outcome: Outcome) {
        if let Some(work) = self.lock().as_mut() {
            work.drive.elapsed_ms = whole_ms(work.began.elapsed());
            work.drive.outcome = Some(outcome);
            work.stage.send_replace(Stage::Ended);
        }
    }

    pub(crate) fn stop(&self) {
        if let Some(work) = self.lock().as_ref() {
            work.stop.send_replace(true);
        }
    }

    /// Asks what is driven to stop, and waits until it has: a switch that has begun is undone or finished, never left.
    pub(crate) async fn rest(&self) {
        self.stop();
        self.reach(Stage::Ended).await;
    }

    /// What another server would go on with if this one died now: not what somebody asked to stop.
    pub(crate) fn driving(&self) -> Option<Driving> {
        let current = self.lock();
        current.as_ref().filter(|work| work.drive.outcome.is_none() && !*work.stop.borrow()).and_then(|work| work.driving.clone())
    }

    /// Waits until the journal says that this server drives, or it has ended; false where somebody else drives.
    pub(crate) async fn holds(&self) -> bool {
        self.reach(Stage::Drives).await;
        let elsewhere = |outcome: Outcome| outcome.code == SOMEBODY_ELSE;
        !self.now().and_then(|drive| drive.outcome).is_some_and(elsewhere)
    }

    fn took_over(&self) {
        if let Some(work) = self.lock().as_ref() {
            work.stage.send_replace(Stage::Drives);
        }
    }

    async fn reach(&self, stage: Stage) -> Option<Stage> {
        let mut stages = self.lock().as_ref()?.stage.subscribe();
        // Nobody else can end it.
        stages.wait_for(|reached| *reached >= stage).await.ok().map(|reached| *reached)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the stream of events what a driver tells. Journal entries come from the journal itself.
pub(crate) struct Listener<'a> {
    pub(crate) story: &'a Story,
    pub(crate) wheel: &'a Wheel,
}

impl Report for Listener<'_> {
    fn notice(&self, notice: &Notice<'_>) {
        let (kind, data, line) = match notice {
            Notice::Step(step) => {
                let spec = step.spec(true);
                let data = json!({ "step": spec.name, "establishes": spec.establishes });
                ("step", data, Some(format!("{}: {}", spec.name, spec.establishes)))
            }
            Notice::Progress(progress) => {
                let data = json!({
                    "what": progress.what, "done": progress.done, "total": progress.total, "unit": progress.unit,
                    "per_second": progress.per_second, "eta_seconds": progress.eta_seconds, "detail": progress.detail,
                });
                let line = format!("{}: {} of {} {}, {}", progress.what, progress.done, progress.total, progress.unit, progress.detail);
                ("progress", data, Some(line))
            }
            Notice::Waiting { step, line, seconds } => {
                let text = format!("{step}: {line}, for {seconds} s");
                ("waiting", json!({ "step": step, "line": line, "seconds": seconds }), Some(text))
            }
            Notice::Note(text) => ("note", json!({ "text": text }), Some(text.clone())),
            Notice::Warning(text) => ("warning", json!({ "text": text }), Some(text.clone())),
            Notice::Journalled(_, Event::DriverTookOver { .. } | Event::Created { .. }) => return self.wheel.took_over(),
            Notice::Action(_) | Notice::ActionDone(..) | Notice::Journalled(..) => return,
        };
        if let Some(line) = line {
            self.wheel.tell(line);
        }
        self.story.tell(kind, data);
    }
}
