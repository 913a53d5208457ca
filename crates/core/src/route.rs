//! The route: who may write and where reads go; and the ladder, the ordered list of routes.

use serde::Serialize;

use crate::Side;

/// Whether clients may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Writes {
    /// At the authority, nowhere else.
    Open,
    /// Nowhere.
    Held,
}

/// Who may write and where reads go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Grows with every change of the route and with every change of driver: the fencing token.
    pub epoch: u64,
    /// Whose data counts.
    pub authority: Side,
    /// Whether clients may write there.
    pub writes: Writes,
}

/// A named rung of a ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// Its name, as it is shown.
    pub name: &'static str,
    /// The authority at this stage.
    pub authority: Side,
    /// Whether writes are open at this stage.
    pub writes: Writes,
}

/// The ordered list of stages that a cutover climbs; the way back climbs it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder(&'static [Stage]);

impl Ladder {
    /// A switch: writes go to the source, to nobody, to the target.
    pub const SWITCH: Self = Self(&[
        Stage { name: "source", authority: Side::Source, writes: Writes::Open },
        Stage { name: "held", authority: Side::Source, writes: Writes::Held },
        Stage { name: "target", authority: Side::Target, writes: Writes::Open },
    ]);

    /// Its stages, from old to new.
    #[must_use]
    pub fn stages(self) -> &'static [Stage] {
        self.0
    }

    /// The stage that a route stands on. While writes are held it is the one in the middle, whoever is in charge.
    #[must_use]
    pub fn stage(self, route: &Route) -> Option<&'static Stage> {
        self.0.iter().find(|stage| stage.writes == route.writes && (route.writes == Writes::Held || stage.authority == route.authority))
    }
}
