//! `cutover sql watch`: calls again and again what somebody has to call, where the server has no clock of its own.

use std::time::{Duration, Instant};

use cutover_core::plan::DatabaseUrl;
use cutover_engine::shadow::watch::{Look, Watch};
use tokio::time::timeout;

use crate::{
    args::{Global, Output, SqlWatch},
    output::{Failure, Paint, print_json, thousands, to_stderr, to_stdout},
    stop,
};

/// After Ctrl-C, a call that is under way may end.
const GRACE: Duration = Duration::from_secs(10);

pub(super) async fn run(global: &Global, args: &SqlWatch) -> Result<(), Failure> {
    let url = DatabaseUrl::parse(&args.there.url).map_err(Failure::usage)?;
    let mut watch = Watch::new(url, args.there.schema.schema.clone(), args.every);
    let mut stop = stop::on_signal_saying("stopping: what is under way may end");
    let mut stopping = stop.clone();
    let mut is_first = true;
    loop {
        let begun = Instant::now();
        let looked = {
            let work = watch.look();
            tokio::pin!(work);
            tokio::select! {
                looked = &mut work => looked,
                _ = stopping.wait_for(|stop| *stop) => match timeout(GRACE, work).await {
                    Ok(looked) => looked,
                    Err(_) => {
                        to_stderr("the call that is under way is left to the server");
                        return Ok(());
                    }
                },
            }
        };
        match looked {
            Ok(look) => show(global, &look),
            // What is wrong from the beginning is a mistake of whoever typed it; what goes wrong later passes.
            Err(error) if is_first => return Err(error.into()),
            Err(error) => to_stderr(&format!("{} {error}", Paint::stderr().yellow("warning:"))),
        }
        is_first = false;
        if super::stopped(&mut stop, watch.rest(begun)).await {
            return Ok(());
        }
    }
}

/// A person is told what was done, and with `-v` also what was not.
fn show(global: &Global, look: &Look) {
    if global.output == Output::Json {
        return print_json(look);
    }
    let paint = Paint::stdout();
    let at = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    for checked in look.checked.iter().filter(|checked| checked.action != "none" || global.verbose > 0) {
        let action = match checked.action.as_str() {
            "rolled_back" | "failed" => paint.red(&checked.action),
            "held" => paint.yellow(&checked.action),
            other => other.to_owned(),
        };
        let reason = checked.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        to_stdout(&format!("{}  {}  {action}, {}{reason}", paint.dim(&at), paint.bold(&checked.table), checked.health));
    }
    if look.brought > 0 || global.verbose > 0 {
        to_stdout(&format!("{}  {} rows brought, {} keys queued", paint.dim(&at), thousands(look.brought), thousands(look.queued)));
    }
}
