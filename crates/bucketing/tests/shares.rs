//! What a share of the keys is: who is in it, and how many.

#![cfg(test)]

use cutover_bucketing::{ALL, Salt};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_key_has_a_bucket_and_a_share_is_those_below_it(cutover in ".{0,20}", unit in ".{0,20}", key in ".{0,200}", share in 0..=ALL) {
        let salt = Salt::of(&cutover, &unit);
        let bucket = salt.bucket(&key);
        prop_assert!(bucket < ALL);
        prop_assert_eq!(salt.covers(&key, share), bucket < share);
        prop_assert!(!salt.covers(&key, 0) && salt.covers(&key, ALL) && salt.covers(&key, u16::MAX));
        prop_assert_eq!(bucket, Salt::new(&format!("{cutover}.{unit}")).bucket(&key));
    }

    #[test]
    fn whoever_is_in_a_share_is_in_every_larger_one(key in ".{0,40}", one in 0..=ALL, other in 0..=ALL) {
        let salt = Salt::of("shop", "orders");
        let (small, large) = (one.min(other), one.max(other));
        prop_assert!(!salt.covers(&key, small) || salt.covers(&key, large));
        let grows = [0, 100, 1_000, 5_000, ALL].map(|share| salt.covers(&key, share));
        prop_assert!(grows.is_sorted(), "{:?}", grows);
    }
}

/// The keys are always the same, so this can't fail by chance.
#[test]
fn a_share_has_about_as_many_keys_as_it_says_and_not_the_same_in_each_unit() {
    let keys: Vec<_> = (0..100_000).map(|number| format!("customer-{number}")).collect();
    let (orders, carts) = (Salt::of("shop", "orders"), Salt::of("shop", "carts"));
    for share in [1_u16, 100, 1_000, 2_500, 5_000, 9_900] {
        let expected = f64::from(share) / f64::from(ALL) * keys.len() as f64;
        let many = keys.iter().filter(|key| orders.covers(key, share)).count() as f64;
        // Five standard deviations at most.
        assert!((many - expected).abs() <= 5.0 * expected.sqrt(), "{share}: {many} rather than {expected}");
    }
    let both = keys.iter().filter(|key| orders.covers(key, 1_000) && carts.covers(key, 1_000)).count();
    assert!((850..=1150).contains(&both), "a tenth of a tenth is in both: {both}");
}
