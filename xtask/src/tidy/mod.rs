//! The rules of the house, one file each. They are kept by this program and not by a reviewer.
//!
//! A new rule: one file with `check(&Tree) -> Vec<Complaint>`, its reason on top, a message that names what to write
//! instead, a test that shows it fires; then one line in [`RULES`].

use std::{fmt, io::Write as _, path::Path, process::ExitCode};

use anyhow::Result;

use crate::tree::{File, Tree};

mod allowed;
mod environment;
mod file_length;
mod imports;
mod machine_paths;
mod module_docs;
mod names;
mod pure_core;
mod sleeps;
mod sql;
mod unfinished;
mod whitespace;

type Check = fn(&Tree) -> Vec<Complaint>;

/// Every rule with the name of its file, in the order in which they are checked.
const RULES: &[(&str, Check)] = &[
    ("imports", imports::check),
    ("pure_core", pure_core::check),
    ("environment", environment::check),
    ("module_docs", module_docs::check),
    ("file_length", file_length::check),
    ("names", names::check),
    ("unfinished", unfinished::check),
    ("sleeps", sleeps::check),
    ("sql", sql::check),
    ("whitespace", whitespace::check),
    ("machine_paths", machine_paths::check),
];

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    path: String,
    /// From 1.
    line: usize,
    /// What is wrong there, and what to do instead.
    message: String,
}

impl Complaint {
    fn at(file: &File, line: usize, message: impl Into<String>) -> Self {
        Self { path: file.path.clone(), line, message: message.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Checks every rule, and prints what is wrong.
///
/// # Errors
/// The project can't be read.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let tree = Tree::read(root)?;
    let complaints = complaints(&tree);
    let mut out = std::io::stdout().lock();
    for complaint in &complaints {
        writeln!(out, "{complaint}")?;
    }
    writeln!(out, "{} rules, {} files, {} complaints", RULES.len(), tree.files.len(), complaints.len())?;
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each complaint ends with the name of its rule, so that its reason can be looked up.
fn complaints(tree: &Tree) -> Vec<String> {
    RULES.iter().flat_map(|(name, check)| check(tree).into_iter().map(move |found| format!("{found} [{name}]"))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_project_is_tidy() {
        let tree = Tree::read(&crate::tree::root()).unwrap();
        let complaints = complaints(&tree);
        assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    }

    #[test]
    fn the_project_is_seen_whole() {
        let tree = Tree::read(&crate::tree::root()).unwrap();
        for path in ["Makefile", "crates/core/src/lib.rs", "crates/postgres/src/sql/gate.sql", "xtask/src/main.rs"] {
            assert!(tree.file(path).is_some(), "{path} is missing among {} files", tree.files.len());
        }
    }

    #[test]
    fn every_rule_has_a_file_of_its_name() {
        let tree = Tree::read(&crate::tree::root()).unwrap();
        let names: BTreeSet<_> = RULES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), RULES.len(), "a name is there twice");
        for name in names {
            assert!(tree.file(&format!("xtask/src/tidy/{name}.rs")).is_some(), "{name}");
        }
    }

    #[test]
    fn a_complaint_names_its_place_and_its_rule() {
        let tree = Tree::of(&[("crates/core/src/clock.rs", "//! Time.\nfn f() { todo!() }\n")]);
        let told = complaints(&tree).into_iter().find(|told| told.contains("todo!")).unwrap();
        assert!(told.starts_with("crates/core/src/clock.rs:2: ") && told.ends_with(" [unfinished]"), "{told}");
    }
}
