//! Plain and quoted YAML scalars on one line.

use std::ops::Range;

use crate::file::variable::{Kind, is_number};

/// A value on one line.
pub(super) struct Scalar {
    pub(super) span: Range<usize>,
    pub(super) value: String,
    pub(super) kind: Kind,
}

impl Scalar {
    /// Reads the scalar at the beginning of `line`, which stands at `at` in the text.
    pub(super) fn read(line: &str, at: usize) -> Option<Self> {
        match line.bytes().next()? {
            quote @ (b'"' | b'\'') => {
                let end = quoted_end(line, quote)?;
                Some(Self { span: at..at + end, value: unquoted(&line[..end]), kind: Kind::Text })
            }
            b'[' | b'{' | b'|' | b'>' | b'*' | b'&' | b'!' | b'%' | b'@' | b'`' => None,
            _ => {
                let value = &line[..plain_end(line)];
                // `a: b: c` is no scalar, and not valid either.
                (!value.contains(": ")).then(|| Self { span: at..at + value.len(), value: value.to_owned(), kind: plain_kind(value) })
            }
        }
    }
}

/// `value` in the style of `raw`.
pub(in crate::file) fn written(raw: &str, kind: Kind, value: &str) -> String {
    let controls = value.chars().any(char::is_control);
    match raw.chars().next() {
        _ if kind != Kind::Text => value.to_owned(),
        Some('\'') if !controls => format!("'{}'", value.replace('\'', "''")),
        Some('"' | '\'') => double_quoted(value),
        _ if !controls && is_plain_text(value) => value.to_owned(),
        _ => double_quoted(value),
    }
}

/// The length of a plain scalar at the beginning of `line`.
pub(super) fn plain_end(line: &str) -> usize {
    let comment = line.match_indices('#').find(|(index, _)| line[..*index].ends_with([' ', '\t']));
    line[..comment.map_or(line.len(), |(index, _)| index)].trim_end().len()
}

/// The length of a quoted scalar at the beginning of `text`, with both quotes.
pub(super) fn quoted_end(text: &str, quote: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 1,
            b'\'' if quote == b'\'' && bytes.get(at + 1) == Some(&b'\'') => at += 1,
            byte if byte == quote => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The length of a flow collection at the beginning of `text`.
pub(super) fn flow_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        let begins_word = at == 0 || b" \t\r\n[{,:".contains(&bytes[at - 1]);
        match bytes[at] {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            quote @ (b'"' | b'\'') if begins_word => at += quoted_end(&text[at..], quote)? - 1,
            b'#' if begins_word => at += text[at..].find('\n')?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The text of a quoted scalar.
pub(super) fn unquoted(raw: &str) -> String {
    let inner = &raw[1..raw.len() - 1];
    if raw.starts_with('\'') {
        return inner.replace("''", "'");
    }
    let mut value = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        value.extend(if c == '\\' { escaped(&mut chars) } else { Some(c) });
    }
    value
}

fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let digits = match chars.next()? {
        'n' => return Some('\n'),
        't' | '\t' => return Some('\t'),
        'r' => return Some('\r'),
        '0' => return Some('\0'),
        'a' => return Some('\u{7}'),
        'b' => return Some('\u{8}'),
        'v' => return Some('\u{b}'),
        'f' => return Some('\u{c}'),
        'e' => return Some('\u{1b}'),
        'N' => return Some('\u{85}'),
        '_' => return Some('\u{a0}'),
        'L' => return Some('\u{2028}'),
        'P' => return Some('\u{2029}'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        c => return Some(c),
    };
    let code: String = chars.by_ref().take(digits).collect();
    u32::from_str_radix(&code, 16).ok().and_then(char::from_u32)
}

fn double_quoted(value: &str) -> String {
    let mut text = String::from('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if c.is_control() => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

fn plain_kind(value: &str) -> Kind {
    match value {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Bool,
        _ if is_number(value) => Kind::Number,
        _ => Kind::Text,
    }
}

/// Whether every reader takes `value` without quotes for a text, and for this one.
fn is_plain_text(value: &str) -> bool {
    let first = value.chars().next();
    let begins = first.is_some_and(|c| !"-?:,[]{}#&*!|>'\"%@`=<.+~".contains(c));
    let word = !["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&value.to_ascii_lowercase().as_str());
    begins
        && word
        && value == value.trim()
        && !value.contains(": ")
        && !value.contains(" #")
        && !value.ends_with(':')
        && !looks_numeric(value)
}

/// Numbers, times and dates of any version of YAML: all of them are made of these, and begin with a digit.
fn looks_numeric(value: &str) -> bool {
    let numeric = value.chars().all(|c| c.is_ascii_hexdigit() || "_:-+.xoTtZz ".contains(c));
    // An address of four parts is no number in any of them.
    let address = value.split(':').next().is_some_and(|host| host.split('.').count() == 4);
    numeric && !address && value.starts_with(|c: char| c.is_ascii_digit())
}
