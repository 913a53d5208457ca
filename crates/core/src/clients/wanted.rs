//! What a flag has to say at a service that decides by itself who asks: to whom it is open.
//!
//! A bare yes would arm every instance at once, also one that is still connected to the old side. So an open flag is open
//! to names of databases only: those that lead to the side in charge.

use std::collections::BTreeSet;

use crate::{Route, Side, Writes, plan::DatabaseUrl};

/// The names that instances give of both databases. A service compares texts, so each counts as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    source: BTreeSet<String>,
    target: BTreeSet<String>,
}

impl Names {
    /// `host:port/database` of both URLs, and `others`: a name and the side that it leads to; both sides where absent.
    #[must_use]
    pub fn new(urls: [&DatabaseUrl; 2], others: impl IntoIterator<Item = (String, Option<Side>)>) -> Self {
        let mut names = Self::default();
        for (side, url) in Side::BOTH.into_iter().zip(urls) {
            names.at(side).insert(format!("{}/{}", url.address(), url.database));
        }
        for (name, leads_to) in others {
            for side in Side::BOTH.into_iter().filter(|side| leads_to.is_none_or(|only| only == *side)) {
                names.at(side).insert(name.clone());
            }
        }
        names
    }

    /// The names of whoever writes to `side`.
    #[must_use]
    pub fn leading_to(&self, side: Side) -> &BTreeSet<String> {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// The side that exactly these names lead to.
    #[must_use]
    pub fn side_of(&self, names: &BTreeSet<String>) -> Option<Side> {
        Side::BOTH.into_iter().find(|side| self.leading_to(*side) == names)
    }

    fn at(&mut self, side: Side) -> &mut BTreeSet<String> {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }
}

/// What the flag has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The route that it follows from.
    pub route: Route,
    /// Whom it is open to: nobody while writes are held.
    pub databases: BTreeSet<String>,
}

impl Wanted {
    /// What `route` means for instances that give these names.
    #[must_use]
    pub fn of(route: Route, names: &Names) -> Self {
        let databases = match route.writes {
            Writes::Open => names.leading_to(route.authority).clone(),
            Writes::Held => BTreeSet::new(),
        };
        Self { route, databases }
    }

    /// Whether an instance that gives this name may write.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        self.databases.contains(name)
    }

    /// Whether anybody may.
    #[must_use]
    pub fn open(&self) -> bool {
        self.route.writes == Writes::Open
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(others: Vec<(String, Option<Side>)>) -> Names {
        let [source, target] = ["postgres://a@old/shop", "postgres://a:secret@new:6000/shop"].map(|url| DatabaseUrl::parse(url).unwrap());
        Names::new([&source, &target], others)
    }

    fn side() -> impl Strategy<Value = Side> {
        prop_oneof![Just(Side::Source), Just(Side::Target)]
    }

    #[test]
    fn a6_an_open_flag_is_open_to_the_names_of_the_side_in_charge() {
        let names = names(vec![("blue".to_owned(), Some(Side::Source)), ("pool:6432".to_owned(), None)]);
        let wanted = |authority, writes| Wanted::of(Route { epoch: 7, authority, writes }, &names);
        let open = |side| wanted(side, Writes::Open).databases.into_iter().collect::<Vec<_>>();
        assert_eq!(open(Side::Source), ["blue", "old:5432/shop", "pool:6432"]);
        assert_eq!(open(Side::Target), ["new:6000/shop", "pool:6432"]);
        assert!(!wanted(Side::Source, Writes::Held).open() && wanted(Side::Target, Writes::Open).open());
        assert_eq!(names.side_of(&wanted(Side::Target, Writes::Open).databases), Some(Side::Target));
        assert_eq!(names.side_of(&BTreeSet::new()), None);
    }

    proptest! {
        /// A6: whatever the names are, no route arms an instance whose writes go to the other side.
        #[test]
        fn a6_no_route_arms_an_instance_at_the_other_side(
            listed in proptest::collection::btree_map("[a-z]{1,3}", proptest::option::of(side()), 0..6),
            authority in side(),
            held in any::<bool>(),
        ) {
            let others: Vec<_> = listed.clone().into_iter().collect();
            let route = Route { epoch: 1, authority, writes: if held { Writes::Held } else { Writes::Open } };
            let wanted = Wanted::of(route, &names(others));
            for (name, leads_to) in &listed {
                prop_assert_eq!(wanted.allows(name), !held && leads_to.is_none_or(|side| side == authority), "{}", name);
            }
            prop_assert_eq!(wanted.allows("old:5432/shop"), !held && authority == Side::Source);
            prop_assert_eq!(wanted.allows("new:6000/shop"), !held && authority == Side::Target);
            prop_assert!(!wanted.allows("elsewhere") && !wanted.allows(""));
        }
    }
}
