//! JSON: `serde_json` decides what is valid, a scanner finds where a value stands.

use serde_json::Value;

use super::{
    line_of, only,
    variable::{Found, Kind},
};
use crate::FileFault;

pub(super) fn locate(text: &str, variable: &str) -> Result<Found, FileFault> {
    let _: Value = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    let mut scanner = Scanner { text, at: 0, path: Vec::new(), variable, found: Vec::new() };
    scanner.value();
    let span = only(variable, scanner.found)?;
    let (value, kind) = match serde_json::from_str(&text[span.clone()]).map_err(|error| syntax(&error))? {
        Value::String(value) => (value, Kind::Text),
        Value::Number(number) => (number.to_string(), Kind::Number),
        Value::Bool(value) => (value.to_string(), Kind::Bool),
        Value::Null => (String::new(), Kind::Null),
        Value::Array(_) | Value::Object(_) => {
            let reason = format!("`{variable}` is not a single value");
            return Err(FileFault::Unsupported { line: line_of(text, span.start), reason });
        }
    };
    Ok(Found { span, value, kind })
}

pub(super) fn written(kind: Kind, value: &str) -> String {
    if kind == Kind::Text { Value::from(value).to_string() } else { value.to_owned() }
}

pub(super) fn only_changed(old: &str, new: &str, variable: &str, value: &str) -> bool {
    let (Ok(mut old), Ok(new)) = (serde_json::from_str::<Value>(old), serde_json::from_str::<Value>(new)) else {
        return false;
    };
    set(&mut old, variable, value) && old == new
}

/// Sets what `path` leads to; tells whether it leads to something.
fn set(node: &mut Value, path: &str, value: &str) -> bool {
    let Value::Object(members) = node else { return false };
    members.iter_mut().any(|(key, member)| {
        if key == path {
            *member = match member {
                Value::Number(_) | Value::Bool(_) => serde_json::from_str(value).unwrap_or_default(),
                _ => Value::from(value),
            };
            return true;
        }
        path.strip_prefix(key.as_str()).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| set(member, rest, value))
    })
}

/// Never says what stands in the file.
fn syntax(error: &serde_json::Error) -> FileFault {
    FileFault::Syntax { line: error.line(), reason: format!("it is not valid JSON, column {}", error.column()) }
}

/// Walks over a text that is known to be valid, and notes where the values of `variable` stand.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    path: Vec<String>,
    variable: &'a str,
    found: Vec<std::ops::Range<usize>>,
}

impl Scanner<'_> {
    fn value(&mut self) {
        self.blanks();
        match self.byte() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string(),
            _ => self.skip_while(|byte| !b",]} \t\r\n".contains(&byte)),
        }
    }

    fn object(&mut self) {
        self.at += 1;
        loop {
            self.blanks();
            match self.byte() {
                Some(b'"') => self.member(),
                Some(b',') => self.at += 1,
                _ => break,
            }
        }
        self.at += 1;
    }

    fn member(&mut self) {
        let key = self.at;
        self.string();
        self.path.push(serde_json::from_str(&self.text[key..self.at]).unwrap_or_default());
        self.blanks();
        self.at += 1; // the colon
        self.blanks();
        let start = self.at;
        self.value();
        if self.path.join(".") == self.variable {
            self.found.push(start..self.at);
        }
        self.path.pop();
    }

    /// Nothing inside an array has a name.
    fn array(&mut self) {
        let path = std::mem::take(&mut self.path);
        let before = self.found.len();
        self.at += 1;
        loop {
            self.blanks();
            match self.byte() {
                None | Some(b']') => break,
                Some(b',') => self.at += 1,
                Some(_) => self.value(),
            }
        }
        self.at += 1;
        self.found.truncate(before);
        self.path = path;
    }

    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.byte() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return;
            }
        }
    }

    fn blanks(&mut self) {
        self.skip_while(|byte| b" \t\r\n".contains(&byte));
    }

    fn skip_while(&mut self, matches: impl Fn(u8) -> bool) {
        while self.byte().is_some_and(&matches) {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}
