//! `[rehearse]`: how the plan is rehearsed on clones, and the plan that such a rehearsal follows.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{Database, Hooks, Pattern, Plan, PlanError, Traffic, check::Reader, file::Text};

/// How a rehearsal is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearse {
    /// A file that makes the definitions, in place of reading the source: SQL, or an archive of `pg_dump`.
    pub schema: Option<PathBuf>,
    /// What of the source's rows is brought to the clones.
    pub data: Data,
    /// The most rows brought of each table, where only some are.
    pub rows: u32,
    /// Seed data by profile: an SQL file, or a command. Each profile is a rehearsal of its own.
    pub seed: BTreeMap<String, String>,
    /// Migrates the target's clone, in place of `hooks.migrate`.
    pub migrate: Option<String>,
    /// Tries the side that was opened, in place of `hooks.smoke`.
    pub smoke: Option<String>,
    /// Runs beside the switch and the way back, as an application would.
    pub load: Option<String>,
    /// How long one profile may take.
    pub timeout: Duration,
    /// Whether a switch wants a green rehearsal of the very same plan.
    pub required: bool,
    /// How old that rehearsal may be.
    pub max_age: Duration,
}

/// What of the source's rows a rehearsal brings to its clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Definitions only.
    None,
    /// Some rows of each table, and the rows that they refer to.
    Sample,
    /// All rows.
    All,
}

impl Data {
    /// The names that a plan and the command line use.
    pub const NAMES: [(&'static str, Self); 3] = [("none", Self::None), ("sample", Self::Sample), ("all", Self::All)];
}

impl Default for Rehearse {
    fn default() -> Self {
        Self {
            schema: None,
            data: Data::Sample,
            rows: ROWS,
            seed: BTreeMap::new(),
            migrate: None,
            smoke: None,
            load: None,
            timeout: TIMEOUT,
            required: false,
            max_age: MAX_AGE,
        }
    }
}

const ROWS: u32 = 1000;
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// A profile's name stands in files and reports.
const LONGEST_PROFILE: usize = 40;

impl Plan {
    /// The plan that a rehearsal of this one follows: the same protocol, between clones. Nothing of it names a database
    /// or an adapter of this plan.
    #[must_use]
    pub fn rehearsed(&self, name: &str, source: Database, target: Database, traffic: Vec<Traffic>) -> Self {
        let mut tables = self.tables.clone();
        if let Some(include) = &mut tables.filter.include {
            // The clones hold writes of ours, which are followed like the user's.
            include.extend(Pattern::parse("cutover_rehearsal.*"));
        }
        Self {
            name: name.to_owned(),
            tables,
            source,
            target,
            journal: None,
            traffic,
            hooks: Hooks { migrate: self.rehearsed_migrate().cloned(), smoke: self.rehearsed_smoke().cloned(), ..self.hooks.clone() },
            rehearse: Rehearse { required: false, ..self.rehearse.clone() },
            ..self.clone()
        }
    }

    /// What migrates the target's clone.
    #[must_use]
    pub fn rehearsed_migrate(&self) -> Option<&String> {
        self.rehearse.migrate.as_ref().or(self.hooks.migrate.as_ref())
    }

    /// What tries the clone that was opened.
    #[must_use]
    pub fn rehearsed_smoke(&self) -> Option<&String> {
        self.rehearse.smoke.as_ref().or(self.hooks.smoke.as_ref())
    }
}

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    schema: Option<Text>,
    data: Option<Text>,
    rows: Option<Spanned<u32>>,
    #[serde(default)]
    seed: BTreeMap<Text, Text>,
    migrate: Option<Text>,
    smoke: Option<Text>,
    load: Option<Text>,
    timeout: Option<Text>,
    required: Option<bool>,
    max_age: Option<Text>,
}

impl Reader<'_> {
    pub(super) fn rehearse(&self, raw: &Raw) -> Result<Rehearse, PlanError> {
        let text = |text: &Option<Text>| text.as_ref().map(|text| self.expand(text)).transpose();
        let timeout = self.duration(raw.timeout.as_ref(), TIMEOUT)?;
        if timeout < Duration::from_secs(1) {
            let span = raw.timeout.as_ref().map_or(0..0, Spanned::span);
            return Err(self.fault(span, "the rehearsal's timeout is out of range", Some("choose 1s or more, such as 30m".to_owned())));
        }
        let seed = raw.seed.iter().map(|(name, seed)| Ok((self.profile(name)?, self.seed(seed)?))).collect::<Result<_, PlanError>>()?;
        Ok(Rehearse {
            schema: text(&raw.schema)?.map(PathBuf::from),
            data: self.data(raw)?,
            rows: self.number(raw.rows.as_ref(), ROWS, 1..=10_000_000)?,
            seed,
            migrate: text(&raw.migrate)?,
            smoke: text(&raw.smoke)?,
            load: text(&raw.load)?,
            timeout,
            required: raw.required.unwrap_or(false),
            max_age: self.duration(raw.max_age.as_ref(), MAX_AGE)?,
        })
    }

    fn profile(&self, name: &Text) -> Result<String, PlanError> {
        let value = name.get_ref();
        let fits = (1..=LONGEST_PROFILE).contains(&value.len()) && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if fits {
            return Ok(value.clone());
        }
        let hint = format!("use 1 to {LONGEST_PROFILE} letters, digits, `-` or `_`, such as small and spike");
        Err(self.fault(name.span(), format!("`{value}` can't name a profile"), Some(hint)))
    }

    fn seed(&self, seed: &Text) -> Result<String, PlanError> {
        let value = self.expand(seed)?;
        if value.trim().is_empty() {
            let hint = Some("name an SQL file, or a command that fills the database in PGDATABASE".to_owned());
            return Err(self.fault(seed.span(), "this seed is empty", hint));
        }
        Ok(value)
    }

    /// Seed data takes the place of the source's rows, unless both are asked for: their keys could collide.
    fn data(&self, raw: &Raw) -> Result<Data, PlanError> {
        let Some(text) = &raw.data else {
            return Ok(if raw.seed.is_empty() { Data::Sample } else { Data::None });
        };
        let name = self.expand(text)?;
        Data::NAMES.iter().find(|(known, _)| *known == name).map(|(_, data)| *data).ok_or_else(|| {
            let hint = Some("expected one of none, sample, all".to_owned());
            self.fault(text.span(), format!("a rehearsal can't bring `{name}`"), hint)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::DatabaseUrl;

    fn parse(more: &str) -> Result<Plan, PlanError> {
        let databases =
            "[source]\nurl = \"postgres://u@real/d\"\n[target]\nurl = \"postgres://u@new/d\"\n[journal]\nurl = \"postgres://u@real/j\"\n";
        let traffic = "[[traffic]]\nkind = \"command\"\nrelease = \"./point-real-traffic.sh\"\n[hooks]\nmigrate = \"make db-migrate\"\n";
        Plan::parse(&format!("name = \"p\"\nkind = \"switch\"\n{databases}{traffic}{more}"), &|_| None)
    }

    #[test]
    fn seed_data_takes_the_place_of_a_sample_unless_both_are_asked_for() {
        let data = |more: &str| parse(&format!("[rehearse]\n{more}")).unwrap().rehearse.data;
        assert_eq!(parse("").unwrap().rehearse, Rehearse::default());
        assert_eq!(data("rows = 5"), Data::Sample);
        assert_eq!(data("seed = { small = \"small.sql\", spike = \"./make.sh\" }"), Data::None);
        assert_eq!(data("seed = { small = \"small.sql\" }\ndata = \"all\""), Data::All);
    }

    #[test]
    fn faults_of_a_rehearsal_have_a_place_and_a_hint() {
        for (more, message, hint) in [
            ("data = \"some\"", "can't bring `some`", "none, sample, all"),
            ("rows = 0", "out of range", "from 1"),
            ("seed = { \"a/b\" = \"x.sql\" }", "`a/b` can't name a profile", "small and spike"),
            ("seed = { small = \" \" }", "empty", "SQL file"),
            ("timeout = \"0s\"", "out of range", "30m"),
            ("seeds = {}", "unknown field `seeds`", "did you mean `seed`"),
        ] {
            let error = parse(&format!("[rehearse]\n{more}")).unwrap_err();
            assert!(error.message.contains(message) && error.hint.as_deref().unwrap_or_default().contains(hint), "{more}: {error:?}");
            assert_eq!(error.line, 15, "{more}: {error:?}");
        }
    }

    #[test]
    fn what_is_rehearsed_names_nothing_of_the_real_thing_but_its_hooks() {
        let clone = |name: &str| {
            let url = DatabaseUrl::parse(&format!("postgres://u@{name}/clone")).unwrap();
            Database { peer_url: url.clone(), url }
        };
        let plan = parse("[rehearse]\nsmoke = \"./smoke.sh\"\nrequired = true").unwrap();
        let rehearsed = plan.rehearsed("rehearsal_1", clone("one"), clone("other"), Vec::new());
        assert_eq!((rehearsed.journal.as_ref(), &rehearsed.traffic[..], rehearsed.rehearse.required), (None, &[][..], false));
        assert_eq!((rehearsed.hooks.migrate.as_deref(), rehearsed.hooks.smoke.as_deref()), (Some("make db-migrate"), Some("./smoke.sh")));
        let shown = format!("{rehearsed:?}");
        assert!(!shown.contains("real") && !shown.contains("@new"), "{shown}");
    }
}
