//! The flags of a cutover, and what each says to whom.

use serde::Serialize;

use super::{Place, Places, Unit};
use crate::{Ladder, Route, Side, Writes};

/// The flag that every application can ask under the same name.
pub const WRITES_ENABLED: &str = "database-writes-enabled";

/// What a client says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// The database that the instance is connected to, as it knows it.
    pub database: Option<&'a str>,
    /// Whose read it is: what [`Unit::reads_from`] decides by.
    pub key: Option<&'a str>,
}

/// What a flag says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Yes or no.
    Flag(bool),
    /// One of a few words, or an epoch.
    Text(String),
}

/// Why it says so. Never that it is static: clients keep such an answer for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// By the route, and by who asks.
    TargetingMatch,
    /// By the bucket of the context's key.
    Split,
    /// The server does not know how things stand, so it says what is safe.
    Unknown,
}

impl Reason {
    /// Its name in OpenFeature's protocols.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evaluation {
    /// What the flag says.
    pub value: Value,
    /// The name of that value.
    pub variant: String,
    /// Why.
    pub reason: Reason,
    /// Why a write is refused, for a person.
    pub why: Option<String>,
}

impl Evaluation {
    fn new(value: Value, reason: Reason, why: Option<String>) -> Self {
        let variant = match &value {
            Value::Flag(true) => "on".to_owned(),
            Value::Flag(false) => "off".to_owned(),
            Value::Text(text) if text.is_empty() => "none".to_owned(),
            Value::Text(text) => text.clone(),
        };
        Self { value, variant, reason, why }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagError {
    /// No flag has that name.
    NotFound,
    /// The answer depends on a key, and the context has none.
    KeyMissing,
}

/// What a server knows when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Flags<'a> {
    /// The cutover's name; empty where nothing is known yet.
    pub cutover: &'a str,
    /// The newest route that the server knows.
    pub route: Route,
    /// What moves on its own, and where its reads go.
    pub units: &'a [Unit],
    /// Whether it is sure that there is no newer one. If not, writes are refused, and reads go where they went.
    pub fresh: bool,
    /// The names of both databases.
    pub places: &'a Places,
}

impl Flags<'_> {
    /// The names of all flags.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        if self.cutover.is_empty() {
            return vec![WRITES_ENABLED.to_owned()];
        }
        let [before, after] = [["write.allowed", "write.permit"], ["database.write", "stage"]].map(|names| names.map(str::to_owned));
        let reads = self.units.iter().map(|unit| format!("{}.read", unit.name));
        let own = before.into_iter().chain(reads).chain(after).map(|name| format!("{}.{name}", self.cutover));
        std::iter::once(WRITES_ENABLED.to_owned()).chain(own).collect()
    }

    /// What a flag says.
    ///
    /// # Errors
    /// See [`FlagError`].
    pub fn evaluate(&self, flag: &str, context: Context<'_>) -> Result<Evaluation, FlagError> {
        if let Some(unit) = self.read_of(flag) {
            return self.read(unit, context.key);
        }
        let refusal = self.refusal(context.database);
        if let Some(value) = self.of_writes(flag, refusal.is_none()) {
            return Ok(Evaluation::new(value, self.reason(Reason::TargetingMatch), refusal));
        }
        let (value, why) = match self.own(flag) {
            Some("database.write") if self.is_open() => (Value::Text(self.route.authority.to_string()), None),
            Some("database.write") => (Value::Text("hold".to_owned()), Some(self.closed())),
            Some("stage") if self.fresh => (Value::Text(self.stage().to_owned()), None),
            Some("stage") => (Value::Text("hold".to_owned()), None),
            _ => return Err(FlagError::NotFound),
        };
        Ok(Evaluation::new(value, self.reason(Reason::TargetingMatch), why))
    }

    /// What a flag about writes says to whoever may write; none of any other flag.
    #[must_use]
    pub fn allowing(&self, flag: &str) -> Option<Evaluation> {
        Some(Evaluation::new(self.of_writes(flag, true)?, Reason::TargetingMatch, None))
    }

    /// What a flag about writes says; none of any other flag.
    fn of_writes(&self, flag: &str, allowed: bool) -> Option<Value> {
        match self.own(flag) {
            _ if flag == WRITES_ENABLED => Some(Value::Flag(allowed)),
            Some("write.allowed") => Some(Value::Flag(allowed)),
            Some("write.permit") => Some(Value::Text(if allowed { self.route.epoch.to_string() } else { String::new() })),
            _ => None,
        }
    }

    /// A flag's name behind the cutover's.
    fn own<'f>(&self, flag: &'f str) -> Option<&'f str> {
        let cutover = Some(self.cutover).filter(|name| !name.is_empty())?;
        flag.strip_prefix(cutover)?.strip_prefix('.')
    }

    /// The name of the stage that the route stands on.
    #[must_use]
    pub fn stage(&self) -> &'static str {
        Ladder::SWITCH.stage(&self.route).map_or("hold", |stage| stage.name)
    }

    /// Whether somebody may write.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.fresh && self.route.writes == Writes::Open
    }

    /// Why an instance may not write to the database that it names; none if it may. A permission is never a bare yes: it
    /// is (open, which database, epoch), so that opening never lets those write who still point at the old database.
    #[must_use]
    pub fn refusal(&self, database: Option<&str>) -> Option<String> {
        if !self.is_open() {
            return Some(self.closed());
        }
        let authority = self.route.authority;
        let Some(name) = database else { return Some("the context names no `database`".to_owned()) };
        match self.places.find(name) {
            Some(place) if place.leads_to(authority) => None,
            Some(Place::At(side)) => Some(format!("{name} is the {side}; the {authority} is in charge")),
            Some(Place::Through) | None => Some("the database that the context names is neither of the two".to_owned()),
        }
    }

    /// Whether an instance may claim the write that is on trial: the target is in charge and still held for all, and the
    /// instance is connected to it.
    #[must_use]
    pub fn may_claim(&self, database: Option<&str>) -> bool {
        let there = || database.and_then(|name| self.places.find(name)).is_some_and(|place| place.leads_to(Side::Target));
        self.fresh && self.route == Route { epoch: self.route.epoch, authority: Side::Target, writes: Writes::Held } && there()
    }

    /// The unit whose reads a flag is about; none of any other flag.
    #[must_use]
    pub fn read_of(&self, flag: &str) -> Option<&Unit> {
        let name = self.own(flag)?.strip_suffix(".read")?;
        self.units.iter().find(|unit| unit.name == name)
    }

    fn read(&self, unit: &Unit, key: Option<&str>) -> Result<Evaluation, FlagError> {
        let side = unit.reads_from(self.cutover, key).ok_or(FlagError::KeyMissing)?.to_string();
        let known = if unit.is_split() { Reason::Split } else { Reason::TargetingMatch };
        let is_stale = unit.table.as_ref().is_some_and(|table| table.stale);
        let reason = if is_stale { Reason::Unknown } else { self.reason(known) };
        Ok(Evaluation::new(Value::Text(side), reason, None))
    }

    fn reason(&self, known: Reason) -> Reason {
        if self.fresh { known } else { Reason::Unknown }
    }

    fn closed(&self) -> String {
        if self.fresh { "writes are held" } else { "the server has lost touch with the journal" }.to_owned()
    }
}

/// The route before a cutover begins: the source is in charge, and nobody is held.
impl Default for Route {
    fn default() -> Self {
        Self { epoch: 0, authority: Side::Source, writes: Writes::Open }
    }
}

#[cfg(test)]
mod tests {
    use cutover_bucketing::ALL;

    use super::*;
    use crate::{clients::ShadowTable, plan::DatabaseUrl};

    fn told(route: Route, fresh: bool, flag: &str, database: Option<&str>) -> Evaluation {
        let [source, target] = ["postgres://c@old/shop", "postgres://c@new/shop"].map(|url| DatabaseUrl::parse(url).unwrap());
        let places = Places::new([&source, &target], [("pool".to_owned(), Place::Through)]).unwrap();
        let flags = Flags { cutover: "shop", route, units: &[Unit::of_switch(&route)], fresh, places: &places };
        flags.evaluate(flag, Context { database, key: None }).unwrap()
    }

    const ROUTES: [Route; 4] = [
        Route { epoch: 3, authority: Side::Source, writes: Writes::Open },
        Route { epoch: 4, authority: Side::Source, writes: Writes::Held },
        Route { epoch: 4, authority: Side::Target, writes: Writes::Held },
        Route { epoch: 5, authority: Side::Target, writes: Writes::Open },
    ];

    #[test]
    fn a3_a1_writes_are_enabled_at_the_side_in_charge_while_it_is_open_and_nowhere_else() {
        let allowed = |database| ROUTES.map(|route| told(route, true, WRITES_ENABLED, database).value == Value::Flag(true));
        assert_eq!(allowed(Some("old")), [true, false, false, false]);
        assert_eq!(allowed(Some("new:5432/shop")), [false, false, false, true]);
        assert_eq!(allowed(Some("pool")), [true, false, false, true]);
        assert_eq!(allowed(Some("other")), [false; 4]);
        assert_eq!(allowed(None), [false; 4]);
    }

    #[test]
    fn a_permit_is_the_epoch_and_a_refusal_says_why() {
        assert_eq!(told(ROUTES[3], true, "shop.write.permit", Some("new")).value, Value::Text("5".to_owned()));
        let refused = told(ROUTES[3], true, "shop.write.permit", Some("old"));
        assert_eq!((refused.value, refused.variant.as_str()), (Value::Text(String::new()), "none"));
        assert_eq!(refused.why.unwrap(), "old is the source; the target is in charge");
    }

    #[test]
    fn reads_and_writes_are_told_where_they_go() {
        let said = |flag| ROUTES.map(|route| told(route, true, flag, None).variant);
        assert_eq!(said("shop.database.read"), ["source", "source", "target", "target"]);
        assert_eq!(said("shop.database.write"), ["source", "hold", "hold", "target"]);
        assert_eq!(said("shop.stage"), ["source", "held", "held", "target"]);
    }

    #[test]
    fn a_server_that_lost_touch_refuses_writes_and_leaves_reads_where_they_are() {
        for route in ROUTES {
            for flag in [WRITES_ENABLED, "shop.write.allowed"] {
                let told = told(route, false, flag, Some("pool"));
                assert_eq!((told.value, told.reason), (Value::Flag(false), Reason::Unknown));
            }
            assert_eq!(told(route, false, "shop.write.permit", Some("pool")).variant, "none");
            assert_eq!(told(route, false, "shop.database.write", None).variant, "hold");
            assert_eq!(told(route, false, "shop.database.read", None).variant, route.authority.to_string());
            assert_eq!(told(route, false, "shop.stage", None).variant, "hold");
        }
    }

    #[test]
    fn a11_a_write_on_trial_is_for_the_target_in_charge_while_it_is_held() {
        let [source, target] = ["postgres://c@old/shop", "postgres://c@new/shop"].map(|url| DatabaseUrl::parse(url).unwrap());
        let places = Places::new([&source, &target], []).unwrap();
        let may = |route, fresh, database| Flags { cutover: "shop", route, units: &[], fresh, places: &places }.may_claim(database);
        assert_eq!(ROUTES.map(|route| may(route, true, Some("new"))), [false, false, true, false]);
        assert!(!may(ROUTES[2], true, Some("old")) && !may(ROUTES[2], true, None) && !may(ROUTES[2], false, Some("new")));
    }

    #[test]
    fn a_unit_whose_reads_are_split_is_told_by_key_and_any_other_without_one() {
        let places = Places::default();
        let told = |fresh, target_reads, flag: &str, key| {
            let units = [Unit { name: "orders".to_owned(), target_reads, table: None }];
            let flags = Flags { cutover: "shop", route: ROUTES[0], units: &units, fresh, places: &places };
            flags.evaluate(flag, Context { database: None, key }).map(|told| (told.variant, told.reason))
        };
        let said = |side: &str, reason| Ok((side.to_owned(), reason));
        // A published vector: shop.orders,customer-17,6665.
        for fresh in [true, false] {
            let reason = |reason| if fresh { reason } else { Reason::Unknown };
            let orders = |target_reads, key| told(fresh, target_reads, "shop.orders.read", key);
            assert_eq!(orders(6665, Some("customer-17")), said("source", reason(Reason::Split)));
            assert_eq!(orders(6666, Some("customer-17")), said("target", reason(Reason::Split)));
            assert_eq!(orders(6666, None), Err(FlagError::KeyMissing));
            assert_eq!([orders(0, None), orders(0, Some("a"))], [(); 2].map(|()| said("source", reason(Reason::TargetingMatch))));
            assert_eq!([orders(ALL, None), orders(ALL, Some("a"))], [(); 2].map(|()| said("target", reason(Reason::TargetingMatch))));
        }
        for flag in ["shop.database.read", "shop.order.read", "shop..read", "shop.read", "shop.orders.read.read"] {
            assert_eq!(told(true, 0, flag, None), Err(FlagError::NotFound), "{flag}");
        }
    }

    #[test]
    fn a_table_with_a_shadow_is_told_by_its_own_salt_and_as_sure_as_its_own_database_is() {
        let places = Places::default();
        let told = |stale, fresh, flag: &str| {
            let table = ShadowTable { salt: "shop.database".to_owned(), stage: "half_50".to_owned(), epoch: 7, stale };
            let table = Unit { name: "audit.orders".to_owned(), target_reads: 2208, table: Some(table) };
            let units = [Unit::of_switch(&ROUTES[0]), table];
            let flags = Flags { cutover: "main", route: ROUTES[0], units: &units, fresh, places: &places };
            flags.evaluate(flag, Context { database: None, key: Some("customer-17") }).map(|told| (told.variant, told.reason))
        };
        // A published vector: shop.database,customer-17,2207.
        for (stale, fresh, reason) in [(false, true, Reason::Split), (true, true, Reason::Unknown), (false, false, Reason::Unknown)] {
            assert_eq!(told(stale, fresh, "main.audit.orders.read"), Ok(("target".to_owned(), reason)));
        }
        assert_eq!(
            told(true, true, "main.database.read"),
            Ok(("source".to_owned(), Reason::TargetingMatch)),
            "the switch is no part of it"
        );
    }

    #[test]
    fn every_name_has_an_answer_and_no_other_has() {
        let places = Places::default();
        let units = [Unit::of_switch(&Route::default())];
        let flags = Flags { cutover: "shop", route: Route::default(), units: &units, fresh: true, places: &places };
        assert!(flags.names().iter().all(|name| flags.evaluate(name, Context::default()).is_ok()));
        let unknown = Flags { cutover: "", fresh: false, ..flags };
        assert_eq!(unknown.names(), [WRITES_ENABLED], "it knows nothing yet, not even the name");
        assert_eq!(unknown.evaluate(".stage", Context::default()), Err(FlagError::NotFound));
        for name in ["", "shop", "shop.", "shop.stage.x", "other.stage", "database-writes"] {
            assert_eq!(flags.evaluate(name, Context::default()), Err(FlagError::NotFound), "{name}");
        }
    }
}
