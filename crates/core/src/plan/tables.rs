//! Which tables a cutover covers, and what is said of single ones.

use std::{fmt, iter::Peekable, str::Chars};

use serde::{Deserialize, Serialize};

/// `[tables]` and `[[table]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Which are covered. Fixed once the cutover has begun.
    pub filter: Filter,
    /// Whether foreign keys that refer from a covered table to one that is left out may be missing at the target.
    pub cut_foreign_keys: bool,
    /// What is said of single tables, in the order of the file.
    pub settings: Vec<TableSettings>,
}

/// What is said of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSettings {
    /// Schema.
    pub schema: String,
    /// Name in the schema.
    pub name: String,
    /// Rows in a chunk of its verification; as for all tables where absent.
    pub chunk_rows: Option<u32>,
    /// Columns whose values are never shown.
    pub redact: Vec<String>,
}

/// Which relations a cutover covers: those that `include` matches, without those that `exclude` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// All where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<Pattern>>,
    /// Counts more than `include`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Pattern>,
    /// Whether what is left out is defined at the target all the same, without its rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub definitions: bool,
}

impl Filter {
    /// Whether nothing can be left out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// Every pattern, with the key that it stands in.
    pub fn patterns(&self) -> impl Iterator<Item = (&'static str, &Pattern)> {
        let include = self.include.iter().flatten().map(|pattern| ("include", pattern));
        include.chain(self.exclude.iter().map(|pattern| ("exclude", pattern)))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &self.include {
            None => write!(f, "all tables")?,
            Some(include) => write!(f, "{}", list(include))?,
        }
        if !self.exclude.is_empty() {
            write!(f, " without {}", list(&self.exclude))?;
        }
        if self.definitions {
            write!(f, ", what is left out defined and empty")?;
        }
        Ok(())
    }
}

/// `schema.name`, where `*` stands for any characters. As in SQL, what holds capitals, dots or the like is written in
/// double quotes; inside them `*` stands for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    /// The schema's pieces.
    pub schema: Vec<Piece>,
    /// The name's pieces.
    pub name: Vec<Piece>,
}

/// A piece of a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These characters.
    Text(String),
    /// Any characters, also none.
    Any,
}

/// Why a text is no pattern, and how to write it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: String,
}

impl Pattern {
    /// Reads `schema.name`.
    ///
    /// # Errors
    /// [`PatternError`], with a hint.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut rest = text.chars().peekable();
        let schema = part(text, &mut rest)?;
        if rest.next().is_none() {
            return Err(fault(text, "names no schema", format!("write the schema before it: public.{text}")));
        }
        let name = part(text, &mut rest)?;
        if rest.next().is_some() {
            return Err(fault(text, "has more than two parts", "write schema.name; a name that holds a dot goes into double quotes"));
        }
        Ok(Self { schema, name })
    }

    /// Schema and name, where it stands for exactly one.
    #[must_use]
    pub fn exact(&self) -> Option<(String, String)> {
        match (&self.schema[..], &self.name[..]) {
            ([Piece::Text(schema)], [Piece::Text(name)]) => Some((schema.clone(), name.clone())),
            _ => None,
        }
    }
}

/// One part: up to a dot outside quotes, which stays, or to the end. Neighbouring pieces of the same kind become one.
fn part(text: &str, rest: &mut Peekable<Chars<'_>>) -> Result<Vec<Piece>, PatternError> {
    let mut pieces = Vec::new();
    while let Some(next) = rest.next_if(|next| *next != '.') {
        match next {
            '*' => any(&mut pieces),
            '"' => quoted(text, rest, &mut pieces)?,
            'A'..='Z' => {
                let hint = "as in SQL: write it in lower case, or in double quotes if it has capitals: 'public.\"Orders\"'";
                return Err(fault(text, "has capitals outside quotes", hint));
            }
            'a'..='z' | '0'..='9' | '_' | '$' | '\u{80}'.. => push(&mut pieces, next),
            other => {
                let hint = "as in SQL: what holds it goes into double quotes, 'public.\"odd-name\"'; `*` stands for any characters";
                return Err(fault(text, &format!("has `{other}` outside quotes"), hint));
            }
        }
    }
    if pieces.is_empty() {
        return Err(fault(text, "has an empty part", "write schema.name, like public.orders or billing.*"));
    }
    Ok(pieces)
}

/// What stands between double quotes; two of them are one.
fn quoted(text: &str, rest: &mut Peekable<Chars<'_>>, pieces: &mut Vec<Piece>) -> Result<(), PatternError> {
    let mut empty = true;
    loop {
        match rest.next() {
            Some('"') if rest.next_if_eq(&'"').is_some() => push(pieces, '"'),
            Some('"') if empty => return Err(fault(text, "has an empty name", "write a name between the quotes")),
            Some('"') => return Ok(()),
            Some(other) => push(pieces, other),
            None => return Err(fault(text, "has a quote that is not closed", "close it: 'public.\"Orders\"'")),
        }
        empty = false;
    }
}

fn any(pieces: &mut Vec<Piece>) {
    if pieces.last() != Some(&Piece::Any) {
        pieces.push(Piece::Any);
    }
}

fn push(pieces: &mut Vec<Piece>, next: char) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push(next),
        _ => pieces.push(Piece::Text(next.to_string())),
    }
}

fn fault(text: &str, what: &str, hint: impl Into<String>) -> PatternError {
    PatternError { message: format!("`{text}` {what}"), hint: hint.into() }
}

/// A name as a pattern spells it: in quotes where it must be.
#[must_use]
pub fn spell(name: &str) -> String {
    let plain = name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '$' | '\u{80}'..)) && !name.is_empty();
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |pieces: &[Piece]| {
            let piece = |piece: &Piece| match piece {
                Piece::Text(text) => spell(text),
                Piece::Any => "*".to_owned(),
            };
            pieces.iter().map(piece).collect::<String>()
        };
        write!(f, "{}.{}", part(&self.schema), part(&self.name))
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}
