//! PgBouncer's configuration file, as PgBouncer reads it.
//!
//! `key = value` lines in `[sections]`; a value goes to the end of its line, there is no line
//! continuation and no comment behind a value. `%include FILE` is replaced by that file, which inherits
//! the section and may leave another behind. In `[databases]` a value is a list of `name=value` pairs
//! parted by spaces, a value possibly in single quotes with `''` for one.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{FileFault, TrafficError, revise};

/// How deep includes may be nested, as in PgBouncer.
const INCLUDE_DEPTH: usize = 10;

/// Where PgBouncer's own default for a missing `port` leads.
const DEFAULT_PORT: u16 = 5432;

/// Where an entry of `[databases]` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    /// Host, address or socket folder; absent means PgBouncer's own socket folder.
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) dbname: String,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("(default socket)");
        write!(f, "host={host} port={} dbname={}", self.port, self.dbname)
    }
}

/// The one entry of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The file it is in: the configuration file, or one that is included.
    pub(super) path: PathBuf,
    /// Its place among the settings of that file, from 0: sections alone don't tell, an included file
    /// may leave another one behind.
    place: usize,
    pub(super) backend: Backend,
    /// The pooling mode it names, or else the one of `[pgbouncer]`.
    pub(super) pool_mode: Option<String>,
}

/// Finds the entry of `database` in `config` and the files it includes. Blocks.
pub(super) fn find(config: &Path, database: &str) -> Result<Entry, TrafficError> {
    let mut survey = Survey { database, entries: Vec::new(), wildcard: false, pool_mode: None };
    survey.file(config, config, &mut String::new(), 0)?;
    let (wildcard, pool_mode) = (survey.wildcard, survey.pool_mode);
    let fault = match (survey.entries.pop(), survey.entries.is_empty()) {
        (Some(entry), true) => {
            let pool_mode = entry.pool_mode.or(pool_mode);
            return Ok(Entry { pool_mode, ..entry });
        }
        (Some(_), false) => FileFault::Ambiguous(database.to_owned()),
        (None, _) if wildcard => FileFault::Wildcard(database.to_owned()),
        (None, _) => FileFault::Missing(database.to_owned()),
    };
    Err(TrafficError::File { path: config.to_owned(), source: fault })
}

/// Points `entry` at `to` in its file. Tells whether the file had to be changed. Blocks.
pub(super) fn rewrite(entry: &Entry, database: &str, to: &Backend) -> Result<bool, TrafficError> {
    revise::edit(&entry.path, |text| repointed(text, entry.place, database, to))
}

/// `text` with the host, port and dbname of `database`'s entry set, and nothing else changed.
fn repointed(text: &str, place: usize, database: &str, to: &Backend) -> Result<Option<String>, FileFault> {
    let before = items(text)?;
    let mut settings = before.iter().filter_map(|item| match item {
        Item::Setting { key, span } => Some((key, span)),
        _ => None,
    });
    let Some((_, span)) = settings.nth(place).filter(|(key, _)| *key == database) else {
        return Err(FileFault::Missing(database.to_owned()));
    };
    let pairs = pairs(text, span.clone())?;
    if backend(database, &pairs, text, span.start)? == *to {
        return Ok(None);
    }
    let new = spliced(text, span.start, &pairs, &changes(database, &pairs, to));
    let after = items(&new)?;
    let kept = before.len() == after.len() && before.iter().zip(&after).all(|(old, new_item)| old.same(text, new_item, &new, span));
    if kept { Ok(Some(new)) } else { Err(FileFault::NotOnly(database.to_owned())) }
}

/// What a walk over all files finds.
struct Survey<'a> {
    database: &'a str,
    entries: Vec<Entry>,
    wildcard: bool,
    pool_mode: Option<String>,
}

impl Survey<'_> {
    fn file(&mut self, root: &Path, path: &Path, section: &mut String, depth: usize) -> Result<(), TrafficError> {
        let fault = |source| TrafficError::File { path: path.to_owned(), source };
        let text = revise::read(path)?;
        let mut place = 0;
        for item in items(&text).map_err(fault)? {
            match item {
                Item::Section(name) => *section = name,
                Item::Include(..) if depth >= INCLUDE_DEPTH => {
                    let reason = "files are included too deep".to_owned();
                    return Err(fault(FileFault::Syntax { line: 1, reason }));
                }
                Item::Include(name) => self.file(root, &included(root, path, &name), section, depth + 1)?,
                Item::Setting { key, span } => {
                    match section.as_str() {
                        "databases" => self.entry(&text, path, place, &key, span).map_err(fault)?,
                        "pgbouncer" if key == "pool_mode" => self.pool_mode = Some(text[span].to_owned()),
                        _ => {}
                    }
                    place += 1;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, text: &str, path: &Path, place: usize, key: &str, span: Range<usize>) -> Result<(), FileFault> {
        self.wildcard |= key == "*";
        if key != self.database || key == "*" {
            return Ok(());
        }
        let pairs = pairs(text, span.clone())?;
        let backend = backend(key, &pairs, text, span.start)?;
        let pool_mode = last(&pairs, "pool_mode").map(|pair| pair.value.clone());
        self.entries.push(Entry { path: path.to_owned(), place, backend, pool_mode });
        Ok(())
    }
}

/// Relative names start from PgBouncer's working folder, which can't be known: the usual places are
/// beside the file and beside the first file.
fn included(root: &Path, from: &Path, name: &str) -> PathBuf {
    let beside = |path: &Path| path.with_file_name(name);
    let first = beside(from);
    if Path::new(name).is_absolute() || first.exists() { first } else { beside(root) }
}

/// One thing in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Section(String),
    Include(String),
    Setting { key: String, span: Range<usize> },
}

impl Item {
    /// Whether both are the same, but for the value that stood at `changed`.
    fn same(&self, old: &str, other: &Self, new: &str, changed: &Range<usize>) -> bool {
        match (self, other) {
            (Self::Setting { key: a, span: at }, Self::Setting { key: b, span: other }) => {
                a == b && (at == changed || old[at.clone()] == new[other.clone()])
            }
            _ => self == other,
        }
    }
}

fn items(text: &str) -> Result<Vec<Item>, FileFault> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start_matches(space).len();
        let rest = &text[at..];
        let line = rest.split('\n').next().unwrap_or_default();
        match rest.bytes().next() {
            None => return Ok(found),
            Some(b'#' | b';') => at += line.len(),
            Some(b'[') => {
                let end = line.find(']').ok_or_else(|| syntax(text, at, "a section has no `]`"))?;
                found.push(Item::Section(line[1..end].to_owned()));
                at += end + 1;
            }
            _ => {
                found.push(item(text, at, line)?);
                at += line.len();
            }
        }
    }
}

fn item(text: &str, at: usize, line: &str) -> Result<Item, FileFault> {
    if let Some(name) = line.strip_prefix("%include").filter(|name| name.starts_with(blank)) {
        return Ok(Item::Include(name.trim_matches(space).to_owned()));
    }
    let (key, rest) = match line.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'').ok_or_else(|| syntax(text, at, "a name has no closing quote"))?,
        None => line.split_at(line.find(|c: char| !(c.is_ascii_alphanumeric() || "_.-*".contains(c))).unwrap_or(line.len())),
    };
    let rest = rest.trim_start_matches(blank).strip_prefix('=').ok_or_else(|| syntax(text, at, "it is no `key = value`"))?;
    let value = rest.trim_start_matches(blank);
    let start = at + line.len() - value.len();
    Ok(Item::Setting { key: key.to_owned(), span: start..start + value.trim_end_matches(space).len() })
}

/// One `name=value` of an entry.
#[derive(Debug)]
struct Pair {
    name: String,
    value: String,
    /// The bytes of the value, with its quotes.
    span: Range<usize>,
}

fn pairs(text: &str, span: Range<usize>) -> Result<Vec<Pair>, FileFault> {
    let broken = |at| syntax(text, at, "the entry is no list of name=value pairs");
    let connection = &text[span.clone()];
    if connection.contains('\t') {
        return Err(syntax(text, span.start, "the entry is parted by tabs, which PgBouncer takes for a part of a value"));
    }
    let mut found = Vec::new();
    let mut at = span.start;
    loop {
        let rest = text[at..span.end].trim_start_matches(' ');
        if rest.is_empty() {
            return Ok(found);
        }
        let begin = span.end - rest.len();
        let (name, behind) = rest.split_once('=').ok_or_else(|| broken(begin))?;
        let name = name.trim_end_matches(' ');
        let raw = behind.trim_start_matches(' ');
        let start = span.end - raw.len();
        let (value, length) = value(raw).ok_or_else(|| broken(start))?;
        let parted = length == raw.len() || raw[length..].starts_with(' ');
        if name.is_empty() || name.contains(' ') || value.is_empty() || !parted {
            return Err(broken(begin));
        }
        found.push(Pair { name: name.to_owned(), value, span: start..start + length });
        at = start + length;
    }
}

/// The value at the beginning of `raw`, and its length with its quotes.
fn value(raw: &str) -> Option<(String, usize)> {
    let Some(quoted) = raw.strip_prefix('\'') else {
        let length = raw.find(' ').unwrap_or(raw.len());
        return Some((raw[..length].to_owned(), length));
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (part, behind) = rest.split_once('\'')?;
        value.push_str(part);
        let Some(more) = behind.strip_prefix('\'') else { return Some((value, raw.len() - behind.len())) };
        value.push('\'');
        rest = more;
    }
}

fn last<'a>(pairs: &'a [Pair], name: &str) -> Option<&'a Pair> {
    pairs.iter().rev().find(|pair| pair.name == name)
}

fn backend(database: &str, pairs: &[Pair], text: &str, at: usize) -> Result<Backend, FileFault> {
    let value = |name| last(pairs, name).map(|pair| pair.value.clone());
    let port = value("port").map(|port| port.parse()).transpose();
    Ok(Backend {
        host: value("host"),
        port: port.map_err(|_| syntax(text, at, "the entry's port is no port"))?.unwrap_or(DEFAULT_PORT),
        dbname: value("dbname").unwrap_or_else(|| database.to_owned()),
    })
}

/// The pairs to set so that the entry leads to `to`.
fn changes(database: &str, pairs: &[Pair], to: &Backend) -> Vec<(&'static str, String)> {
    let default_port = DEFAULT_PORT.to_string();
    let wanted = [
        ("host", to.host.clone().unwrap_or_default(), ""),
        ("port", to.port.to_string(), default_port.as_str()),
        ("dbname", to.dbname.clone(), database),
    ];
    let differs = |(name, value, default): &(&str, String, &str)| last(pairs, name).map_or(*default, |pair| pair.value.as_str()) != value;
    wanted.into_iter().filter(differs).map(|(name, value, _)| (name, value)).collect()
}

/// `text` with the changes made to the entry that begins at `start`: in their place, or at its beginning.
fn spliced(text: &str, start: usize, pairs: &[Pair], changes: &[(&'static str, String)]) -> String {
    let mut edits = Vec::new();
    for (name, value) in changes {
        edits.push(match last(pairs, name) {
            Some(pair) => (pair.span.clone(), quoted(value, text[pair.span.clone()].starts_with('\''))),
            None if pairs.is_empty() && edits.is_empty() => (start..start, format!("{name}={}", quoted(value, false))),
            None if pairs.is_empty() => (start..start, format!(" {name}={}", quoted(value, false))),
            None => (start..start, format!("{name}={} ", quoted(value, false))),
        });
    }
    edits.sort_by_key(|(span, _)| span.start);
    let mut new = String::new();
    let mut at = 0;
    for (span, replacement) in edits {
        new.push_str(&text[at..span.start]);
        new.push_str(&replacement);
        at = span.end;
    }
    new.push_str(&text[at..]);
    new
}

fn quoted(value: &str, always: bool) -> String {
    if always || value.contains([' ', '\'']) { format!("'{}'", value.replace('\'', "''")) } else { value.to_owned() }
}

fn syntax(text: &str, at: usize, reason: &str) -> FileFault {
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    FileFault::Syntax { line, reason: reason.to_owned() }
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// C's `isspace`.
fn space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests;
