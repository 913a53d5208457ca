//! From the file to the plan: defaults, `${NAME}`, and what TOML's types cannot say.

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
        },
        switch: Switch {
            reverse: raw.switch.reverse.unwrap_or(true),
            sequence_headroom: reader.number(raw.switch.sequence_headroom.as_ref(), 1000, 0..=1_000_000_000)?,
            allow_downgrade: raw.switch.allow_downgrade.unwrap_or(false),
        },
        accept: raw.compatibility.accept.iter().map(|accept| reader.accept(accept)).collect::<Result<_, _>>()?,
        hooks: Hooks {
            migrate: raw.hooks.migrate.as_ref().map(|hook| reader.expand(hook)).transpose()?,
            smoke: raw.hooks.smoke.as_ref().map(|hook| reader.expand(hook)).transpose()?,
            timeout: reader.duration(raw.hooks.timeout.as_ref(), Duration::from_secs(600))?,
        },
        traffic: raw.traffic.iter().map(|traffic| reader.traffic(traffic)).collect::<Result<_, _>>()?,
        checks: reader.checks(&raw.check)?,
        rehearse: reader.rehearse(&raw.rehearse)?,
    };
    if same_database(&plan.source.url, &plan.target.url) {
        let hint = "name two databases on two servers".to_owned();
        return Err(reader.fault(raw.target.url.span(), "source and target are the same database", Some(hint)));
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

    fn tables(&self, raw: &file::Tables, tables: &[file::Table]) -> Result<Tables, PlanError> {
        let patterns = |list: &[Text]| list.iter().map(|text| self.pattern(text)).collect::<Result<Vec<_>, _>>();
        if let Some(include) = raw.include.as_ref().filter(|include| include.get_ref().is_empty()) {
            let hint = Some("name at least one, like \"public.*\"; without the key all tables are covered".to_owned());
            return Err(self.fault(include.span(), "nothing is included", hint));
        }
        let include = raw.include.as_ref().map(|include| patterns(include.get_ref())).transpose()?;
        let exclude = patterns(raw.exclude.as_deref().unwrap_or_default())?;
        let too_many = [raw.include.as_ref().map(Spanned::get_ref), raw.exclude.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|list| list.get(MOST_PATTERNS));
        if let Some(text) = too_many {
            let hint = Some("let patterns stand for several tables: billing.* or public.tmp_*".to_owned());
            return Err(self.fault(text.span(), format!("more than {MOST_PATTERNS} patterns in one list"), hint));
        }
        let filter = Filter { include, exclude, definitions: raw.definitions.unwrap_or(false) };
        let mut settings: Vec<TableSettings> = Vec::with_capacity(tables.len());
        for table in tables {
            let one = self.table(table)?;
            if settings.iter().any(|other| (&other.schema, &other.name) == (&one.schema, &one.name)) {
                let hint = Some("keep one section [[table]] for each table".to_owned());
                return Err(self.fault(table.name.span(), format!("`{}` has two sections", table.name.get_ref()), hint));
            }
            settings.push(one);
        }
        Ok(Tables { filter, cut_foreign_keys: raw.cut_foreign_keys.unwrap_or(false), settings })
    }

    fn pattern(&self, text: &Text) -> Result<Pattern, PlanError> {
        Pattern::parse(&self.expand(text)?).map_err(|error| self.fault(text.span(), error.message, Some(error.hint)))
    }

    fn table(&self, raw: &file::Table) -> Result<TableSettings, PlanError> {
        let Some((schema, name)) = self.pattern(&raw.name)?.exact() else {
            let hint = Some("name one table; a `*` in its name goes into double quotes".to_owned());
            return Err(self.fault(raw.name.span(), "a section [[table]] is about one table", hint));
        };
        let chunk_rows = raw.chunk_rows.as_ref().map(|rows| self.number(Some(rows), 1, CHUNK_ROWS)).transpose()?;
        let redact = raw.redact.iter().flatten().map(|column| self.expand(column)).collect::<Result<_, _>>()?;
        Ok(TableSettings { schema, name, chunk_rows, redact })
    }

    fn copy(&self, raw: &file::Copy) -> Result<Copy, PlanError> {
        let resume_within = self.duration(raw.resume_within.as_ref(), Duration::from_secs(600))?;
        if resume_within > LONGEST_RESUME {
            let span = raw.resume_within.as_ref().map_or(0..0, Spanned::span);
            let hint = "choose at most 24h: the source can't clean up dead rows for so long".to_owned();
            return Err(self.fault(span, "`resume_within` is out of range", Some(hint)));
        }
        Ok(Copy {
            jobs: self.number(raw.jobs.as_ref(), 4, 1..=64)?,
            large_objects: self.large_objects(raw.large_objects.as_ref())?,
            part_bytes: self.size(raw.part_size.as_ref(), 64 << 20, 1 << 20..=1 << 40)?,
            resume_within,
        })
    }

    fn traffic(&self, raw: &file::Traffic) -> Result<Traffic, PlanError> {
        let kind = self.expand(&raw.kind)?;
        let keys: &[&str] = match kind.as_str() {
            "pgbouncer" => &["admin_url", "database", "config_file"],
            "file" => &["path", "format", "variable", "value"],
            "command" => &["hold", "release", "observe", "timeout"],
            other => {
                let known = ["pgbouncer", "file", "command"];
                let hint = nearest(other, known.into_iter())
                    .map_or_else(|| format!("expected one of {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
                return Err(self.fault(raw.kind.span(), format!("unknown kind of traffic `{other}`"), Some(hint)));
            }
        };
        for (key, value) in raw.keys() {
            if let Some(value) = value.filter(|_| !keys.contains(&key)) {
                let hint = format!("`{kind}` takes {}", keys.join(", "));
                return Err(self.fault(value.span(), format!("`{key}` does not belong to traffic of kind `{kind}`"), Some(hint)));
            }
        }
        let missing = |key: &str| self.fault(raw.kind.span(), format!("traffic of kind `{kind}` needs `{key}`"), None);
        let required = |key: &str, value: &Option<Text>| value.as_ref().ok_or_else(|| missing(key)).and_then(|value| self.expand(value));
        let optional = |value: &Option<Text>| value.as_ref().map(|value| self.expand(value)).transpose();
        Ok(match kind.as_str() {
            "pgbouncer" => Traffic::PgBouncer {
                admin_url: self.url(raw.admin_url.as_ref().ok_or_else(|| missing("admin_url"))?)?,
                database: required("database", &raw.database)?,
                config_file: PathBuf::from(required("config_file", &raw.config_file)?),
            },
            "file" => {
                let path = PathBuf::from(required("path", &raw.path)?);
                Traffic::File {
                    format: self.format(&path, raw)?,
                    path,
                    variable: required("variable", &raw.variable)?,
                    value: required("value", &raw.value)?,
                }
            }
            _ => Traffic::Command {
                hold: optional(&raw.hold)?,
                release: required("release", &raw.release)?,
                observe: optional(&raw.observe)?,
                timeout: self.duration(raw.timeout.as_ref(), Duration::from_secs(30))?,
            },
        })
    }

    fn in_pause(&self, text: Option<&Text>) -> Result<InPause, PlanError> {
        let Some(text) = text else { return Ok(InPause::Changed) };
        let word = self.expand(text)?;
        InPause::NAMES.iter().find(|(name, _)| *name == word).map(|(_, what)| *what).ok_or_else(|| {
            let hint = "choose \"changed\": the rows that changed since the switch began, or \"off\"".to_owned();
            self.fault(text.span(), format!("`{word}` can't be verified in the pause"), Some(hint))
        })
    }

    fn large_objects(&self, text: Option<&Text>) -> Result<LargeObjects, PlanError> {
        let Some(text) = text else { return Ok(LargeObjects::Refuse) };
        match self.expand(text)?.as_str() {
            "refuse" => Ok(LargeObjects::Refuse),
            "ignore" => Ok(LargeObjects::Ignore),
            other => {
                let hint = "write \"refuse\", or \"ignore\" to leave them behind".to_owned();
                Err(self.fault(text.span(), format!("large objects can't be treated as `{other}`"), Some(hint)))
            }
        }
    }

    fn accept(&self, raw: &file::Accept) -> Result<Accept, PlanError> {
        let [name, reason] = [&raw.name, &raw.reason].map(|text| self.expand(text).map(|text| text.trim().to_owned()));
        let (name, reason) = (name?, reason?);
        if name.is_empty() {
            let hint = Some("name what differs as `cutover check` does, like \"public.orders.legacy_code\"".to_owned());
            return Err(self.fault(raw.name.span(), "this names nothing that could be accepted", hint));
        }
        if reason.is_empty() {
            let hint = Some("say in a few words why the clients bear it".to_owned());
            return Err(self.fault(raw.reason.span(), format!("`{name}` is accepted without a reason"), hint));
        }
        Ok(Accept { name, reason })
    }

    fn checks(&self, raw: &[file::Check]) -> Result<Vec<Check>, PlanError> {
        let mut checks: Vec<Check> = Vec::with_capacity(raw.len());
        for raw in raw {
            let check = self.check(raw)?;
            if checks.iter().any(|other| other.name == check.name) {
                let hint = Some("give each check its own name".to_owned());
                return Err(self.fault(raw.name.span(), format!("two checks are named `{}`", check.name), hint));
            }
            checks.push(check);
        }
        Ok(checks)
    }

    fn check(&self, raw: &file::Check) -> Result<Check, PlanError> {
        let [name, sql] = [&raw.name, &raw.sql].map(|text| self.expand(text).map(|text| text.trim().to_owned()));
        let (name, sql) = (name?, sql?);
        if name.is_empty() || name.contains(char::is_control) {
            let hint = Some("name it in a few words on one line, like \"ledger balances\"".to_owned());
            return Err(self.fault(raw.name.span(), "this can't name a check", hint));
        }
        if sql.is_empty() {
            let hint = Some("write one query, with the schema before each table".to_owned());
            return Err(self.fault(raw.sql.span(), format!("the check `{name}` has no SQL"), hint));
        }
        let timeout = self.duration(raw.timeout.as_ref(), Duration::from_secs(30))?;
        if !CHECK_TIMEOUT.contains(&timeout) {
            let span = raw.timeout.as_ref().map_or(0..0, Spanned::span);
            return Err(self.fault(span, "the check's timeout is out of range", Some("choose from 1ms to 10min".to_owned())));
        }
        Ok(Check { expect: self.expect(raw, &name)?, name, sql, timeout })
    }

    fn expect(&self, raw: &file::Check, name: &str) -> Result<Expect, PlanError> {
        let known = ["equal", "empty", "value"];
        let word = raw.expect.as_ref().map_or_else(|| Ok("equal".to_owned()), |word| self.expand(word))?;
        let span = raw.expect.as_ref().map_or_else(|| raw.name.span(), Spanned::span);
        match (word.as_str(), &raw.value) {
            ("value", Some(value)) => Ok(Expect::Value(self.expand(value)?)),
            ("value", None) => {
                let hint = Some("add what each side must answer, as text: value = \"0\"".to_owned());
                Err(self.fault(span, format!("the check `{name}` expects a value and has no `value`"), hint))
            }
            ("equal" | "empty", Some(value)) => {
                let hint = Some("write expect = \"value\", or leave `value` out".to_owned());
                Err(self.fault(value.span(), format!("`value` does not belong to a check that expects `{word}`"), hint))
            }
            ("equal", None) => Ok(Expect::Equal),
            ("empty", None) => Ok(Expect::Empty),
            (other, _) => {
                let hint = nearest(other, known.into_iter())
                    .map_or_else(|| format!("expected one of {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
                Err(self.fault(span, format!("a check can't expect `{other}`"), Some(hint)))
            }
        }
    }

    /// The format that is named, else the one that the file's name ends in.
    fn format(&self, path: &std::path::Path, raw: &file::Traffic) -> Result<Format, PlanError> {
        let (name, span) = match &raw.format {
            Some(format) => (self.expand(format)?, format.span()),
            None => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                (name.rsplit('.').next().unwrap_or_default().to_owned(), raw.path.as_ref().map_or(0..0, Spanned::span))
            }
        };
        Format::parse(&name).ok_or_else(|| {
            let hint = Some("set format to env, json, yaml or toml".to_owned());
            self.fault(span, format!("the format of the file can't be told from `{name}`"), hint)
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
        let mut rest = text.get_ref().as_str();
        let mut expanded = String::with_capacity(rest.len());
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                expanded.push_str(&rest[..at - 1]);
                expanded.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            expanded.push_str(&rest[..at]);
            let (name, after) = rest[at + 2..].split_once('}').ok_or_else(|| {
                self.fault(text.span(), "a `${` has no closing `}`", Some("write ${NAME}, or $${ for a plain ${".to_owned()))
            })?;
            let value = (self.environment)(name).ok_or_else(|| {
                let hint = format!("set it, for example: export {name}=…");
                self.fault(text.span(), format!("the environment has no variable `{name}`"), Some(hint))
            })?;
            expanded.push_str(&value);
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    pub(super) fn fault(&self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) -> PlanError {
        PlanError::at(self.text, span, message, hint)
    }
}

impl file::Traffic {
    fn keys(&self) -> [(&'static str, Option<&Text>); 11] {
        [
            ("admin_url", self.admin_url.as_ref()),
            ("database", self.database.as_ref()),
            ("config_file", self.config_file.as_ref()),
            ("path", self.path.as_ref()),
            ("format", self.format.as_ref()),
            ("variable", self.variable.as_ref()),
            ("value", self.value.as_ref()),
            ("hold", self.hold.as_ref()),
            ("release", self.release.as_ref()),
            ("observe", self.observe.as_ref()),
            ("timeout", self.timeout.as_ref()),
        ]
    }
}
