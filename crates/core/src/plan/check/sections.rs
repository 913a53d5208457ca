//! The sections that hold more than single values: tables, copy, traffic, checks, what is accepted.

use super::*;

impl Reader<'_> {
    pub(super) fn tables(&self, raw: &file::Tables, tables: &[file::Table]) -> Result<Tables, PlanError> {
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

    pub(super) fn pattern(&self, text: &Text) -> Result<Pattern, PlanError> {
        Pattern::parse(&self.expand(text)?).map_err(|error| self.fault(text.span(), error.message, Some(error.hint)))
    }

    pub(super) fn table(&self, raw: &file::Table) -> Result<TableSettings, PlanError> {
        let Some((schema, name)) = self.pattern(&raw.name)?.exact() else {
            let hint = Some("name one table; a `*` in its name goes into double quotes".to_owned());
            return Err(self.fault(raw.name.span(), "a section [[table]] is about one table", hint));
        };
        let chunk_rows = raw.chunk_rows.as_ref().map(|rows| self.number(Some(rows), 1, CHUNK_ROWS)).transpose()?;
        let redact = raw.redact.iter().flatten().map(|column| self.expand(column)).collect::<Result<_, _>>()?;
        Ok(TableSettings { schema, name, chunk_rows, redact })
    }

    pub(super) fn copy(&self, raw: &file::Copy) -> Result<Copy, PlanError> {
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
            max_rate: raw.max_rate.as_ref().map(|text| self.size(Some(text), 0, 1 << 20..=1 << 40)).transpose()?,
            max_latency: self.latency(raw.max_latency.as_ref())?,
        })
    }

    pub(super) fn latency(&self, text: Option<&Text>) -> Result<Option<Duration>, PlanError> {
        let Some(text) = text else { return Ok(None) };
        let latency = self.duration(Some(text), Duration::ZERO)?;
        if !LATENCY.contains(&latency) {
            let hint = "choose from 1ms to 10s, above what a small query takes when nothing else is done".to_owned();
            return Err(self.fault(text.span(), "`max_latency` is out of range", Some(hint)));
        }
        Ok(Some(latency))
    }

    pub(super) fn all_traffic(&self, raw: &[file::Traffic]) -> Result<Vec<Traffic>, PlanError> {
        let traffic = raw.iter().map(|traffic| self.traffic(traffic)).collect::<Result<Vec<_>, _>>()?;
        let mut flags = traffic.iter().zip(raw).filter(|(one, _)| matches!(one, Traffic::Flags { .. }));
        if let Some((_, second)) = flags.nth(1) {
            let hint = Some("keep one: its servers and clients may be many".to_owned());
            return Err(self.fault(second.kind.span(), "there are two sections of traffic of kind `flags`", hint));
        }
        Ok(traffic)
    }

    pub(super) fn traffic(&self, raw: &file::Traffic) -> Result<Traffic, PlanError> {
        let kind = self.expand(&raw.kind)?;
        let keys = match kind.as_str() {
            "pgbouncer" => vec!["admin_url", "database", "config_file"],
            "file" => vec!["path", "format", "variable", "value"],
            "command" => vec!["hold", "release", "observe", "timeout"],
            "flags" => vec!["lease", "rollout", "source", "target", "through"],
            other => services::keys(other).ok_or_else(|| {
                let known = ["pgbouncer", "file", "command", "flags"].into_iter().chain(services::KINDS.map(|(kind, _)| kind));
                let hint = nearest(other, known.clone()).map_or_else(
                    || format!("expected one of {}", known.collect::<Vec<_>>().join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                self.fault(raw.kind.span(), format!("unknown kind of traffic `{other}`"), Some(hint))
            })?,
        };
        for (key, value) in raw.keys() {
            if let Some(value) = value.filter(|_| !keys.contains(&key)) {
                let hint = format!("`{kind}` takes {}", keys.join(", "));
                return Err(self.fault(value, format!("`{key}` does not belong to traffic of kind `{kind}`"), Some(hint)));
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
            "flags" => self.flags(raw)?,
            "command" => Traffic::Command {
                hold: optional(&raw.hold)?,
                release: required("release", &raw.release)?,
                observe: optional(&raw.observe)?,
                timeout: self.duration(raw.timeout.as_ref(), Duration::from_secs(30))?,
            },
            _ => Traffic::Service(Box::new(self.service(&kind, raw)?)),
        })
    }

    /// The format that is named, else the one that the file's name ends in.
    pub(super) fn format(&self, path: &std::path::Path, raw: &file::Traffic) -> Result<Format, PlanError> {
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

    pub(super) fn in_pause(&self, text: Option<&Text>) -> Result<InPause, PlanError> {
        let Some(text) = text else { return Ok(InPause::Changed) };
        let word = self.expand(text)?;
        InPause::NAMES.iter().find(|(name, _)| *name == word).map(|(_, what)| *what).ok_or_else(|| {
            let hint = "choose \"changed\": the rows that changed since the switch began, or \"off\"".to_owned();
            self.fault(text.span(), format!("`{word}` can't be verified in the pause"), Some(hint))
        })
    }

    pub(super) fn large_objects(&self, text: Option<&Text>) -> Result<LargeObjects, PlanError> {
        let Some(text) = text else { return Ok(LargeObjects::Refuse) };
        match self.expand(text)?.as_str() {
            "refuse" => Ok(LargeObjects::Refuse),
            "ignore" => Ok(LargeObjects::Ignore),
            "copy" => Ok(LargeObjects::Copy),
            other => {
                let hint = "write \"refuse\", \"copy\", or \"ignore\" to leave them behind".to_owned();
                Err(self.fault(text.span(), format!("large objects can't be treated as `{other}`"), Some(hint)))
            }
        }
    }

    pub(super) fn accept(&self, raw: &file::Accept) -> Result<Accept, PlanError> {
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

    pub(super) fn checks(&self, raw: &[file::Check]) -> Result<Vec<Check>, PlanError> {
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

    pub(super) fn check(&self, raw: &file::Check) -> Result<Check, PlanError> {
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

    pub(super) fn expect(&self, raw: &file::Check, name: &str) -> Result<Expect, PlanError> {
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
}
