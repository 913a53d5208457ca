//! `cutover rehearse`: the whole cutover on clones made for it, with an answer for each thing that must hold.

mod clean;
mod junit;
mod show;
mod stage;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use cutover_core::{
    Plan,
    plan::{self, DatabaseUrl},
};
use cutover_engine::rehearse::{Outcome, Rehearsal, Rehearsed, SOURCE_PROFILE, remember};
use cutover_postgres::clone::{Marker, Origin};
use tokio::sync::watch;

use self::stage::{Ground, Held};
use crate::{
    args::{Data, Global, Output, Rehearse},
    listen::Listener,
    output::{Failure, print_json, to_stderr},
    plan_file, stop,
};

/// How long after its time a rehearsal's clones may still be called used.
const GRACE_SECONDS: u64 = 3600;

pub(crate) async fn run(global: &Global, args: &Rehearse) -> Result<(), Failure> {
    if args.clean {
        return clean::run(global, args).await;
    }
    let (plan, text) = plan_file::read(&global.plan)?;
    let plan = with_arguments(plan, args);
    let folder = plan_file::folder(&global.plan);
    let profiles = profiles(&plan, &args.profiles)?;
    refuse_unwritable(args.junit.as_deref())?;
    let stop = stop::on_signal();
    let ground = Box::pin(Ground::prepare(&plan, &folder, args)).await?;
    let listener = Listener::new(global.verbose);
    let mut held: Vec<Held> = Vec::new();
    let mut results = Vec::new();
    for (profile, seed) in profiles {
        if *stop.borrow() {
            break;
        }
        let marker = marker(&plan);
        let stage = ground.stage(&marker).await?;
        to_stderr(&format!("rehearsing {profile} on {}", marker.database()));
        let rehearsal = Rehearsal {
            plan: &plan,
            plan_text: &text,
            folder: &folder,
            state: ground.state(),
            tools: plan_file::tools(),
            stage: stage.stage.clone(),
            marker,
            forbidden: ground.forbidden.clone(),
            origin: origin(&plan, &ground),
            profile,
            seed,
            keep: args.keep,
            report: &listener,
            interrupt: stop.clone(),
        };
        results.push(Box::pin(rehearsal.hold()).await);
        held.push(stage);
    }
    if let Err(error) = remember(&plan, &text, &folder, &results) {
        to_stderr(&format!("warning: this rehearsal is not remembered: {error}"));
    }
    if let Some(file) = &args.junit {
        let xml = junit::xml(&plan.name, &results);
        std::fs::write(file, xml).map_err(|error| Failure::new(format!("can't write {}: {error}", file.display())))?;
    }
    match global.output {
        Output::Json => print_json(&show::Answer::new(&plan.name, &results)),
        Output::Human => show::print(&results),
    }
    if args.keep {
        keep(&ground, &results, stop).await;
    }
    judge(&results)
}

/// What was typed goes before what the plan says.
fn with_arguments(mut plan: Plan, args: &Rehearse) -> Plan {
    let rehearse = &mut plan.rehearse;
    rehearse.rows = args.rows.unwrap_or(rehearse.rows);
    rehearse.data = match args.data {
        Some(Data::None) => plan::Data::None,
        Some(Data::Sample) => plan::Data::Sample,
        Some(Data::All) => plan::Data::All,
        None if args.rows.is_some() => plan::Data::Sample,
        None => rehearse.data,
    };
    plan
}

/// The profiles that are wanted, each with its seed data.
fn profiles(plan: &Plan, wanted: &[String]) -> Result<Vec<(String, Option<String>)>, Failure> {
    let seeds = &plan.rehearse.seed;
    if let Some(unknown) = wanted.iter().find(|name| !seeds.contains_key(*name)) {
        let known: Vec<&str> = seeds.keys().map(String::as_str).collect();
        let hint = if known.is_empty() {
            "the plan has no seed data: add seed = { small = \"small.sql\", spike = \"spike.sql\" } to [rehearse]".to_owned()
        } else {
            format!("the plan's are {}", known.join(", "))
        };
        return Err(Failure::usage(format!("the plan has no profile `{unknown}`")).with_hint(hint));
    }
    if seeds.is_empty() {
        return Ok(vec![(SOURCE_PROFILE.to_owned(), None)]);
    }
    let chosen = seeds.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name));
    Ok(chosen.map(|(name, seed)| (name.clone(), Some(seed.clone()))).collect())
}

/// Better to hear of it now than after minutes.
fn refuse_unwritable(file: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let existed = file.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
    // An empty file would be no XML: none is left where the rehearsal can't be held.
    let tried = opened.and_then(|_| if existed { Ok(()) } else { std::fs::remove_file(file) });
    tried.map_err(|error| Failure::usage(format!("can't write {}: {error}", file.display())))
}

fn marker(plan: &Plan) -> Marker {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expires = created + plan.rehearse.timeout.as_secs() + GRACE_SECONDS;
    Marker { id: chance().chars().take(8).collect(), plan: plan.name.clone(), created, expires }
}

/// Sixteen digits that nobody can guess and no two runs share: the standard library seeds its hashes from the system.
fn chance() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

fn origin(plan: &Plan, ground: &Ground) -> Origin {
    match &ground.schema {
        Some(file) => Origin::File(file.clone()),
        None => Origin::Database {
            url: plan.source.url.clone(),
            rows: match plan.rehearse.data {
                plan::Data::None => Some(0),
                plan::Data::Sample => Some(plan.rehearse.rows),
                plan::Data::All => None,
            },
        },
    }
}

/// The file that stands for the source: typed, or of the plan.
fn schema_file(plan: &Plan, folder: &Path, args: &Rehearse) -> Result<Option<PathBuf>, Failure> {
    let file = args.schema.clone().or_else(|| plan.rehearse.schema.as_ref().map(|file| folder.join(file)));
    let Some(file) = file else { return Ok(None) };
    // The programs that read it are run from elsewhere.
    let absolute = std::path::absolute(&file).unwrap_or_else(|_| file.clone());
    if absolute.is_file() {
        return Ok(Some(absolute));
    }
    let hint = "pg_dump --schema-only --file FILE writes one from the source";
    Err(Failure::usage(format!("there is no file {}", file.display())).with_hint(hint))
}

async fn keep(ground: &Ground, results: &[Rehearsed], mut stop: watch::Receiver<bool>) {
    let password = ground.password().map(|password| format!("PGPASSWORD={password} ")).unwrap_or_default();
    for result in results {
        let line = |(side, url): (&str, &DatabaseUrl)| format!("  {side}: {password}psql '{url}'");
        let each: Vec<String> = ["source", "target"].into_iter().zip(&result.kept).map(line).collect();
        to_stderr(&format!("\nthe clones of {} stand:\n{}", result.profile, each.join("\n")));
    }
    if ground.is_throwaway() {
        to_stderr("\nThe servers run until Ctrl-C.");
        drop(stop.wait_for(|stop| *stop).await);
    } else {
        to_stderr("\n`cutover rehearse --clean` with the same --server removes them.");
    }
}

/// 0 green, 3 red, 4 not established, 1 not held.
fn judge(results: &[Rehearsed]) -> Result<(), Failure> {
    let cases = || results.iter().flat_map(|result| &result.cases);
    let count = |outcome: Outcome| cases().filter(|case| case.outcome == outcome).count();
    if results.is_empty() || results.iter().any(|result| result.interrupted) {
        return Err(Failure::new("the rehearsal was interrupted").answered());
    }
    if cases().any(|case| case.name == "clones" && case.outcome != Outcome::Passed) {
        return Err(Failure::new("the rehearsal could not be held: no clones could be made").answered());
    }
    let said = |what: &str, count: usize| format!("the rehearsal is {what}: {count} of {} cases", cases().count());
    match (count(Outcome::Failed), count(Outcome::Inconclusive), count(Outcome::Skipped)) {
        (0, 0, 0) => Ok(()),
        (0, 0, skipped) => Err(Failure::new(said("not complete", skipped) + " were not reached").answered().with_code(4)),
        (0, open, _) => Err(Failure::new(said("inconclusive", open) + " could not be established").answered().with_code(4)),
        (failed, ..) => Err(Failure::new(said("red", failed) + " failed").answered().with_code(3)),
    }
}
