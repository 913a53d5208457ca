//! Where reads go, by unit and key. Whoever asks takes no lock and allocates nothing.

use arc_swap::ArcSwap;
use cutover_api::{Permit, ShadowTable, Side};
use cutover_bucketing::{ALL, Salt};

/// The newest answer's units. The task replaces them all at once; any thread reads them.
#[derive(Debug, Default)]
pub(crate) struct Reads(ArcSwap<Vec<Unit>>);

#[derive(Debug)]
struct Unit {
    name: String,
    /// Hashed once, and gone on from with each key.
    salt: Salt,
    /// Unit: basis points.
    target_reads: u16,
}

impl Reads {
    /// Where a read of this key goes; none where no unit has that name.
    pub(crate) fn side(&self, unit: &str, key: &str) -> Option<Side> {
        let units = self.0.load();
        let found = units.binary_search_by(|known| known.name.as_str().cmp(unit)).ok()?;
        let Unit { salt, target_reads, .. } = &units[found];
        Some(if salt.covers(key, *target_reads) { Side::Target } else { Side::Source })
    }

    /// Takes a newer answer over.
    pub(crate) fn learn(&self, permit: &Permit) {
        let unit = |name: &str, table: Option<&ShadowTable>, target_reads| {
            // A table is told by the salt that its own database decides by.
            let salt = table.map_or_else(|| Salt::of(&permit.cutover, name), |table| Salt::new(&table.salt));
            Unit { name: name.to_owned(), salt, target_reads }
        };
        let mut units: Vec<_> = permit.units.iter().map(|told| unit(&told.name, told.table.as_ref(), told.target_reads)).collect();
        if units.is_empty() {
            // An older server knows of one alone, and no shares.
            units.push(unit("database", None, if permit.authority == Side::Target { ALL } else { 0 }));
        }
        units.sort_by(|one, other| one.name.cmp(&other.name));
        self.0.store(units.into());
    }
}

#[cfg(test)]
mod tests {
    use cutover_api::Writes;

    use super::*;

    fn permit(authority: Side, units: &[(&str, u16)]) -> Permit {
        let unit =
            |(name, target_reads): &(&str, u16)| cutover_api::Unit { name: (*name).to_owned(), target_reads: *target_reads, table: None };
        let units = units.iter().map(unit);
        Permit {
            cutover: "shop".to_owned(),
            revision: 1,
            epoch: 1,
            authority,
            writes: Writes::Open,
            units: units.collect(),
            tables: 0,
            stage: "source".to_owned(),
            write: true,
            why: None,
            lease_ms: 1,
        }
    }

    #[test]
    fn a_table_with_a_shadow_is_read_by_the_salt_of_its_own_database() {
        let reads = Reads::default();
        let mut permit = permit(Side::Source, &[("database", 0), ("orders", 2208)]);
        permit.units[1].table = Some(ShadowTable { salt: "shop.database".to_owned(), stage: "half_50".to_owned(), epoch: 3, stale: false });
        reads.learn(&permit);
        // A published vector: shop.database,customer-17,2207.
        assert_eq!(reads.side("orders", "customer-17"), Some(Side::Target));
        permit.units[1].target_reads = 2207;
        reads.learn(&permit);
        assert_eq!(reads.side("orders", "customer-17"), Some(Side::Source));
    }

    #[test]
    fn each_unit_has_its_own_share_and_its_own_buckets() {
        let reads = Reads::default();
        assert_eq!(reads.side("database", "a"), None, "before the first answer nothing is known");
        // Published vectors: shop.orders,customer-17,6665 and shop.database,customer-17,2207.
        let sides = |orders, database| {
            reads.learn(&permit(Side::Source, &[("orders", orders), ("database", database)]));
            ["orders", "database", "carts"].map(|unit| reads.side(unit, "customer-17"))
        };
        let (source, target) = (Some(Side::Source), Some(Side::Target));
        assert_eq!(sides(6665, 2208), [source, target, None]);
        assert_eq!(sides(6666, 2207), [target, source, None]);
        assert_eq!(sides(0, u16::MAX), [source, target, None]);
    }

    #[test]
    fn an_older_server_that_names_no_units_has_all_reads_at_the_authority() {
        let reads = Reads::default();
        for authority in [Side::Source, Side::Target] {
            reads.learn(&permit(authority, &[]));
            assert_eq!((reads.side("database", ""), reads.side("orders", "")), (Some(authority), None));
        }
    }
}
