//! `NAME=value` lines, as docker compose, dotenv and a shell read them.
//!
//! A line may begin with `export`. A value is bare (to the end of the line, or to a `#` after a blank),
//! in single quotes (literally) or in double quotes (`\n`, `\"`, `\\`, `\$`); quoted values may go over
//! several lines. Where readers differ, the form that all of them read alike is written: the old
//! quotes where the new value needs no escapes in them, else single quotes, else double ones.

use std::ops::Range;

use super::{
    line_of, only,
    variable::{Found, Kind},
};
use crate::FileFault;

#[derive(Debug)]
struct Assignment<'a> {
    name: &'a str,
    span: Range<usize>,
    value: String,
    /// Whether the value's form is one that is not rewritten here.
    odd: bool,
}

pub(super) fn locate(text: &str, variable: &str) -> Result<Found, FileFault> {
    let found = assignments(text)?.into_iter().filter(|assignment| assignment.name == variable).collect();
    let Assignment { span, value, odd, .. } = only(variable, found)?;
    if odd {
        let reason = format!("the value of `{variable}` is written in a way that readers understand differently");
        return Err(FileFault::Unsupported { line: line_of(text, span.start), reason });
    }
    Ok(Found { span, value, kind: Kind::Text })
}

/// `value` in the style of `raw`.
pub(super) fn written(raw: &str, value: &str) -> String {
    let double_plain = !value.contains(['"', '\\', '$', '`']) && !value.chars().any(char::is_control);
    let single_plain = !value.contains('\'') && !value.ends_with('\\') && !value.chars().any(char::is_control);
    match raw.chars().next() {
        Some('"') if double_plain => format!("\"{value}\""),
        Some('\'') if single_plain => format!("'{value}'"),
        Some('"' | '\'') => quoted(value, single_plain),
        _ if is_bare(value) => value.to_owned(),
        _ => quoted(value, single_plain),
    }
}

pub(super) fn only_changed(old: &str, new: &str, variable: &str, value: &str) -> bool {
    let (Ok(old), Ok(new)) = (assignments(old), assignments(new)) else { return false };
    let same = |(old, new): (&Assignment<'_>, &Assignment<'_>)| {
        old.name == new.name && new.value == if new.name == variable { value } else { old.value.as_str() }
    };
    old.len() == new.len() && old.iter().zip(&new).all(same)
}

fn quoted(value: &str, single_plain: bool) -> String {
    if single_plain {
        return format!("'{value}'");
    }
    let mut text = String::from('"');
    for c in value.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '"' | '\\' | '$' | '`' => text.extend(['\\', c]),
            _ => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Whether every reader takes `value` without quotes for itself.
fn is_bare(value: &str) -> bool {
    !value.chars().any(|c| c.is_whitespace() || c.is_control() || "#'\"`$\\".contains(c))
}

fn assignments(text: &str) -> Result<Vec<Assignment<'_>>, FileFault> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let line_end = text[at..].find('\n').map_or(text.len(), |length| at + length);
        let Some((name, value_at)) = name(text, at..line_end) else {
            at = line_end + 1;
            continue;
        };
        let assignment = assignment(text, name, value_at, line_end)?;
        let end = assignment.span.end;
        at = text[end..].find('\n').map_or(text.len(), |length| end + length + 1);
        found.push(assignment);
    }
    Ok(found)
}

/// The name that a line sets, and where its value begins.
fn name(text: &str, line: Range<usize>) -> Option<(&str, usize)> {
    let content = text[line.clone()].trim_start_matches(blank);
    let content = match content.strip_prefix("export") {
        Some(rest) if rest.starts_with(blank) => rest.trim_start_matches(blank),
        _ => content,
    };
    let length = content.find(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c))).unwrap_or(content.len());
    let (name, rest) = content.split_at(length);
    let value = rest.trim_start_matches(blank).strip_prefix('=')?.trim_start_matches(blank);
    (!name.is_empty()).then_some((name, line.end - value.len()))
}

fn assignment<'a>(text: &'a str, name: &'a str, at: usize, line_end: usize) -> Result<Assignment<'a>, FileFault> {
    let rest = &text[at..];
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let Some(quote) = quote else {
        let span = at..at + bare_length(text, at, line_end);
        let value = text[span.clone()].to_owned();
        let odd = value.starts_with('`') || (value.is_empty() && rest.starts_with('#'));
        return Ok(Assignment { name, odd, value, span });
    };
    let Some(length) = closing(&rest[1..], quote) else {
        let reason = format!("the value of `{name}` has no closing quote");
        return Err(FileFault::Syntax { line: line_of(text, at), reason });
    };
    let inner = &rest[1..1 + length];
    let end = at + length + 2;
    let behind = text[end..].split('\n').next().unwrap_or_default();
    let odd = !behind.trim_start().is_empty() && !behind.trim_start().starts_with('#');
    let value = if quote == '"' { unescaped(inner) } else { inner.to_owned() };
    Ok(Assignment { name, span: at..end, value, odd })
}

/// The length of a bare value: up to a comment, without the blanks at its end.
fn bare_length(text: &str, at: usize, line_end: usize) -> usize {
    let line = &text[at..line_end];
    let after_blank = |(index, _): &(usize, &str)| *index == 0 || line[..*index].ends_with(blank);
    let comment = line.match_indices('#').find(after_blank).map_or(line.len(), |(index, _)| index);
    line[..comment].trim_end().len()
}

/// The length of a quoted value, up to its closing quote.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, c)| {
        let ends = c == quote && !escaped;
        escaped = quote == '"' && c == '\\' && !escaped;
        ends.then_some(index)
    })
}

fn unescaped(text: &str) -> String {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            value.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('t') => value.push('\t'),
            Some(c @ ('"' | '\\' | '$' | '`')) => value.push(c),
            Some(c) => value.extend(['\\', c]),
            None => value.push('\\'),
        }
    }
    value
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}
