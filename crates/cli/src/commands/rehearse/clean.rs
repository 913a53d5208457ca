//! `cutover rehearse --clean`: what killed rehearsals left at servers that were named.

use std::time::{SystemTime, UNIX_EPOCH};

use cutover_postgres::clone::{Leftover, leftovers, remove};

use super::stage::{Named, failed, named};
use crate::{
    args::{Global, Output, Rehearse},
    output::{Failure, print_json, to_stdout},
};

/// Removes every clone whose marker says that it is one and that nobody uses. All others are named and stay.
pub(super) async fn run(global: &Global, args: &Rehearse) -> Result<(), Failure> {
    let Some(Named { servers, .. }) = named(&args.servers, &args.peers)? else {
        return Err(Failure::usage("--clean needs to know where").with_hint("add --server URL twice"));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (mut clones, mut removed, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for server in servers {
        for found in leftovers(&server).await.map_err(failed)? {
            let place = format!("{} at {}", found.database, server.address());
            match in_the_way(&found, now) {
                Some(why) => left.push((place, why)),
                None => {
                    clones.extend(found.marker.map(|marker| (server.clone(), marker)));
                    removed.push(place);
                }
            }
        }
    }
    remove(&clones).await.map_err(failed)?;
    match global.output {
        Output::Json => {
            let left: Vec<_> = left.iter().map(|(place, why)| serde_json::json!({ "database": place, "why": why })).collect();
            print_json(&serde_json::json!({ "removed": removed, "left": left }));
        }
        Output::Human => {
            removed.iter().for_each(|place| to_stdout(&format!("removed {place}")));
            left.iter().for_each(|(place, why)| to_stdout(&format!("left {place}: {why}")));
            if removed.is_empty() && left.is_empty() {
                to_stdout("nothing to remove");
            }
        }
    }
    Ok(())
}

fn in_the_way(found: &Leftover, now: u64) -> Option<&'static str> {
    match &found.marker {
        None => Some("it does not carry the marker of a rehearsal, so it is not ours to remove"),
        Some(marker) if found.in_use && marker.expires > now => Some("a rehearsal uses it"),
        Some(_) => None,
    }
}
