//! A Rust file has at most 400 lines: one that you can't hold in your head usually is two.
//!
//! Old sins stand in a list with the length that they may have. There they can shrink and not grow.

use super::Complaint;
use crate::tree::{File, Tree};

const LIMIT: usize = 400;

/// Files that were too long before there was this rule, and how long each may be. Lines go out of here, never in.
const RATCHET: &[(&str, usize)] = &[("crates/traffic/tests/conformance/pgbouncers.rs", 474)];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    with_ratchet(tree, RATCHET)
}

fn with_ratchet(tree: &Tree, ratchet: &[(&str, usize)]) -> Vec<Complaint> {
    let too_long = tree.rust().filter_map(|file| too_long(file, ratchet));
    too_long.chain(ratchet.iter().filter_map(|(path, _)| not_needed(tree, path))).collect()
}

fn too_long(file: &File, ratchet: &[(&str, usize)]) -> Option<Complaint> {
    let length = file.text.lines().count();
    let allowed = ratchet.iter().find(|(path, _)| *path == file.path).map_or(LIMIT, |(_, allowed)| *allowed);
    let message = || format!("{length} lines, {allowed} are allowed: make two files of it, each with one purpose");
    (length > allowed).then(|| Complaint::at(file, allowed + 1, message()))
}

fn not_needed(tree: &Tree, path: &str) -> Option<Complaint> {
    let still_long = tree.file(path).is_some_and(|file| file.text.lines().count() > LIMIT);
    let message = format!("not over {LIMIT} lines any more: take it out of the list in xtask/src/tidy/file_length.rs");
    (!still_long).then(|| Complaint { path: path.to_owned(), line: 1, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(lines: usize, ratchet: &[(&str, usize)]) -> Vec<String> {
        let tree = Tree::of(&[("a.rs", &"//\n".repeat(lines))]);
        with_ratchet(&tree, ratchet).into_iter().map(|complaint| complaint.message).collect()
    }

    #[test]
    fn a_file_over_the_limit_is_found() {
        assert_eq!(complaints(400, &[]).len(), 0);
        assert!(complaints(401, &[])[0].starts_with("401 lines, 400 are allowed"));
    }

    #[test]
    fn a_file_in_the_list_may_shrink_and_not_grow() {
        assert_eq!(complaints(450, &[("a.rs", 450)]).len(), 0);
        assert_eq!(complaints(449, &[("a.rs", 450)]).len(), 0);
        assert!(complaints(451, &[("a.rs", 450)])[0].starts_with("451 lines, 450 are allowed"));
    }

    #[test]
    fn an_entry_that_is_not_needed_is_found() {
        assert!(complaints(400, &[("a.rs", 450)])[0].contains("take it out"));
        assert!(complaints(1, &[("gone.rs", 450)])[0].contains("take it out"));
    }
}
