//! Every Rust file opens with one `//!` line that says what it is for.
//!
//! A newcomer finds a place by these lines. Before it only inner attributes may stand, as `#![cfg(test)]` of a test.

use super::{
    Complaint,
    allowed::{Allowed, except},
};
use crate::tree::{File, Tree};

/// Older than this rule. Entries go out of here, never in.
const ALLOWED: &[Allowed] = &[];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    except(all(tree), ALLOWED)
}

fn all(tree: &Tree) -> Vec<Complaint> {
    tree.rust().filter(|file| !opens_with_docs(file)).map(complaint).collect()
}

fn opens_with_docs(file: &File) -> bool {
    let mut lines = file.text.lines().filter(|line| !line.is_empty() && !line.starts_with("#!["));
    lines.next().and_then(|first| first.strip_prefix("//! ")).is_some_and(|said| !said.trim().is_empty())
}

fn complaint(file: &File) -> Complaint {
    Complaint::at(file, 1, "open the file with a line `//! …` that says what it is for")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> usize {
        all(&Tree::of(&[("a.rs", text)])).len()
    }

    #[test]
    fn a_file_without_a_first_line_is_found() {
        assert_eq!(complaints("use std::fs;\n//! Too late.\n"), 1);
        assert_eq!(complaints("/// Of the item.\nfn a() {}\n"), 1);
        assert_eq!(complaints("//!\nfn a() {}\n"), 1);
        assert_eq!(complaints(""), 1);
    }

    #[test]
    fn attributes_of_the_file_may_stand_before_it() {
        assert_eq!(complaints("#![cfg(test)]\n\n//! Tests.\n"), 0);
        assert_eq!(complaints("//! A thing.\n"), 0);
    }
}
