//! The verbs that change something: `run`, `rollback`, `complete`, `retire`.

use std::io::{BufRead, IsTerminal};

use cutover_api::{CompleteRequest, RetireRequest, RollbackRequest};
use cutover_core::{Phase, Side, State};
use cutover_engine::{Cutover, Drive, EngineError, EngineResult, Failpoint, Goal};

use crate::{
    args::{Global, Output, Reasoned, Retire, Rollback, Run, Until},
    commands::{check, remote},
    left_out,
    listen::Listener,
    output::{self, Failure, print_json, to_stderr, to_stdout},
    plan_file, stop,
};

pub(crate) async fn run(global: &Global, args: &Run) -> Result<(), Failure> {
    if let Some(server) = remote::named(&args.remote)? {
        return server.run(global, args).await;
    }
    let cutover = plan_file::open(global).await?;
    let goal = match args.until {
        Until::Ready => Goal::Ready,
        Until::Switched => Goal::Switched,
    };
    if goal == Goal::Switched && cutover.state().await?.is_none_or(|state| state.authority == Side::Source && !state.ended()) {
        announce(&cutover).await?;
        if cutover.plan().switch.reverse {
            agree(global, "--until ready only prepares")?;
        } else {
            confirm(&cutover.plan().name, args.confirm.as_deref())?;
        }
    }
    let listener = Listener::new(global.verbose);
    finish(global, cutover.run(drive(&listener, &args.reason)?, goal).await)
}

pub(crate) async fn rollback(global: &Global, args: &Rollback) -> Result<(), Failure> {
    refuse_empty(&args.reason)?;
    if let Some(server) = remote::named(&args.remote)? {
        let request = RollbackRequest { reason: args.reason.clone(), confirm: args.confirm.clone() };
        return server.drive(global, "rollback", &request).await;
    }
    let cutover = plan_file::open(global).await?;
    let give_up = args.confirm.is_some();
    if give_up {
        confirm(&cutover.plan().name, args.confirm.as_deref())?;
    }
    let listener = Listener::new(global.verbose);
    finish(global, cutover.rollback(drive(&listener, &args.reason)?, give_up).await)
}

pub(crate) async fn complete(global: &Global, args: &Reasoned) -> Result<(), Failure> {
    if let Some(server) = remote::named(&args.remote)? {
        return server.drive(global, "complete", &CompleteRequest { reason: args.reason.clone() }).await;
    }
    let cutover = plan_file::open(global).await?;
    let listener = Listener::new(global.verbose);
    finish(global, cutover.complete(drive(&listener, &args.reason)?).await)
}

pub(crate) async fn retire(global: &Global, args: &Retire) -> Result<(), Failure> {
    if let Some(server) = remote::named(&args.remote)? {
        let name = server.report().await?.state.plan.name;
        confirm(&name, args.confirm.as_deref())?;
        let archive = args.archive.to_string_lossy().into_owned();
        return server.drive(global, "retire", &RetireRequest { archive, confirm: Some(name), reason: args.reason.clone() }).await;
    }
    let cutover = plan_file::open(global).await?;
    confirm(&cutover.plan().name, args.confirm.as_deref())?;
    let listener = Listener::new(global.verbose);
    finish(global, cutover.retire(drive(&listener, &args.reason)?, &args.archive).await)
}

/// A reason that must be given is given.
pub(crate) fn refuse_empty(reason: &str) -> Result<(), Failure> {
    if reason.trim().is_empty() {
        return Err(Failure::usage("--reason is empty").with_hint("say in a few words why, for the journal"));
    }
    Ok(())
}

/// What a switch changes, how far it reaches, and whether it can be undone.
async fn announce(cutover: &Cutover) -> Result<(), Failure> {
    let plan = cutover.plan();
    let [source, target] = Side::BOTH.map(|side| plan.database(side).url.address());
    let budget = plan.pause.budget.as_secs_f64();
    let (then, back) = if plan.switch.reverse {
        ("the source is kept in step and refuses writes", "`cutover rollback` goes back, with what the target took, until `cutover retire`")
    } else {
        ("the source stays as it was at that moment and refuses writes", "none: the plan says `reverse = false`")
    };
    let left_out = left_out::ask(cutover).await.map(|left_out| format!("\nleft out: {left_out}")).unwrap_or_default();
    to_stderr(&format!(
        "before:   writes at the source, {source}\nafter:    writes at the target, {target}; {then}\n\
         verified: {}\npause:    at most {budget} s, {} attempts; one that takes longer is undone\nway back: {back}{left_out}\n",
        verified(cutover).await?,
        plan.pause.attempts
    ));
    Ok(())
}

/// When both sides were last compared.
async fn verified(cutover: &Cutover) -> Result<String, Failure> {
    if cutover.state().await?.is_none_or(|state| matches!(state.phase, Phase::Preparing { .. })) {
        return Ok("not yet; before the switch".to_owned());
    }
    let known = cutover.known().await?;
    let again = match (cutover.is_verification_due(&known), known.different) {
        (false, _) => "",
        (true, false) => "; once more before the switch, by `max_age`",
        (true, true) => "; once more before the switch, because rows were found to differ",
    };
    let last = known.last.as_ref().map_or_else(|| "not since the last switch, repair or difference".to_owned(), output::verified);
    Ok(format!("{last}{again}"))
}

/// Asks a person who sits there. A script is not asked.
pub(crate) fn agree(global: &Global, otherwise: &str) -> Result<(), Failure> {
    if global.yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    to_stderr("Go on? [y/N]");
    match line()?.to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was done").with_hint(format!("--yes goes on without asking; {otherwise}"))),
    }
}

fn line() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| Failure::new(format!("can't read the answer: {error}")))?;
    Ok(line.trim().to_owned())
}

/// What can't be undone wants the plan's name.
fn confirm(name: &str, given: Option<&str>) -> Result<(), Failure> {
    let typed = match given {
        Some(given) => given.to_owned(),
        None if std::io::stdin().is_terminal() => {
            to_stderr(&format!(
                "There is no way back from this: the old side is not kept in step afterwards.\nType the plan's name ({name}) to go on:"
            ));
            line()?
        }
        None => return Err(Failure::usage("this can't be undone, so it wants to be confirmed").with_hint(format!("add --confirm {name}"))),
    };
    if typed == *name { Ok(()) } else { Err(Failure::usage(format!("`{typed}` is not the plan's name; nothing was done"))) }
}

pub(crate) fn drive<'a>(listener: &'a Listener, reason: &str) -> Result<Drive<'a>, Failure> {
    Ok(Drive { actor: actor(), reason: reason.to_owned(), report: listener, interrupt: stop::on_signal(), failpoint: failpoint()? })
}

/// Where a test wants us killed. A release build has no such places, and reads nothing.
fn failpoint() -> Result<Failpoint, Failure> {
    match std::env::var("CUTOVER_FAILPOINT") {
        Ok(text) if cfg!(debug_assertions) => Failpoint::parse(&text).map_err(|text| Failure::usage(format!("`{text}` is no failpoint"))),
        _ => Ok(Failpoint::default()),
    }
}

/// Who: the one behind sudo where there is one.
pub(crate) fn actor() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()));
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_else(|| "?".to_owned());
    format!("{user}@{host}")
}

fn finish(global: &Global, done: EngineResult<State>) -> Result<(), Failure> {
    match done {
        Ok(state) => {
            show(global, &state);
            Ok(())
        }
        Err(EngineError::Findings { findings }) => {
            check::show(global, &findings);
            Err(Failure::from(EngineError::Findings { findings }).answered())
        }
        Err(error) => Err(error.into()),
    }
}

/// What driving has come to.
pub(crate) fn show(global: &Global, state: &State) {
    match global.output {
        Output::Json => print_json(state),
        Output::Human => to_stdout(&sentence(state)),
    }
}

/// Where the cutover stands, and what comes next.
pub(crate) fn sentence(state: &State) -> String {
    let name = &state.plan.name;
    match &state.phase {
        Phase::Following => match (state.authority, state.pauses.last()) {
            (Side::Source, None) => format!("{name} is ready: copied, following, verified. Next: `cutover run` switches."),
            (side, Some(pause)) if !pause.undone => {
                let next = if side == Side::Target && !state.shape.reverse {
                    return format!(
                        "{name}: the target is in charge since a pause of {} ms. The source stays as it was. Next: `cutover complete`.",
                        pause.pause_ms
                    );
                } else if side == Side::Target {
                    "`cutover complete` if it stays, `cutover rollback --reason …` if not"
                } else {
                    "`cutover run` switches again"
                };
                format!(
                    "{name}: the {side} is in charge since a pause of {} ms; the other side is kept in step. Next: {next}.",
                    pause.pause_ms
                )
            }
            (side, _) => format!("{name}: the {side} is in charge. Next: `cutover run`."),
        },
        Phase::Completed => format!("{name} is completed: the target is the new source. Next: `cutover retire --archive FILE`."),
        Phase::Retired => format!("{name} is retired: the old side is archived and fenced, and no longer kept in step."),
        Phase::TornDown => format!("{name} is torn down: nothing of it is left in either database."),
        phase => format!("{name} is {}. Next: `cutover run` goes on.", phase.describe()),
    }
}
