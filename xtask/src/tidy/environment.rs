//! The environment is read at the edge and nowhere else: a raw value becomes a checked one once, where the program begins.
//!
//! Whoever reads a variable in the middle has a setting that no plan shows, no test sets, and no journal remembers.

use super::{
    Complaint,
    allowed::{Allowed, except},
};
use crate::tree::Tree;

/// The edge.
const ALLOWED: &[Allowed] = &[
    Allowed { place: "crates/cli/src/plan_file.rs", why: "a plan's strings may name variables; the folders of PostgreSQL's programs" },
    Allowed { place: "crates/cli/src/output.rs", why: "NO_COLOR" },
    Allowed { place: "crates/cli/src/traces.rs", why: "OpenTelemetry's own variables" },
    Allowed { place: "crates/cli/src/commands/remote.rs", why: "a token, which must not be an argument" },
    Allowed { place: "crates/cli/src/commands/drive.rs", why: "who drives, and where a test wants the driver killed" },
    Allowed { place: "crates/client/src/environment.rs", why: "applications that link the SDK set it up by CUTOVER_*: here is their edge" },
    Allowed { place: "crates/journal/tests/conformance/child.rs", why: "a test that starts itself again as another process" },
    Allowed { place: "crates/testkit/", why: "finds the servers of this machine, and the seed to replay" },
    Allowed { place: "examples/", why: "services of their own" },
    Allowed { place: "xtask/", why: "its arguments, and the cargo that started it" },
];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    except(all(tree), ALLOWED)
}

fn all(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in tree.rust() {
        for mention in
            file.mentions.iter().filter(|mention| mention.has("std::env") || mention.has("env::var") || mention.has("env::var_os"))
        {
            let message = format!("`{}`: take the value as an argument; the environment is read in crates/cli/src", mention.path);
            complaints.push(Complaint::at(file, mention.line, message));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> usize {
        all(&Tree::of(&[("crates/engine/src/a.rs", text)])).len()
    }

    #[test]
    fn every_way_to_read_it_is_found() {
        assert_eq!(complaints("fn a() { std::env::var(\"A\"); }"), 1);
        assert_eq!(complaints("use std::{env, fs}; fn a() { env::var_os(\"A\"); }"), 2);
        assert_eq!(complaints("use std::env::vars as all;"), 1);
    }

    #[test]
    fn a_module_of_that_name_and_what_the_compiler_knows_may_stand() {
        assert_eq!(complaints("mod env; fn a() { env::written(1); env!(\"CARGO_PKG_VERSION\"); }"), 0);
    }

    #[test]
    fn elsewhere_it_is_a_complaint_and_at_the_edge_it_is_not() {
        let text = "fn a() { std::env::var(\"A\"); }";
        let found = check(&Tree::of(&[("crates/engine/src/a.rs", text), ("crates/cli/src/output.rs", text)]));
        assert!(found.iter().any(|complaint| complaint.path == "crates/engine/src/a.rs"));
        assert!(!found.iter().any(|complaint| complaint.path == "crates/cli/src/output.rs"));
    }
}
