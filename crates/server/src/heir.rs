//! Goes on with what a server was driving that has died.
//!
//! Each server writes down what it drives. One that has been silent for longer than its lease is dead, or cut off from the
//! journal, and then it can drive no longer: another one asks for the same, as a person would. Who drives is the journal's
//! to say, and what was done is done: a new driver undoes a switch before its commit point, and finishes one behind it.

use cutover_core::clients::{Heard, Listeners};
use cutover_engine::EngineResult;
use tokio::time::Instant;

use crate::{ServerError, drive, serve::App};

/// Looks for one, on and on.
pub(crate) async fn wait(app: App) -> Result<(), ServerError> {
    let mut listeners = Listeners::default();
    let mut tick = tokio::time::interval(app.front.lease / 4);
    loop {
        tick.tick().await;
        if let Err(error) = look(&app, &mut listeners).await {
            tracing::debug!(%error, "what other servers drive can't be read");
        }
    }
}

async fn look(app: &App, listeners: &mut Listeners) -> EngineResult<()> {
    let heard = app.cutover.servers().await?;
    let dead = listeners.dead(app.front.ms(Instant::now()), &heard);
    let drives = |heard: &&Heard| heard.report.driving.is_some();
    let somebody_else = heard.iter().filter(drives).any(|heard| !dead.contains(&heard));
    let left: Vec<&Heard> = dead.into_iter().filter(drives).collect();
    let Some(driving) = left.last().and_then(|last| last.report.driving.clone()).filter(|_| !somebody_else) else { return Ok(()) };
    let verb = driving.verb.clone();
    if drive::start(app, driving).is_err() {
        return Ok(());
    }
    tracing::warn!(?verb, server = left.last().map(|last| last.server.as_str()), "a server died that drove: this one goes on with it");
    // Ours is known before theirs is forgotten. Where somebody else was faster, that one forgets it.
    app.report().await?;
    if app.wheel.holds().await {
        for dead in left {
            app.cutover.forget_server(&dead.server).await?;
        }
    }
    Ok(())
}
