//! What is remembered of rehearsals, beside the journal: a switch may want a green one of the very same plan.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cutover_core::Plan;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Rehearsed;
use crate::{EngineError, EngineResult, cutover::STATE};

/// The file, in the folder of our own files beside the plan.
const FILE: &str = "rehearsed.json";

/// The one profile of a plan without seed data: what the source holds.
pub const SOURCE_PROFILE: &str = "source";

/// The last rehearsal of each profile, all of one plan.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    plan: String,
    /// SHA-256 of the plan file, in hexadecimal.
    digest: String,
    profiles: BTreeMap<String, Last>,
    /// SHA-256 of all of the above: whoever edits the file by hand is found out.
    sha256: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    green: bool,
    /// Seconds since 1970.
    at: u64,
}

/// Remembers how rehearsals of a plan went. Those of the same plan's other profiles stay, and one that somebody stopped
/// says nothing.
///
/// # Errors
/// If the file can't be written.
pub fn remember(plan: &Plan, text: &str, folder: &Path, results: &[Rehearsed]) -> EngineResult<PathBuf> {
    let path = file(folder);
    let digest = digest(text);
    let mut record = read(&path).ok().flatten().filter(|record| record.digest == digest && record.is_intact()).unwrap_or_default();
    record.plan.clone_from(&plan.name);
    record.digest = digest;
    let at = seconds_now();
    let held = results.iter().filter(|result| !result.interrupted);
    record.profiles.extend(held.map(|result| (result.profile.clone(), Last { green: result.is_green(), at })));
    record.sha256 = record.sum();
    let doing = |source| EngineError::Io { doing: format!("writing {}", path.display()), source };
    std::fs::create_dir_all(folder.join(STATE)).map_err(doing)?;
    let json = serde_json::to_string(&record).map_err(|error| doing(error.into()))?;
    std::fs::write(&path, json + "\n").map_err(doing)?;
    Ok(path)
}

/// Where the plan wants a rehearsal: each of its profiles was rehearsed with this very plan, not too long ago, and the
/// last one was green.
///
/// # Errors
/// [`EngineError::NotRehearsed`] saying what is missing.
pub(crate) fn require(plan: &Plan, digest: &str, folder: &Path) -> EngineResult<()> {
    if !plan.rehearse.required {
        return Ok(());
    }
    let path = file(folder);
    let no = |why: String| Err(EngineError::NotRehearsed { why });
    let record = match read(&path) {
        Ok(Some(record)) => record,
        Ok(None) => return no(format!("there is no {}", path.display())),
        Err(why) => return no(why),
    };
    if !record.is_intact() {
        return no(format!("{} was changed since it was written", path.display()));
    }
    if record.digest != digest {
        return no("the plan was changed since it was rehearsed".to_owned());
    }
    record.missing(plan, seconds_now()).map_or(Ok(()), no)
}

impl Record {
    /// Why this is not enough; none where it is.
    fn missing(&self, plan: &Plan, now: u64) -> Option<String> {
        profiles(plan).into_iter().find_map(|profile| {
            let Some(last) = self.profiles.get(profile) else { return Some(format!("the profile {profile} was not rehearsed")) };
            let age = Duration::from_secs(now.saturating_sub(last.at));
            if !last.green {
                return Some(format!("the last rehearsal of the profile {profile} was not green"));
            }
            let hours = |age: Duration| age.as_secs() / 3600;
            (age > plan.rehearse.max_age).then(|| {
                format!(
                    "the last rehearsal of the profile {profile} is {} hours old, {} are allowed",
                    hours(age),
                    hours(plan.rehearse.max_age)
                )
            })
        })
    }

    fn is_intact(&self) -> bool {
        self.sha256 == self.sum()
    }

    fn sum(&self) -> String {
        let profiles: Vec<String> = self.profiles.iter().map(|(name, last)| format!("{name} {} {}", last.green, last.at)).collect();
        hex::encode(Sha256::digest(format!("{}\n{}\n{}", self.plan, self.digest, profiles.join("\n"))))
    }
}

/// Every profile that a plan has.
fn profiles(plan: &Plan) -> Vec<&str> {
    let seeds: Vec<&str> = plan.rehearse.seed.keys().map(String::as_str).collect();
    if seeds.is_empty() { vec![SOURCE_PROFILE] } else { seeds }
}

fn file(folder: &Path) -> PathBuf {
    folder.join(STATE).join(FILE)
}

/// None where there is none; in words where it can't be read.
fn read(path: &Path) -> Result<Option<Record>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| format!("{} can't be understood: {error}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} can't be read: {error}", path.display())),
    }
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(more: &str) -> Plan {
        let text = format!(
            "name = \"p\"\nkind = \"switch\"\n[source]\nurl = \"postgres://u@a/d\"\n[target]\nurl = \"postgres://u@b/d\"\n[rehearse]\nrequired = true\n{more}"
        );
        Plan::parse(&text, &|_| None).unwrap()
    }

    fn record(profiles: &[(&str, bool, u64)]) -> Record {
        let profiles = profiles.iter().map(|(name, green, at)| ((*name).to_owned(), Last { green: *green, at: *at })).collect();
        let mut record = Record { plan: "p".into(), digest: "d".into(), profiles, sha256: String::new() };
        record.sha256 = record.sum();
        record
    }

    #[test]
    fn b9_every_profile_must_be_green_and_fresh() {
        let seeded = plan("max_age = \"2h\"\nseed = { small = \"a.sql\", spike = \"b.sql\" }");
        let missing = |profiles: &[(&str, bool, u64)]| record(profiles).missing(&seeded, 10_000);
        assert_eq!(missing(&[("small", true, 9000), ("spike", true, 3000)]), None);
        assert!(missing(&[("small", true, 9000)]).unwrap().contains("spike was not rehearsed"));
        assert!(missing(&[("small", true, 9000), ("spike", false, 9000)]).unwrap().contains("spike was not green"));
        assert!(missing(&[("small", true, 1000), ("spike", true, 9000)]).unwrap().contains("2 hours old, 2 are allowed"));
        assert_eq!(record(&[("source", true, 10_000)]).missing(&plan(""), 10_000), None);
    }

    #[test]
    fn a_record_that_was_edited_is_found_out() {
        let mut edited = record(&[("source", false, 1)]);
        assert!(edited.is_intact());
        edited.profiles.insert("source".into(), Last { green: true, at: 1 });
        assert!(!edited.is_intact());
    }
}
