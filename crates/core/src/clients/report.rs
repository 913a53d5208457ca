//! What a server has written down: the sum of its clients, and what it drives.

use serde::{Deserialize, Serialize};

/// Names that a report gives as examples.
pub const MOST_NAMES: usize = 10;

/// The sum of one server's clients, as it is written down for the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The epoch that the server itself acts on: it gives no lease under an older one any more.
    pub epoch: u64,
    /// Clients with a lease.
    pub clients: u64,
    /// How many of them have not acknowledged that epoch yet.
    pub behind: u64,
    /// How many are connected to the side that is not in charge, or to one that nobody knows.
    pub astray: u64,
    /// How many of those name a database that nobody knows, or none.
    #[serde(default)]
    pub unknown: u64,
    /// Some of those that are behind or astray, with why.
    pub names: Vec<String>,
    /// What the server was asked to drive, and has not ended. Where it dies, another one goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driving: Option<Driving>,
    /// Who asks for the leave to try one write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
}

/// What a server was asked to drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driving {
    /// The verb, and how far it goes.
    pub verb: Verb,
    /// Who asked for it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A verb that changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Drive the cutover on.
    Run {
        /// Only until it is ready for a switch.
        only_ready: bool,
    },
    /// Go back.
    Rollback {
        /// Give the cutover up, before any switch.
        give_up: bool,
    },
    /// The target stays.
    Complete,
    /// Archive the old side, and drop the way back.
    Retire {
        /// The archive's name, in the folder of whichever server does it.
        archive: String,
    },
}

/// Somebody asks for the leave to try one write, which the driver grants to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which claim: no other has the same.
    pub id: String,
    /// SHA-256, in hexadecimal, of the word that was shown.
    pub digest: String,
    /// Who shows it.
    pub instance: String,
}

impl Report {
    /// Adds what somebody else reports of clients of its own.
    pub(super) fn add(&mut self, who: &str, other: &Self) {
        self.clients += other.clients;
        if other.epoch < self.epoch {
            // Also where it has none: it may lend to somebody who comes, by what it knows.
            self.behind += other.clients.max(1);
            return self.name(format!("{who} acts on epoch {}", other.epoch));
        }
        self.behind += other.behind;
        self.astray += other.astray;
        self.unknown += other.unknown;
        other.names.iter().for_each(|name| self.name(name.clone()));
    }

    pub(super) fn name(&mut self, name: String) {
        if self.names.len() < MOST_NAMES {
            self.names.push(name);
        }
    }
}
