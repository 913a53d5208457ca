//! `cutover demo`: a real switch, there and back and there again, under load; and the proof.

mod score;
mod stage;

use std::time::{Duration, Instant};

use cutover_core::Side;
use cutover_engine::{Cutover, Drive, Failpoint, Goal};
use cutover_testkit::{
    Seed,
    bank::{Load, LoadOptions, check_history},
};
use tokio::sync::watch;

use self::{score::Score, stage::Stage};
use crate::{
    args::{Demo, Global, Output},
    listen::Listener,
    output::{Failure, print_json, to_stderr},
    plan_file, stop,
};

pub(crate) async fn run(global: &Global, args: &Demo) -> Result<(), Failure> {
    let seed = args.seed.map_or_else(Seed::from_env_or_random, Seed::new);
    let stop = stop::on_signal();
    let stage = Stage::set_up(args, seed).await?;
    to_stderr(&format!(
        "source: PostgreSQL {} at {}\ntarget: PostgreSQL {} at {}",
        stage.source.install().version,
        stage.url(Side::Source),
        stage.target.install().version,
        stage.url(Side::Target)
    ));
    to_stderr(&format!(
        "clients connect through PgBouncer {}.{} at {}\nplan: {}",
        stage.bouncer.install().version.0,
        stage.bouncer.install().version.1,
        stage.app_url(),
        stage.plan_path().display()
    ));
    let score = Box::pin(perform(global, args, &stage, seed, &stop)).await?;
    match global.output {
        Output::Json => print_json(&score),
        Output::Human => score.print(),
    }
    if args.keep {
        keep(&stage, stop).await;
    }
    if score.is_clean() {
        Ok(())
    } else {
        Err(Failure::new("the demo found something that must not be")
            .answered()
            .with_hint("run it again with the same --seed; then please report it"))
    }
}

/// The whole play: copy, switch, back, and switch again, while clients write all the time.
async fn perform(global: &Global, args: &Demo, stage: &Stage, seed: Seed, stop: &watch::Receiver<bool>) -> Result<Score, Failure> {
    let plan = crate::args::Global { plan: stage.plan_path(), ..global.clone() };
    let cutover = plan_file::open(&plan).await?;
    let listener = Listener::new(global.verbose);
    let drive = |reason: &str| Drive {
        actor: "demo".to_owned(),
        reason: reason.to_owned(),
        report: &listener,
        interrupt: stop.clone(),
        failpoint: Failpoint::default(),
    };
    let load = Load::start(LoadOptions {
        clients: u16::try_from(args.clients).unwrap_or(u16::MAX),
        seed,
        slow_share: 0.002,
        slow: Duration::from_millis(50),
        rate: Some(args.clients * 20),
        ..LoadOptions::new(stage.app_url())
    })
    .await?;
    let mut score = Score::new(seed.value());
    let length = Duration::from_secs(u64::from(args.seconds));
    cutover.run(drive("the demo's copy"), Goal::Ready).await?;
    score.copied(&cutover.entries().await?);
    pass(length, stop).await?;

    for (at, to) in [Side::Target, Side::Source, Side::Target].into_iter().enumerate() {
        let began = Instant::now();
        match to {
            Side::Target => cutover.run(drive("the demo's switch"), Goal::Switched).await?,
            Side::Source => cutover.rollback(drive("the demo's way back"), false).await?,
        };
        load.wait_acknowledged(u64::from(args.clients), Duration::from_secs(30)).await?;
        score.switched(to, load.pause_between(began, Instant::now()));
        pass(if at == 2 { length } else { length / 2 }, stop).await?;
    }
    let history = load.stop().await;
    settle(&cutover).await?;
    let verdict = check_history(&stage.url(Side::Target), Some(&stage.url(Side::Source)), &history).await?;
    score.judged(&history, verdict);
    Ok(score)
}

/// Lets the load run on.
async fn pass(length: Duration, stop: &watch::Receiver<bool>) -> Result<(), Failure> {
    let mut stop = stop.clone();
    match tokio::time::timeout(length, stop.wait_for(|stop| *stop)).await {
        Err(_) => Ok(()),
        Ok(_) => Err(Failure::new("stopped; the servers are gone")),
    }
}

/// Waits until both sides hold the same rows, which the comparison of both at the end needs.
async fn settle(cutover: &Cutover) -> Result<(), Failure> {
    let options = cutover_postgres::verify::Options::default();
    let report = cutover.verify(&options, &cutover_postgres::verify::Progress::default()).await?;
    if report.differences_total > 0 {
        return Err(Failure::new(format!("after the demo both sides differ in {} rows", report.differences_total)).with_code(3));
    }
    Ok(())
}

async fn keep(stage: &Stage, mut stop: watch::Receiver<bool>) {
    to_stderr(&format!(
        "\nThe servers run until Ctrl-C. Try:\n  cutover --plan {0} status\n  cutover --plan {0} audit --verify\n  cutover --plan {0} rollback --reason 'to see it'\n  psql '{1}'",
        stage.plan_path().display(),
        stage.app_url()
    ));
    drop(stop.wait_for(|stop| *stop).await);
}
