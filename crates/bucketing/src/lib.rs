//! Which side a key's reads go to: the same in server, agent, SDK, SQL and every other language.
//!
//! A key has a bucket for good; a share of reads is a number of buckets, counted from zero. So whoever reads at the target
//! at 1 % also does so at 10 %, and two who know the same share never disagree, whatever they are written in. The hash is
//! MD5 because every database and language has it, not because it would keep a secret.
//!
//! ```
//! use cutover_bucketing::Salt;
//!
//! let salt = Salt::of("shop", "orders");
//! assert_eq!(salt.bucket("customer-17"), 6665);
//! assert!(salt.covers("customer-17", 6666) && !salt.covers("customer-17", 6665));
//! ```

use md5::{Digest, Md5};

/// All reads. Unit: basis points, hundredths of a percent; and as many buckets there are.
pub const ALL: u16 = 10_000;

/// What sets the buckets of one unit apart from those of another: without it, the same customers would be the first to
/// move in every cutover.
#[derive(Clone, Debug)]
pub struct Salt(Md5);

impl Salt {
    /// Any salt.
    #[must_use]
    pub fn new(salt: &str) -> Self {
        Self(Md5::new().chain_update(salt).chain_update(":"))
    }

    /// The salt of a unit of a cutover: `<cutover>.<unit>`.
    #[must_use]
    pub fn of(cutover: &str, unit: &str) -> Self {
        Self(Md5::new().chain_update(cutover).chain_update(".").chain_update(unit).chain_update(":"))
    }

    /// The bucket of a key, less than [`ALL`]: the first four bytes of `md5(salt ':' key)`, scaled. The key is any text,
    /// taken as its UTF-8 bytes.
    #[must_use]
    pub fn bucket(&self, key: &str) -> u16 {
        let hash = self.0.clone().chain_update(key).finalize();
        let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        // Less than 10,000, since what is scaled is less than 2^32.
        ((u64::from(first) * u64::from(ALL)) >> 32) as u16
    }

    /// Whether a key is among this share of all. The share's unit is basis points; [`ALL`] and more is everybody.
    #[must_use]
    pub fn covers(&self, key: &str, basis_points: u16) -> bool {
        match basis_points {
            0 => false,
            ALL.. => true,
            some => self.bucket(key) < some,
        }
    }
}

/// The examples of the reference.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/bucketing.md")]
struct Reference;
