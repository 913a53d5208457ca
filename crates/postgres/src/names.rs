//! The names of what a cutover makes in the databases.

use cutover_core::Stream;
use sha2::{Digest, Sha256};

/// The schema that holds the gate and everything else of ours in a user's database.
pub const SCHEMA: &str = "cutover";

/// The trigger that stands before every table.
pub const GATE_TRIGGER: &str = "cutover_gate";

/// Names derived from the plan's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    plan: String,
    stem: String,
}

impl Names {
    /// Names for the plan called `plan`.
    ///
    /// A slot's name takes lower-case letters, digits and `_` only; where the plan's has others, a few digits of its
    /// hash keep two plans apart that would otherwise share a name.
    #[must_use]
    pub fn new(plan: &str) -> Self {
        let mut stem: String = plan.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
        if stem != plan {
            stem = format!("{stem}_{}", &hex::encode(Sha256::digest(plan.as_bytes()))[..6]);
        }
        Self { plan: plan.to_owned(), stem }
    }

    /// The plan's name.
    #[must_use]
    pub fn plan(&self) -> &str {
        &self.plan
    }

    /// The publication of a stream, at its origin.
    #[must_use]
    pub fn publication(&self, stream: Stream) -> String {
        format!("cutover_{}_{stream}", self.stem)
    }

    /// The slot of a stream, at its origin.
    #[must_use]
    pub fn slot(&self, stream: Stream) -> String {
        self.publication(stream)
    }

    /// The temporary slot from which a driver reads which rows change, at whichever side is in charge.
    #[must_use]
    pub fn changed_slot(&self) -> String {
        format!("cutover_{}_changed", self.stem)
    }

    /// The subscription of a stream, at its destination.
    #[must_use]
    pub fn subscription(&self, stream: Stream) -> String {
        self.publication(stream)
    }

    /// The `application_name` of the sessions that keep the copy's snapshot. They outlive their driver.
    #[must_use]
    pub fn keeper(&self) -> String {
        self.application("keeper")
    }

    /// The `application_name` of a connection of ours.
    #[must_use]
    pub fn application(&self, purpose: &str) -> String {
        format!("cutover/{}/{purpose}", self.stem)
    }
}

/// Quotes an identifier.
#[must_use]
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string literal, whatever `standard_conforming_strings` says.
#[must_use]
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_plans_never_share_a_slot() {
        let names = ["a-b", "a_b", "A_b", "a_B"].map(|plan| Names::new(plan).slot(Stream::Forward));
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
        }
        assert_eq!(names[1], "cutover_a_b_forward");
        let longest = Names::new(&"X".repeat(40));
        assert!(longest.slot(Stream::Forward).len().max(longest.changed_slot().len()) <= 63);
    }

    #[test]
    fn quoting_survives_quotes() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b"), " E'a\\\\b'");
    }
}
