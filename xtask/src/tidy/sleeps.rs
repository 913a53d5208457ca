//! A test does not sleep: it waits for a signal, or polls with a deadline.
//!
//! A sleep is too short on a slow machine and too long on every other. `testkit::eventually` looks again and again.

use super::{
    Complaint,
    allowed::{Allowed, except},
};
use crate::tree::{File, Form, Mention, Tree};

const SLEEPS: &[&str] = &["sleep", "sleep_until", "sleep_ms"];

/// Where time itself has to pass.
const ALLOWED: &[Allowed] = &[
    Allowed { place: "crates/testkit/src/wait.rs", why: "between two looks of the one poll that all others use" },
    Allowed { place: "crates/testkit/src/process.rs", why: "a poll where there is no async runtime" },
    Allowed { place: "crates/testkit/src/bank/client.rs", why: "the load's clients back off as an application's do" },
    Allowed { place: "crates/testkit/src/proxy.rs", why: "delay is the fault that it injects" },
];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    except(all(tree), ALLOWED)
}

fn all(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in tree.rust() {
        for mention in file.mentions.iter().filter(|mention| (mention.in_test || is_of_tests(file)) && sleeps(mention)) {
            let message = "a sleep in a test: poll with `cutover_testkit::eventually` and a deadline, or wait for a signal";
            complaints.push(Complaint::at(file, mention.line, message));
        }
    }
    complaints
}

/// Whether all of a file is for tests: by its place, or by its name as `tests.rs` and `transition_tests.rs`.
fn is_of_tests(file: &File) -> bool {
    file.path.contains("/tests/") || file.path.ends_with("tests.rs") || file.path.starts_with("crates/testkit/")
}

/// Whether this is one of the functions that sleep, by its path or, called, by its bare name.
fn sleeps(mention: &Mention) -> bool {
    let of = |module: &str| SLEEPS.iter().any(|sleep| mention.ends_with(&format!("{module}::{sleep}")));
    of("thread") || of("time") || (mention.form == Form::Call && SLEEPS.contains(&mention.path.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        all(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn every_way_to_sleep_is_found() {
        assert_eq!(complaints("crates/a/tests/a.rs", "fn a() { std::thread::sleep(b); }"), 1);
        assert_eq!(complaints("crates/a/tests/a.rs", "use tokio::time::{Duration, sleep}; fn a() { sleep(b).await }"), 2);
        assert_eq!(complaints("crates/a/src/tests.rs", "fn a() { time::sleep_until(b).await }"), 1);
    }

    #[test]
    fn the_tests_inside_of_a_file_are_looked_at_and_the_rest_is_not() {
        let code = "use tokio::time::sleep; fn a() { sleep(b) }";
        assert_eq!(complaints("crates/a/src/a.rs", code), 0);
        assert_eq!(complaints("crates/a/src/a.rs", &format!("{code} #[cfg(test)] mod tests {{ use super::*; fn b() {{ sleep(c) }} }}")), 1);
    }

    #[test]
    fn a_database_or_a_command_may_sleep() {
        assert_eq!(complaints("crates/a/tests/a.rs", "fn a() { run(\"SELECT pg_sleep(2)\"); run(\"sleep 300\"); }"), 0);
    }
}
