//! The core does nothing: no input or output, no clock, no chance, no environment.
//!
//! Recovery replays the same function as the live run. That only holds while its answer depends on its arguments alone.

use super::Complaint;
use crate::tree::{File, Form, Tree};

const SOURCE: &str = "crates/core/src/";
const MANIFEST: &str = "crates/core/Cargo.toml";

/// Paths, by some of their segments, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    ("std::env", "take a lookup as an argument, as `Plan::parse` does"),
    ("std::fs", "take the text as an argument"),
    ("std::io", "return the value, and let the caller write it"),
    ("std::net", "let the engine do it, and tell the core what it observed"),
    ("std::os", "let the engine do it, and tell the core what it observed"),
    ("std::process", "let the engine do it, and tell the core what it observed"),
    ("std::thread", "the core has no threads and waits for nothing"),
    ("tokio", "the core has no runtime and waits for nothing"),
    ("rand", "take the random number, or its seed, as an argument"),
    ("Instant", "take the time as an argument"),
    ("SystemTime", "take the time as an argument"),
    ("HashMap", "use BTreeMap: the order of a HashMap is chance"),
    ("HashSet", "use BTreeSet: the order of a HashSet is chance"),
];

/// The crates that the core may depend on: none of them does anything either. It is short on purpose.
const PURE: &[&str] = &["cutover-bucketing", "humantime", "serde", "serde_json", "strsim", "thiserror", "toml", "url"];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let source = tree.rust().filter(|file| file.path.starts_with(SOURCE)).flat_map(check_source);
    source.chain(tree.file(MANIFEST).into_iter().flat_map(check_manifest)).collect()
}

fn check_source(file: &File) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for mention in &file.mentions {
        for (_, instead) in BANNED.iter().filter(|(banned, _)| mention.has(banned)) {
            complaints.push(Complaint::at(file, mention.line, format!("`{}` in the core: {instead}", mention.path)));
        }
        if mention.ends_with("now") && mention.path.contains("::") {
            complaints.push(Complaint::at(file, mention.line, format!("`{}` in the core: take the time as an argument", mention.path)));
        }
        if mention.form == Form::Macro && ["env", "option_env"].contains(&mention.path.as_str()) {
            complaints.push(Complaint::at(file, mention.line, "the compiler's environment in the core: take the value as an argument"));
        }
    }
    complaints
}

fn check_manifest(file: &File) -> Vec<Complaint> {
    let manifest: toml::Table = match toml::from_str(&file.text) {
        Ok(manifest) => manifest,
        Err(error) => return vec![Complaint::at(file, 1, error.to_string())],
    };
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
    let impure = dependencies.filter(|name| !PURE.contains(&name.as_str()));
    let message = |name| {
        format!("the core depends on {name}: do it in the engine; or, if {name} does nothing either, say so in xtask/src/tidy/pure_core.rs")
    };
    impure.map(|name| Complaint::at(file, file.line_of(name), message(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> usize {
        check(&Tree::of(&[("crates/core/src/a.rs", text)])).len()
    }

    #[test]
    fn every_way_out_of_the_core_is_found() {
        for path in ["std::fs::read", "std::net::TcpStream", "std::process::id", "std::thread::spawn", "tokio::spawn", "rand::random"] {
            assert_eq!(complaints(&format!("fn a() {{ {path}; }}")), 1, "{path}");
        }
        assert_eq!(complaints("use std::{env, time::Duration};"), 1);
        assert_eq!(complaints("fn a() { let key = env!(\"KEY\"); }"), 1);
    }

    #[test]
    fn the_clock_is_found_under_every_name() {
        assert_eq!(complaints("use std::time::SystemTime;"), 1);
        assert_eq!(complaints("fn a() { jiff::Timestamp::now(); }"), 1);
        assert_eq!(complaints("fn a(now: Duration) -> Duration { now }"), 0);
    }

    #[test]
    fn other_crates_may_do_what_they_want() {
        assert_eq!(check(&Tree::of(&[("crates/engine/src/a.rs", "fn a() { std::fs::read(\"x\"); }")])), []);
    }

    #[test]
    fn a_dependency_that_acts_is_found() {
        let text = "[dependencies]\nserde.workspace = true\ntokio.workspace = true\n\n[dev-dependencies]\nproptest.workspace = true\n";
        let found = check(&Tree::of(&[(MANIFEST, text)]));
        assert_eq!(found.iter().map(|complaint| complaint.line).collect::<Vec<_>>(), [3]);
    }
}
