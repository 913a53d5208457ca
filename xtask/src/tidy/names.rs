//! A file, a folder or a module is named for what it holds, not for being handy.
//!
//! Into `utils` goes all that nobody found a place for, and nobody finds it again.

use super::Complaint;
use crate::tree::{Form, Tree};

const BANNED: &[&str] = &["util", "utils", "utility", "utilities", "common", "manager", "managers", "helper", "helpers", "misc"];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in &tree.files {
        complaints.extend(file.path.split('/').filter_map(banned).map(|word| Complaint::at(file, 1, message(word))));
        let modules = file.mentions.iter().filter(|mention| mention.form == Form::Module);
        complaints.extend(modules.filter_map(|module| Some(Complaint::at(file, module.line, message(banned(&module.path)?)))));
    }
    complaints
}

/// The banned word in a name, as in `pool_manager.rs`.
fn banned(name: &str) -> Option<&str> {
    name.split(['_', '-', '.']).find(|word| BANNED.contains(&word.to_lowercase().as_str()))
}

fn message(word: &str) -> String {
    format!("`{word}` says nothing: name it for what it holds, as `settings.rs` or `names.rs`, or put each thing beside its only user")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn files_folders_and_modules_are_looked_at() {
        assert_eq!(complaints("crates/core/src/utils.rs", ""), 1);
        assert_eq!(complaints("crates/cli/tests/common/mod.rs", ""), 1);
        assert_eq!(complaints("scripts/test-helpers.sh", ""), 1);
        assert_eq!(complaints("a.rs", "mod pool_manager { }"), 1);
    }

    #[test]
    fn words_are_compared_whole() {
        assert_eq!(complaints("crates/core/src/utilisation.rs", "mod commonplace; fn helper() {}"), 0);
    }
}
