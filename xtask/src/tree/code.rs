//! What a Rust file mentions: its paths, without comments and strings, and with the groups of `use` taken apart.
//!
//! A search for the text `std::fs` finds it in comments and misses `use std::{fs, io}`. So the tokens are read.

use std::{iter::Peekable, vec::IntoIter};

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, Ident, Spacing, TokenStream, TokenTree};

/// One path in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    /// Its segments joined by `::`, as in `std::fs::read`.
    pub(crate) path: String,
    /// Where it stands, from 1.
    pub(crate) line: usize,
    /// What is done with it.
    pub(crate) form: Form,
    /// Whether it is compiled for tests only, as far as this file says.
    pub(crate) in_test: bool,
}

/// What is done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `path!`
    Macro,
    /// `path(…)`
    Call,
    /// `mod path`
    Module,
    /// Anything else.
    Plain,
}

impl Mention {
    /// Whether these segments stand in it, side by side.
    pub(crate) fn has(&self, segments: &str) -> bool {
        format!("::{}::", self.path).contains(&format!("::{segments}::"))
    }

    /// Whether it ends with these segments.
    pub(crate) fn ends_with(&self, segments: &str) -> bool {
        format!("::{}", self.path).ends_with(&format!("::{segments}"))
    }
}

/// Everything that this source mentions, in its order.
pub(super) fn mentions(source: &str) -> Result<Vec<Mention>> {
    let tokens: TokenStream = source.parse().map_err(|error| anyhow!("{error}"))?;
    let mut reader = Reader { found: Vec::new() };
    reader.read(tokens, "", false);
    Ok(reader.found)
}

type Tokens = Peekable<IntoIter<TokenTree>>;

struct Reader {
    found: Vec<Mention>,
}

impl Reader {
    /// Reads the tokens between two brackets. `prefix` is what stands before a group of `use`.
    fn read(&mut self, tokens: TokenStream, prefix: &str, in_test: bool) {
        let mut tokens: Tokens = tokens.into_iter().collect::<Vec<_>>().into_iter().peekable();
        let (mut all_test, mut next_item_test) = (in_test, false);
        let mut before = String::new();
        while let Some(token) = tokens.next() {
            let in_test = all_test || next_item_test;
            match &token {
                TokenTree::Ident(ident) if before != "." && before != "fn" => {
                    self.path(ident, prefix, before == "mod", in_test, &mut tokens);
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket && is_for_tests(group) => match before.as_str() {
                    "#!" => all_test = true,
                    _ => next_item_test = true,
                },
                TokenTree::Group(group) => {
                    self.read(group.stream(), "", in_test);
                    next_item_test &= group.delimiter() != Delimiter::Brace;
                }
                TokenTree::Punct(punct) => next_item_test &= punct.as_char() != ';',
                TokenTree::Ident(_) | TokenTree::Literal(_) => {}
            }
            before = match &token {
                // `#![…]` and `1..a` are not `#[…]` and `1.a`.
                TokenTree::Punct(punct) if matches!((before.as_str(), punct.as_char()), ("#", '!') | (".", '.')) => {
                    format!("{before}{punct}")
                }
                // A group's text is never asked for, and long.
                TokenTree::Group(_) | TokenTree::Literal(_) => String::new(),
                short => short.to_string(),
            };
        }
    }

    /// Reads on from the first segment of a path.
    fn path(&mut self, first: &Ident, prefix: &str, is_module: bool, in_test: bool, tokens: &mut Tokens) {
        let line = first.span().start().line;
        let mut path = join(prefix, &first.to_string());
        while take_colons(tokens) {
            match tokens.peek() {
                Some(TokenTree::Ident(next)) => path = join(&path, &next.to_string()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let group = group.stream();
                    tokens.next();
                    return self.read(group, &path, in_test);
                }
                _ => break,
            }
            tokens.next();
        }
        let form = match tokens.peek() {
            _ if is_module => Form::Module,
            Some(TokenTree::Punct(punct)) if punct.as_char() == '!' && punct.spacing() == Spacing::Alone => Form::Macro,
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => Form::Call,
            _ => Form::Plain,
        };
        self.found.push(Mention { path, line, form, in_test });
    }
}

/// Whether these are the insides of `#[cfg(test)]`.
fn is_for_tests(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// `use a::{self, b}` mentions `a` and `a::b`.
fn join(prefix: &str, segment: &str) -> String {
    match (prefix, segment) {
        ("", _) => segment.to_owned(),
        (_, "self") => prefix.to_owned(),
        _ => format!("{prefix}::{segment}"),
    }
}

/// Takes `::` if that comes next. A single colon, as before a type, can't be put back; nobody misses it.
fn take_colons(tokens: &mut Tokens) -> bool {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':');
    tokens.next_if(is_colon).is_some() && tokens.next_if(is_colon).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        mentions(source).unwrap().into_iter().map(|mention| mention.path).collect()
    }

    #[test]
    fn groups_of_use_are_taken_apart() {
        let found = paths("use std::{env::{self, var}, fs, io::Write as _};");
        for path in ["std::env", "std::env::var", "std::fs", "std::io::Write"] {
            assert!(found.iter().any(|one| one == path), "{path} in {found:?}");
        }
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(paths("/* std::fs */ let a = \"std::fs\"; // std::fs"), ["let", "a"]);
    }

    #[test]
    fn paths_inside_of_macros_and_types_are_found() {
        assert!(paths("assert!(x, \"{}\", std::env::var(y))").contains(&"std::env::var".to_owned()));
        assert!(paths("fn f(a: &mut rand::Rng) -> Vec<std::fs::File> {}").contains(&"std::fs::File".to_owned()));
    }

    #[test]
    fn methods_and_definitions_are_no_mentions() {
        assert_eq!(paths("fn sleep() { self.sleep() }"), ["fn", "self"]);
        assert!(paths("0..rand::random()").contains(&"rand::random".to_owned()));
    }

    #[test]
    fn forms_and_lines_are_told() {
        let found = mentions("\ntodo!()\nmod a;\nb::c(1)").unwrap();
        let told: Vec<_> = found.iter().map(|one| (one.path.as_str(), one.line, one.form)).collect();
        assert!(told.contains(&("todo", 2, Form::Macro)), "{told:?}");
        assert!(told.contains(&("a", 3, Form::Module)), "{told:?}");
        assert!(told.contains(&("b::c", 4, Form::Call)), "{told:?}");
        assert_eq!(mentions("todo != 1").unwrap()[0].form, Form::Plain);
    }

    #[test]
    fn what_is_compiled_for_tests_only_is_told() {
        let test_only =
            |source: &str| mentions(source).unwrap().into_iter().filter(|one| one.in_test).map(|one| one.path).collect::<Vec<_>>();
        assert_eq!(test_only("a(); #[cfg(test)] mod tests { b() } c()"), ["mod", "tests", "b"]);
        assert_eq!(test_only("#[cfg(test)] use a::{b, c}; d()"), ["use", "a::b", "a::c"]);
        assert_eq!(test_only("#![cfg(test)] a()"), ["a"]);
        assert_eq!(test_only("#[test] fn f() {}"), Vec::<String>::new());
    }

    #[test]
    fn segments_are_compared_whole() {
        let mention = Mention { path: "my_std::fs::read".to_owned(), line: 1, form: Form::Plain, in_test: false };
        assert!(!mention.has("std::fs") && mention.has("fs") && mention.ends_with("fs::read") && !mention.ends_with("s::read"));
    }
}
