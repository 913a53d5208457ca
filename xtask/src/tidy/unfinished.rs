//! Nothing unfinished is left lying about: no `todo!`, no `unimplemented!`, no `dbg!`.
//!
//! What stands in the tree works. Clippy warns of these too, but a warning can be allowed where it stands.

use super::Complaint;
use crate::tree::{Form, Tree};

const BANNED: &[(&str, &str)] = &[
    ("todo", "write it, or leave the whole function out"),
    ("unimplemented", "write it, or return an error that says what can't be done"),
    ("dbg", "use tracing, or an assertion's message"),
];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in tree.rust() {
        for mention in file.mentions.iter().filter(|mention| mention.form == Form::Macro) {
            for (name, instead) in BANNED.iter().filter(|(name, _)| mention.ends_with(name)) {
                complaints.push(Complaint::at(file, mention.line, format!("`{name}!`: {instead}")));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_them_is_found() {
        let tree = Tree::of(&[("a.rs", "fn a() { todo!() }\nfn b() { std::unimplemented!(\"later\") }\nfn c() { dbg!(1); }")]);
        let lines: Vec<_> = check(&tree).into_iter().map(|complaint| complaint.line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }

    #[test]
    fn a_word_that_is_no_macro_may_stand() {
        assert_eq!(check(&Tree::of(&[("a.rs", "/// See `todo!`.\nfn a(todo: bool) { if todo != \"dbg!\" {} }")])), []);
    }
}
