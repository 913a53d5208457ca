//! TOML: the parser itself tells where a value stands.

use ::toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    line_of, only,
    variable::{Found, Kind},
};
use crate::FileFault;

pub(super) fn locate(text: &str, variable: &str) -> Result<Found, FileFault> {
    let document = DeTable::parse(text).map_err(|error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        FileFault::Syntax { line, reason: "it is not valid TOML".to_owned() }
    })?;
    let mut found = Vec::new();
    search(document.get_ref(), variable, &mut found);
    let value = only(variable, found)?;
    let (text_value, kind) = match value.get_ref() {
        DeValue::String(value) => (value.to_string(), Kind::Text),
        DeValue::Integer(number) => (number.to_string(), Kind::Number),
        DeValue::Float(number) => (number.to_string(), Kind::Number),
        DeValue::Boolean(value) => (value.to_string(), Kind::Bool),
        _ => {
            let reason = format!("`{variable}` is not a text, number or boolean");
            return Err(FileFault::Unsupported { line: line_of(text, value.span().start), reason });
        }
    };
    Ok(Found { span: value.span(), value: text_value, kind })
}

pub(super) fn written(raw: &str, kind: Kind, value: &str) -> String {
    let literal = raw.starts_with('\'') && !value.contains('\'') && !value.chars().any(char::is_control);
    match kind {
        Kind::Text if literal => format!("'{value}'"),
        Kind::Text => basic(value),
        _ => value.to_owned(),
    }
}

pub(super) fn only_changed(old: &str, new: &str, variable: &str, value: &str) -> bool {
    let (Ok(mut old), Ok(new)) = (::toml::from_str::<Table>(old), ::toml::from_str::<Table>(new)) else { return false };
    set(&mut old, variable, value) && old == new
}

fn search<'a, 'i>(table: &'a DeTable<'i>, path: &str, found: &mut Vec<&'a ::toml::Spanned<DeValue<'i>>>) {
    for (key, value) in table {
        let key: &str = key.get_ref();
        if key == path {
            found.push(value);
        } else if let Some(rest) = path.strip_prefix(key).and_then(|rest| rest.strip_prefix('.'))
            && let DeValue::Table(inner) = value.get_ref()
        {
            search(inner, rest, found);
        }
    }
}

fn set(table: &mut Table, path: &str, value: &str) -> bool {
    table.iter_mut().any(|(key, member)| {
        if key == path {
            *member = match member {
                Value::Integer(_) => value.parse().map_or(Value::Boolean(false), Value::Integer),
                Value::Float(_) => value.parse().map_or(Value::Boolean(false), Value::Float),
                Value::Boolean(_) => Value::Boolean(value == "true"),
                _ => Value::from(value),
            };
            return true;
        }
        let Some(rest) = path.strip_prefix(key.as_str()).and_then(|rest| rest.strip_prefix('.')) else { return false };
        member.as_table_mut().is_some_and(|inner| set(inner, rest, value))
    })
}

/// `value` as a basic string.
fn basic(value: &str) -> String {
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
