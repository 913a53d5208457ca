//! Which database an instance says that it is connected to.

use std::{collections::BTreeMap, fmt};

use crate::{Side, plan::DatabaseUrl};

/// Where an instance's writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// To this side, whoever is in charge.
    At(Side),
    /// Through something that always leads to the side in charge, such as a PgBouncer that we hold and repoint.
    Through,
}

impl Place {
    /// Whether writes from here reach the side in charge.
    #[must_use]
    pub fn leads_to(self, authority: Side) -> bool {
        self == Self::Through || self == Self::At(authority)
    }
}

/// The names under which both databases are known to instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<(Address, Place)>);

impl Places {
    /// The addresses of the plan's own URLs, and others.
    ///
    /// # Errors
    /// The name that is none.
    pub fn new(urls: [&DatabaseUrl; 2], others: impl IntoIterator<Item = (String, Place)>) -> Result<Self, String> {
        let own = Side::BOTH.into_iter().zip(urls).map(|(side, url)| {
            let address = Address { host: url.host.to_lowercase(), port: Some(url.port), database: Some(url.database.clone()) };
            (address, Place::At(side))
        });
        let others = Self::of_names(others)?;
        Ok(Self(own.chain(others.0).collect()))
    }

    /// Names, and where each leads.
    ///
    /// # Errors
    /// The name that is none.
    pub fn of_names(names: impl IntoIterator<Item = (String, Place)>) -> Result<Self, String> {
        let read = |(name, place): (String, Place)| match Address::parse(&name) {
            Some(address) => Ok((address, place)),
            None => Err(name),
        };
        names.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// All names, and where each leads: what [`Places::of_names`] makes the same of.
    pub fn names(&self) -> impl Iterator<Item = (String, Place)> {
        self.0.iter().map(|(address, place)| (address.to_string(), *place))
    }

    /// Every way to name a place that leaves out what may be left out, for those who can only compare texts: in lower case but
    /// for the database's name, as [`Places::names`] has it. What [`Places::find`] would not take is not among them.
    #[must_use]
    pub fn spellings(&self) -> BTreeMap<String, Place> {
        let known = self.0.iter().flat_map(|(address, _)| address.spellings());
        known.filter_map(|spelling| self.find(&spelling).map(|place| (spelling, place))).collect()
    }

    /// The place that an instance names. What it leaves out may be anything; none if nothing fits, or if what fits leads
    /// to different sides: who can't say where it writes must not write.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Place> {
        let named = Address::parse(name)?;
        let mut fitting = self.0.iter().filter(|(address, _)| address.fits(&named)).map(|(_, place)| *place);
        let first = fitting.next()?;
        fitting.all(|place| place == first).then_some(first)
    }
}

/// `host`, `host:port`, `host:port/database`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: Option<u16>,
    database: Option<String>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What has a colon is no name: brackets keep its port apart.
        let (before, behind) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{before}{}{behind}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))?;
        self.database.as_ref().map_or(Ok(()), |database| write!(f, "/{database}"))
    }
}

impl Address {
    /// With and without what may be left out.
    fn spellings(&self) -> impl Iterator<Item = String> {
        let ports = [self.port, None];
        let databases = [self.database.clone(), None];
        let host = self.host.clone();
        databases
            .into_iter()
            .flat_map(move |database| ports.map(|port| Self { host: host.clone(), port, database: database.clone() }.to_string()))
    }

    /// Reads an address or a URL, of which only the address counts.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let (authority, database) = text.split_once('/').map_or((text, None), |(authority, database)| (authority, Some(database)));
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(str::parse).transpose().ok()?;
        if host.is_empty() || host.contains([' ', '/']) {
            return None;
        }
        let database = database.filter(|database| !database.is_empty()).map(str::to_owned);
        Some(Self { host: host.to_lowercase(), port, database })
    }

    /// Whether both can mean the same.
    fn fits(&self, other: &Self) -> bool {
        fn same<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.zip(other).is_none_or(|(one, other)| one == other)
        }
        self.host == other.host && same(self.port.as_ref(), other.port.as_ref()) && same(self.database.as_ref(), other.database.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let [source, target] =
            ["postgres://c:secret@Old.example:5432/shop", "postgres://c@new.example/shop"].map(|url| DatabaseUrl::parse(url).unwrap());
        let others = [
            ("rds-alias", Place::At(Side::Source)),
            ("pooler:6432/shop", Place::Through),
            ("both", Place::Through),
            ("both", Place::At(Side::Target)),
        ];
        Places::new([&source, &target], others.map(|(name, place)| (name.to_owned(), place))).unwrap()
    }

    #[test]
    fn an_address_may_leave_out_what_is_the_same_everywhere() {
        for name in [
            "old.example",
            "OLD.example:5432",
            "old.example/shop",
            "postgresql://app:p@ss@old.example:5432/shop?sslmode=require",
            "rds-alias",
        ] {
            assert_eq!(places().find(name), Some(Place::At(Side::Source)), "{name}");
        }
        assert_eq!(places().find("new.example:5432/shop"), Some(Place::At(Side::Target)));
        assert_eq!(places().find("pooler:6432"), Some(Place::Through));
    }

    #[test]
    fn who_can_t_say_where_it_writes_is_nowhere() {
        for name in ["", "elsewhere", "old.example:5433", "old.example/other", "old.example:port", "both", "  ", ":5432", "[::1"] {
            assert_eq!(places().find(name), None, "{name}");
        }
        assert_eq!(
            Places::new([&DatabaseUrl::parse("postgres://a@b/c").unwrap(); 2], [(":1".to_owned(), Place::Through)]),
            Err(":1".to_owned())
        );
    }

    #[test]
    fn the_names_make_the_same_places_again() {
        let [source, target] = ["postgres://a@[::1]:5433/Shop", "postgres://a@new/shop"].map(|url| DatabaseUrl::parse(url).unwrap());
        let others = [("pool", Place::Through), ("10.0.0.1:1", Place::At(Side::Target)), ("db/shop", Place::At(Side::Source))];
        let places = Places::new([&source, &target], others.map(|(name, place)| (name.to_owned(), place))).unwrap();
        let names: Vec<_> = places.names().collect();
        assert_eq!(names[0].0, "[::1]:5433/Shop");
        assert_eq!(Places::of_names(names), Ok(places));
    }

    #[test]
    fn the_spellings_are_those_that_lead_somewhere() {
        let spellings = places().spellings();
        for (name, place) in &spellings {
            assert_eq!(places().find(name), Some(*place), "{name}");
        }
        let names: Vec<&str> = spellings.keys().map(String::as_str).collect();
        let expected = [
            "new.example",
            "new.example/shop",
            "new.example:5432",
            "new.example:5432/shop",
            "old.example",
            "old.example/shop",
            "old.example:5432",
            "old.example:5432/shop",
            "pooler",
            "pooler/shop",
            "pooler:6432",
            "pooler:6432/shop",
            "rds-alias",
        ];
        assert_eq!(names, expected, "`both` is neither");
    }

    #[test]
    fn two_databases_of_one_server_are_told_apart_by_their_names_only() {
        let [source, target] = ["postgres://a@db/old", "postgres://a@db/new"].map(|url| DatabaseUrl::parse(url).unwrap());
        let places = Places::new([&source, &target], []).unwrap();
        assert_eq!(places.find("db:5432/old"), Some(Place::At(Side::Source)));
        assert_eq!(places.find("db"), None, "it may be either");
    }

    #[test]
    fn a_place_leads_to_the_side_in_charge_or_not() {
        assert!(Place::Through.leads_to(Side::Source) && Place::Through.leads_to(Side::Target));
        assert!(Place::At(Side::Source).leads_to(Side::Source) && !Place::At(Side::Source).leads_to(Side::Target));
    }
}
