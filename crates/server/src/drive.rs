//! The verbs that change something. This server drives one of them at a time; who drives the cutover at all, of several
//! servers and command lines, is the journal's to say.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use cutover_api::{Code, CompleteRequest, Drive, Outcome, Problem, RollbackRequest, RunRequest, Until};
use cutover_core::{
    Event,
    clients::{Driving, Verb},
};
use cutover_engine::{EngineError, Failpoint, Goal, Notice, Report};
use opentelemetry::trace::FutureExt as _;
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use crate::{
    auth::Caller,
    front::whole_ms,
    permits::unreadable,
    problem::{NotAllowed, NotUnderstood, Refusal},
    serve::App,
    words,
};

/// The longest reason. Unit: characters.
const MOST_REASON: usize = 1_000;

/// The exit code where somebody else drives.
const SOMEBODY_ELSE: u8 = 6;

/// What is driven, or was driven last.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    work: Mutex<Option<Work>>,
}

#[derive(Debug)]
struct Work {
    driving: Driving,
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

fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Run { .. } => "run",
        Verb::Rollback { .. } => "rollback",
        Verb::Complete => "complete",
    }
}

/// Drives the cutover on: prepares, copies, follows, verifies, and switches. Goes on from wherever it stands.
#[utoipa::path(post, path = "/v1/run", tag = "drive", request_body = RunRequest, responses(Begun, NotAllowed, NotUnderstood))]
pub(crate) async fn run(State(app): State<App>, caller: Caller, request: Asked<RunRequest>) -> Answer {
    let Json(request) = request.map_err(|rejection| unreadable(&rejection))?;
    let only_ready = request.until == Until::Ready;
    if !only_ready && !app.cutover.plan().switch.reverse && !confirmed(&app, request.confirm.as_deref())? {
        let name = &app.cutover.plan().name;
        return Err(Refusal::new(Code::Conflict, "the plan keeps no way back, so a switch wants to be confirmed")
            .hint(format!("send \"confirm\": \"{name}\"")));
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

type Asked<T> = Result<Json<T>, JsonRejection>;
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
        Some(_) => Err(Refusal::new(Code::Conflict, "`confirm` is not the plan's name; nothing was done")),
    }
}

fn begin(app: &App, caller: Caller, verb: Verb, reason: String) -> Answer {
    if !words::is_line(&reason, MOST_REASON) {
        return Err(Refusal::new(
            Code::BadRequest,
            format!("`reason` has at most {MOST_REASON} characters, none of which is a control character"),
        ));
    }
    let drive = start(&app.clone(), Driving { verb, actor: caller.name, reason })?;
    Ok((StatusCode::ACCEPTED, Json(drive)))
}

/// Drives, where this server drives nothing else and is not closing.
pub(crate) fn start(app: &App, driving: Driving) -> Result<Drive, Refusal> {
    if *app.front.closing.borrow() {
        return Err(Refusal::new(Code::Unavailable, "the server is closing").hint("ask another one, or this one once it is back"));
    }
    let Driving { verb, actor, reason } = driving.clone();
    let drive = Drive { verb: name(verb).to_owned(), actor, reason, elapsed_ms: 0, told: None, outcome: None };
    let (stop, interrupt) = watch::channel(false);
    let stage = watch::Sender::new(Stage::Asked);
    app.wheel.take(Work { driving: driving.clone(), drive: drive.clone(), began: Instant::now(), stop, stage })?;
    // Whoever would go on with it is to know of it at once.
    app.front.news.notify_one();
    // Within the trace of whoever asked, and on its own: the request does not last as long.
    tokio::spawn(work(app.clone(), driving, interrupt).with_current_context());
    Ok(drive)
}

async fn work(app: App, driving: Driving, interrupt: watch::Receiver<bool>) {
    let listener = Listener { app: app.clone() };
    let Driving { verb, actor, reason } = driving;
    let by = cutover_engine::Drive { actor, reason, report: &listener, interrupt, failpoint: Failpoint::default() };
    let done = match verb {
        Verb::Run { only_ready } => app.cutover.run(by, if only_ready { Goal::Ready } else { Goal::Switched }).await,
        Verb::Rollback { give_up } => app.cutover.rollback(by, give_up).await,
        Verb::Complete => app.cutover.complete(by).await,
    };
    let outcome = match done {
        Ok(_) => Outcome { code: 0, message: None, hint: None },
        Err(error) => {
            tracing::warn!(%error, verb = name(verb), "driving ended");
            Outcome { code: error.exit_code(), message: Some(public(&error)), hint: error.hint() }
        }
    };
    app.story.tell("outcome", json!(outcome));
    app.wheel.end(outcome);
    app.front.news.notify_one();
}

/// What is said of a failure: not what a database said, which is for the log.
fn public(error: &EngineError) -> String {
    match error {
        EngineError::Database { side, .. } => {
            format!("{side}: the database refused, or could not be reached; the server's log says what it said")
        }
        EngineError::Journal(_) | EngineError::Append(_) => "the journal failed; the server's log says how".to_owned(),
        EngineError::Io { doing, .. } => format!("{doing}: failed; the server's log says why"),
        other => other.to_string(),
    }
}

impl Wheel {
    fn take(&self, work: Work) -> Result<(), Refusal> {
        let mut current = self.lock();
        if let Some(current) = current.as_ref().filter(|current| current.drive.outcome.is_none()) {
            let message = format!("this server drives already: `{}`, asked for by {}", current.drive.verb, current.drive.actor);
            return Err(Refusal::new(Code::Conflict, message).hint("GET /v1/drive says how far it is; POST /v1/stop stops it"));
        }
        *current = Some(work);
        Ok(())
    }

    fn now(&self) -> Option<Drive> {
        self.lock().as_ref().map(Work::now)
    }

    fn tell(&self, line: String) {
        if let Some(work) = self.lock().as_mut() {
            work.drive.told = Some(line);
        }
    }

    fn end(&self, outcome: Outcome) {
        if let Some(work) = self.lock().as_mut() {
            work.drive.elapsed_ms = whole_ms(work.began.elapsed());
            work.drive.outcome = Some(outcome);
            work.stage.send_replace(Stage::Ended);
        }
    }

    fn stop(&self) {
        if let Some(work) = self.lock().as_ref() {
            work.stop.send_replace(true);
        }
    }

    /// Asks what is driven to stop, and waits until it has: a switch that has begun is undone or finished, never left.
    pub(crate) async fn rest(&self) {
        if self.driving().is_some() {
            self.stop();
        }
        self.reach(Stage::Ended).await;
    }

    /// What another server would go on with if this one died now: not what somebody asked to stop.
    pub(crate) fn driving(&self) -> Option<Driving> {
        let current = self.lock();
        current.as_ref().filter(|work| work.drive.outcome.is_none() && !*work.stop.borrow()).map(|work| work.driving.clone())
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
struct Listener {
    app: App,
}

impl Report for Listener {
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
            Notice::Journalled(_, Event::DriverTookOver { .. } | Event::Created { .. }) => return self.app.wheel.took_over(),
            Notice::Action(_) | Notice::ActionDone(..) | Notice::Journalled(..) => return,
        };
        if let Some(line) = line {
            self.app.wheel.tell(line);
        }
        self.app.story.tell(kind, data);
    }
}
