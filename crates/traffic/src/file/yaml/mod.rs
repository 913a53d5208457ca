//! YAML: block mappings, nested by indentation, with plain or quoted values on one line.
//!
//! Sequences, block scalars and flow collections are stepped over; a value that stands in one, or that
//! has an anchor, an alias or a tag, is refused rather than guessed at.

mod scalar;

pub(super) use self::scalar::written;
use self::scalar::{Scalar, plain_end, quoted_end};
use super::{line_of, only, variable::Found};
use crate::FileFault;

pub(super) fn locate(text: &str, variable: &str) -> Result<Found, FileFault> {
    let mut scanner = Scanner { text, at: 0, keys: Vec::new(), variable, found: Vec::new() };
    scanner.document()?;
    let at = only(variable, scanner.found)?;
    match at {
        Place::Scalar(Scalar { span, value, kind }) => Ok(Found { span, value, kind }),
        Place::Other { at, what } => {
            let reason = format!("`{variable}` is {what}");
            Err(FileFault::Unsupported { line: line_of(text, at), reason })
        }
    }
}

/// Every key with the value this reader sees at it, in order: whether `variable` alone is another now.
pub(super) fn only_changed(old: &str, new: &str, variable: &str, value: &str) -> bool {
    let (Ok(before), Ok(after)) = (locate(old, variable), locate(new, variable)) else { return false };
    let prefix = old[..before.span.start] == new[..after.span.start];
    let suffix = old[before.span.end..] == new[after.span.end..];
    prefix && suffix && after.value == value
}

/// What stands behind a key.
enum Place {
    Scalar(Scalar),
    Other { at: usize, what: &'static str },
}

struct Scanner<'a> {
    text: &'a str,
    /// Always the beginning of a line, between two steps.
    at: usize,
    /// The keys that lead here, each with its indentation.
    keys: Vec<(usize, String)>,
    variable: &'a str,
    found: Vec<Place>,
}

impl<'a> Scanner<'a> {
    fn document(&mut self) -> Result<(), FileFault> {
        while self.at < self.text.len() {
            self.line()?;
        }
        Ok(())
    }

    /// Steps over one line, and over those that belong to its value.
    fn line(&mut self) -> Result<(), FileFault> {
        let line = self.rest_of_line(self.at);
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        if is_empty(content) || line.starts_with('%') {
            self.at = self.next_line(self.at);
        } else if is_marker(line) {
            self.keys.clear();
            if !is_empty(line[3..].trim_start()) {
                return Err(self.unsupported(self.at, "a document begins on the line of its `---`"));
            }
            self.at = self.next_line(self.at);
        } else if is_item(content) {
            self.skip_sequence(indent);
        } else {
            self.key(indent, self.at + indent)?;
        }
        Ok(())
    }

    fn key(&mut self, indent: usize, at: usize) -> Result<(), FileFault> {
        let (key, behind) = self.key_text(at)?;
        while self.keys.last().is_some_and(|(outer, _)| *outer >= indent) {
            self.keys.pop();
        }
        self.keys.push((indent, key));
        let wanted = self.keys.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".") == self.variable;
        let place = self.place(indent, behind)?;
        if wanted {
            self.found.push(place);
        }
        Ok(())
    }

    /// A key, and where what is behind its colon begins.
    fn key_text(&self, at: usize) -> Result<(String, usize), FileFault> {
        let line = self.rest_of_line(at);
        let (key, length) = match line.as_bytes()[0] {
            quote @ (b'"' | b'\'') => {
                let end = quoted_end(line, quote).ok_or_else(|| self.unsupported(at, "a quoted key goes over several lines"))?;
                (scalar::unquoted(&line[..end]), end)
            }
            b'?' | b'{' | b'[' | b'\t' | b'|' | b'>' | b'&' | b'*' | b'!' | b'@' | b'`' => {
                return Err(self.unsupported(at, "this line is not a simple `key: value`"));
            }
            _ => {
                let colon = line.match_indices(':').map(|(index, _)| index).find(|index| ends_key(&line[index + 1..]));
                let colon = colon.ok_or_else(|| self.unsupported(at, "this line is not a simple `key: value`"))?;
                (line[..colon].trim_end().to_owned(), colon)
            }
        };
        let behind = line[length..].trim_start_matches(' ');
        match behind.strip_prefix(':') {
            Some(rest) if ends_key(rest) => Ok((key, at + line.len() - rest.len())),
            _ => Err(self.unsupported(at, "this line is not a simple `key: value`")),
        }
    }

    /// What stands behind a key with `indent`, from `at`; steps to the line after it.
    fn place(&mut self, indent: usize, at: usize) -> Result<Place, FileFault> {
        let line = self.rest_of_line(at);
        let value = line.trim_start_matches(blank);
        let at = at + line.len() - value.len();
        let (bare, decorated) = undecorated(value);
        if decorated || value.starts_with('*') {
            self.skip_value(indent, at + value.len() - bare.len())?;
            return Ok(Place::Other { at, what: "an alias, or has an anchor or a tag" });
        }
        if is_empty(value) {
            self.at = self.next_line(at);
            return Ok(Place::Other { at, what: "empty, or a mapping or sequence of its own" });
        }
        let scalar = Scalar::read(value, at);
        let start = self.at;
        self.skip_value(indent, at)?;
        let one_line = self.at == self.next_line(start);
        Ok(match scalar {
            Some(scalar) if one_line => Place::Scalar(scalar),
            Some(_) => Place::Other { at, what: "a text over several lines" },
            None => Place::Other { at, what: "not a plain or quoted text" },
        })
    }

    /// Steps over a value that begins at `at`, behind a key with `indent`, to the line after it.
    fn skip_value(&mut self, indent: usize, at: usize) -> Result<(), FileFault> {
        let value = &self.text[at..];
        let end = match value.as_bytes().first() {
            Some(quote @ (b'"' | b'\'')) => quoted_end(value, *quote).ok_or_else(|| self.unsupported(at, "a quote is not closed"))?,
            Some(b'[' | b'{') => scalar::flow_end(value).ok_or_else(|| self.unsupported(at, "a bracket is not closed"))?,
            Some(b'|' | b'>') => {
                self.at = self.next_line(at);
                self.skip_deeper(indent);
                return Ok(());
            }
            None | Some(b'\n' | b'\r' | b'#') => {
                self.at = self.next_line(at);
                return Ok(());
            }
            Some(_) => {
                let line = self.rest_of_line(at);
                self.at = self.next_line(at);
                // Text that goes on is deeper than its key; behind a comment it can't go on.
                if plain_end(line) == line.trim_end().len() {
                    self.skip_deeper(indent);
                }
                return Ok(());
            }
        };
        if !is_empty(self.rest_of_line(at + end).trim_start_matches(blank)) {
            return Err(self.unsupported(at + end, "something follows a closed value"));
        }
        self.at = self.next_line(at + end);
        Ok(())
    }

    /// Steps over a sequence whose dashes are at `indent`.
    fn skip_sequence(&mut self, indent: usize) {
        while self.at < self.text.len() {
            let line = self.rest_of_line(self.at);
            let content = line.trim_start_matches(' ');
            let depth = line.len() - content.len();
            let inside = content.trim().is_empty() || depth > indent || (depth == indent && is_item(content) && !is_marker(line));
            if !inside {
                return;
            }
            self.at = self.next_line(self.at);
        }
    }

    /// Steps over lines deeper than `indent`.
    fn skip_deeper(&mut self, indent: usize) {
        while self.at < self.text.len() {
            let line = self.rest_of_line(self.at);
            let content = line.trim_start_matches(' ');
            if !content.trim().is_empty() && line.len() - content.len() <= indent {
                return;
            }
            self.at = self.next_line(self.at);
        }
    }

    fn rest_of_line(&self, at: usize) -> &'a str {
        let rest = &self.text[at..];
        rest.split_once('\n').map_or(rest, |(line, _)| line).trim_end_matches('\r')
    }

    fn next_line(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |length| at + length + 1)
    }

    fn unsupported(&self, at: usize, reason: &str) -> FileFault {
        FileFault::Unsupported { line: line_of(self.text, at), reason: reason.to_owned() }
    }
}

/// `value` without its anchor and tag, and whether it has any.
fn undecorated(value: &str) -> (&str, bool) {
    let mut bare = value;
    while bare.starts_with(['&', '!']) {
        bare = bare.find(blank).map_or("", |end| bare[end..].trim_start_matches(blank));
    }
    (bare, bare.len() != value.len())
}

/// Whether nothing but a comment is left.
fn is_empty(content: &str) -> bool {
    let content = content.trim_start_matches(blank);
    content.is_empty() || content.starts_with('#')
}

/// Whether a line parts two documents.
fn is_marker(line: &str) -> bool {
    (line.starts_with("---") || line.starts_with("...")) && line[3..].chars().next().is_none_or(blank)
}

fn is_item(content: &str) -> bool {
    content.strip_prefix('-').is_some_and(|rest| rest.chars().next().is_none_or(blank))
}

fn ends_key(behind_colon: &str) -> bool {
    behind_colon.chars().next().is_none_or(blank)
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}
