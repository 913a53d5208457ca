//! The two sides of a cutover, and the stream of changes between them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the two databases. In a switch, *blue* is the source and *green* the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where the data is when the cutover begins.
    Source,
    /// Where it goes.
    Target,
}

impl Side {
    /// Both sides, source first.
    pub const BOTH: [Self; 2] = [Self::Source, Self::Target];

    /// The other side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// The changes of one side, applied at the other: a publication and a slot there, a subscription here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Source to target: how the target comes to hold the source's data.
    Forward,
    /// Target to source: what keeps the way back open after a switch.
    Reverse,
}

impl Stream {
    /// The stream that carries the changes made at `side`.
    #[must_use]
    pub fn from_side(side: Side) -> Self {
        match side {
            Side::Source => Self::Forward,
            Side::Target => Self::Reverse,
        }
    }

    /// Where the changes are made; its publication and slot live there.
    #[must_use]
    pub fn origin(self) -> Side {
        match self {
            Self::Forward => Side::Source,
            Self::Reverse => Side::Target,
        }
    }

    /// Where the changes are applied; its subscription lives there.
    #[must_use]
    pub fn destination(self) -> Side {
        self.origin().other()
    }

    /// The stream in the other direction.
    #[must_use]
    pub fn opposite(self) -> Self {
        Self::from_side(self.destination())
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
        })
    }
}
