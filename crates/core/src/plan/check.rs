//! From the file to the plan: defaults, `${NAME}`, and what TOML's types cannot say.

mod flags;
mod sections;
mod services;

use std::{
    ops::{Range, RangeInclusive},
    path::PathBuf,
    time::Duration,
};

use toml::Spanned;

use super::{
    Accept, Check, Copy, Database, DatabaseUrl, Expect, Filter, Format, Hooks, InPause, LargeObjects, Pattern, Pause, Plan, PlanError,
    Switch, TableSettings, Tables, Traffic, Verify,
    error::nearest,
    expand::expand,
    file::{self, File, Text},
};

/// Longest name of a plan: slots and publications are named after it and end at 63 bytes.
const LONGEST_NAME: usize = 40;

/// Rows in a chunk of a verification.
const CHUNK_ROWS: RangeInclusive<u32> = 1..=1_000_000;

/// Patterns in each list of `[tables]`: each costs something at every look into a catalogue.
const MOST_PATTERNS: usize = 1000;

/// How long a broken-off copy may hold back the source's vacuum.
const LONGEST_RESUME: Duration = Duration::from_secs(24 * 3600);

/// Ceilings of the source's latency that can be told from chance, and help somebody.
const LATENCY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);

/// How long one answer to a check may take.
const CHECK_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);

pub(super) fn check(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Plan, PlanError> {
    let raw: File = toml::from_str(text).map_err(|error| PlanError::from_toml(text, &error))?;
    let reader = Reader { text, environment };
    reader.kind(&raw.kind)?;
    let plan = Plan {
        name: reader.name(&raw.name)?,
        source: reader.database(&raw.source)?,
        target: reader.database(&raw.target)?,
        journal: raw.journal.as_ref().map(|journal| reader.url(&journal.url)).transpose()?,
        application_roles: raw.application.roles.iter().flatten().map(|role| reader.expand(role)).collect::<Result<_, _>>()?,
        tables: reader.tables(&raw.tables, &raw.table)?,
        pause: reader.pause(&raw.pause)?,
        copy: reader.copy(&raw.copy)?,
        verify: Verify {
            jobs: reader.number(raw.verify.jobs.as_ref(), 2, 1..=64)?,
            chunk_rows: reader.number(raw.verify.chunk_rows.as_ref(), 10_000, CHUNK_ROWS)?,
            rechecks: reader.number(raw.verify.rechecks.as_ref(), 5, 1..=100)?,
            redact: raw.verify.redact.iter().flatten().map(|pattern| reader.redact(pattern)).collect::<Result<_, _>>()?,
            in_pause: reader.in_pause(raw.verify.in_pause.as_ref())?,
            max_age: raw.verify.max_age.as_ref().map(|age| reader.duration(Some(age), Duration::ZERO)).transpose()?,
            max_rate: raw.verify.max_rate.as_ref().map(|rate| reader.number(Some(rate), 0, 1..=1_000_000_000)).transpose()?,
            max_latency: reader.latency(raw.verify.max_latency.as_ref())?,
        },
        switch: Switch {
            reverse: raw.switch.reverse.unwrap_or(true),
            sequence_headroom: reader.number(raw.switch.sequence_headroom.as_ref(), 1000, 0..=1_000_000_000)?,
            allow_downgrade: raw.switch.allow_downgrade.unwrap_or(false),
        },
        accept: raw.compatibility.accept.iter().map(|accept| reader.accept(accept)).collect::<Result<_, _>>()?,
        hooks: Hooks {
            migrate: raw.hooks.migrate.as_ref().map(|hook| reader.expand(hook)).transpose()?,
            trial: raw.hooks.trial.as_ref().map(|hook| reader.expand(hook)).transpose()?,
            smoke: raw.hooks.smoke.as_ref().map(|hook| reader.expand(hook)).transpose()?,
            timeout: reader.duration(raw.hooks.timeout.as_ref(), Duration::from_secs(600))?,
        },
        traffic: reader.all_traffic(&raw.traffic)?,
        checks: reader.checks(&raw.check)?,
        rehearse: reader.rehearse(&raw.rehearse)?,
    };
    if same_database(&plan.source.url, &plan.target.url) {
        let hint = "name two databases on two servers".to_owned();
        return Err(reader.fault(raw.target.url.span(), "source and target are the same database", Some(hint)));
    }
    reader.places(&raw, &plan)?;
    reader.settles(&raw, &plan)?;
    if let Some(trial) = raw.hooks.trial.as_ref().filter(|_| !plan.traffic.iter().any(|traffic| matches!(traffic, Traffic::Flags { .. }))) {
        let hint = "add a section `[[traffic]]` with `kind = \"flags\"`: its clients are those that are refused meanwhile".to_owned();
        return Err(reader.fault(trial.span(), "`trial` wants flags", Some(hint)));
    }
    Ok(plan)
}

fn same_database(a: &DatabaseUrl, b: &DatabaseUrl) -> bool {
    (&a.host, a.port, &a.database) == (&b.host, b.port, &b.database)
}

/// Units of a size, the largest first.
const UNITS: [(&str, u64); 5] = [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];

fn parse_size(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = (text[..at].parse::<u64>().ok()?, text[at..].trim());
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

fn spell_size(bytes: u64) -> String {
    let (name, unit) = UNITS.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)).unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

pub(super) struct Reader<'a> {
    text: &'a str,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn kind(&self, kind: &Text) -> Result<(), PlanError> {
        match self.expand(kind)?.as_str() {
            "switch" => Ok(()),
            other => {
                let hint = Some("the kind of a plan is \"switch\"".to_owned());
                Err(self.fault(kind.span(), format!("unknown kind `{other}`"), hint))
            }
        }
    }

    fn name(&self, name: &Text) -> Result<String, PlanError> {
        let value = self.expand(name)?;
        let fits = (1..=LONGEST_NAME).contains(&value.len())
            && value.starts_with(|c: char| c.is_ascii_alphanumeric())
            && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if fits {
            return Ok(value);
        }
        let hint = format!("use 1 to {LONGEST_NAME} letters, digits, `-` or `_`, beginning with a letter or digit");
        Err(self.fault(name.span(), format!("`{value}` can't name a plan"), Some(hint)))
    }

    /// A pattern for columns that could never be met would leave a secret uncovered.
    fn redact(&self, pattern: &Text) -> Result<String, PlanError> {
        let value = self.expand(pattern)?;
        if value.contains('*') || value.split('.').filter(|part| !part.is_empty()).count() == 3 {
            return Ok(value);
        }
        let hint = "write schema.table.column, and `*` for any text: \"public.users.email\", \"*.password*\"".to_owned();
        Err(self.fault(pattern.span(), format!("`{value}` means no column"), Some(hint)))
    }

    fn database(&self, database: &file::Database) -> Result<Database, PlanError> {
        let url = self.url(&database.url)?;
        let peer_url = database.peer_url.as_ref().map_or_else(|| Ok(url.clone()), |peer| self.url(peer))?;
        Ok(Database { url, peer_url })
    }

    fn url(&self, text: &Text) -> Result<DatabaseUrl, PlanError> {
        DatabaseUrl::parse(&self.expand(text)?).map_err(|wrong| {
            let hint = "a URL looks like postgres://user:password@host:5432/database?sslmode=require".to_owned();
            self.fault(text.span(), format!("bad URL: {wrong}"), Some(hint))
        })
    }

    fn pause(&self, pause: &file::Pause) -> Result<Pause, PlanError> {
        let budget = self.duration(pause.budget.as_ref(), Duration::from_secs(3))?;
        if budget < Duration::from_millis(100) || budget > Duration::from_secs(60) {
            let span = pause.budget.as_ref().map_or(0..0, Spanned::span);
            let hint = "choose one shorter than the clients' time-outs, from 100ms to 60s".to_owned();
            return Err(self.fault(span, "the pause's budget is out of range", Some(hint)));
        }
        Ok(Pause {
            budget,
            attempts: self.number(pause.attempts.as_ref(), 3, 1..=100)?,
            lag_bytes: self.number(pause.lag_bytes.as_ref(), 1 << 20, 1..=u64::MAX)?,
        })
    }

    pub(super) fn duration(&self, text: Option<&Text>, default: Duration) -> Result<Duration, PlanError> {
        let Some(text) = text else { return Ok(default) };
        humantime::parse_duration(&self.expand(text)?).map_err(|error| {
            let hint = "write it like \"150ms\", \"3s\" or \"2h 30m\"".to_owned();
            self.fault(text.span(), format!("not a duration: {error}"), Some(hint))
        })
    }

    /// Bytes: a number with a unit, where 1kB is 1024 bytes, as PostgreSQL has it.
    fn size(&self, text: Option<&Text>, default: u64, range: RangeInclusive<u64>) -> Result<u64, PlanError> {
        let Some(text) = text else { return Ok(default) };
        let bytes = parse_size(&self.expand(text)?).ok_or_else(|| {
            let hint = "write it like \"512kB\", \"64MB\" or \"1GB\"".to_owned();
            self.fault(text.span(), "not a size", Some(hint))
        })?;
        if range.contains(&bytes) {
            return Ok(bytes);
        }
        let hint = format!("choose from {} to {}", spell_size(*range.start()), spell_size(*range.end()));
        Err(self.fault(text.span(), "the size is out of range", Some(hint)))
    }

    pub(super) fn number<N>(&self, value: Option<&Spanned<N>>, default: N, range: RangeInclusive<N>) -> Result<N, PlanError>
    where
        N: PartialOrd + std::marker::Copy + std::fmt::Display,
    {
        match value {
            None => Ok(default),
            Some(value) if range.contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => {
                let message = format!("{} is out of range", value.get_ref());
                let hint = format!("choose from {} to {}", range.start(), range.end());
                Err(self.fault(value.span(), message, Some(hint)))
            }
        }
    }

    /// Replaces each `${NAME}` by the environment's value. `$${` stands for a plain `${`.
    pub(super) fn expand(&self, text: &Text) -> Result<String, PlanError> {
        expand(text.get_ref(), self.environment).map_err(|(message, hint)| self.fault(text.span(), message, Some(hint)))
    }

    pub(super) fn fault(&self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) -> PlanError {
        PlanError::at(self.text, span, message, hint)
    }
}

impl file::Traffic {
    /// Each key, with its place where it is there.
    fn keys(&self) -> [(&'static str, Option<Range<usize>>); 29] {
        fn place<T>(value: Option<&Spanned<T>>) -> Option<Range<usize>> {
            value.map(Spanned::span)
        }
        [
            ("admin_url", place(self.admin_url.as_ref())),
            ("database", place(self.database.as_ref())),
            ("config_file", place(self.config_file.as_ref())),
            ("path", place(self.path.as_ref())),
            ("format", place(self.format.as_ref())),
            ("variable", place(self.variable.as_ref())),
            ("value", place(self.value.as_ref())),
            ("hold", place(self.hold.as_ref())),
            ("release", place(self.release.as_ref())),
            ("observe", place(self.observe.as_ref())),
            ("timeout", place(self.timeout.as_ref())),
            ("lease", place(self.lease.as_ref())),
            ("rollout", place(self.rollout.as_ref())),
            ("source", place(self.source.as_ref())),
            ("target", place(self.target.as_ref())),
            ("through", place(self.through.as_ref())),
            ("url", place(self.url.as_ref())),
            ("token", place(self.token.as_ref())),
            ("ca_file", place(self.ca_file.as_ref())),
            ("settle", place(self.settle.as_ref())),
            ("key", place(self.key.as_ref())),
            ("flag", place(self.flag.as_ref())),
            ("project", place(self.project.as_ref())),
            ("workspace", place(self.workspace.as_ref())),
            ("environment", place(self.environment.as_ref())),
            ("context", place(self.context.as_ref())),
            ("attribute", place(self.attribute.as_ref())),
            ("source_segment", place(self.source_segment.as_ref())),
            ("target_segment", place(self.target_segment.as_ref())),
        ]
    }
}
