//! A position in PostgreSQL's write-ahead log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A write-ahead log position, printed as PostgreSQL prints it (`16/B374D848`). Unit: bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

impl Lsn {
    /// How many bytes of log lie between `earlier` and this position; 0 if it is not earlier.
    #[must_use]
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text was not two hexadecimal numbers with a slash between them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a log position such as 16/B374D848")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('/').and_then(|(high, low)| {
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(Self(u64::from(high) << 32 | u64::from(low)))
        });
        parsed.ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

impl TryFrom<String> for Lsn {
    type Error = ParseLsnError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for value in [0, 1, 0xFFFF_FFFF, 0x1_0000_0000, 0x16_B374_D848, u64::MAX] {
            assert_eq!(Lsn(value).to_string().parse(), Ok(Lsn(value)));
        }
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
    }

    #[test]
    fn refuses_what_is_no_position() {
        for text in ["", "16", "16/", "/1", "16/XYZ", "1/2/3", "100000000/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_distance_is_never_negative() {
        assert_eq!(Lsn(7).bytes_since(Lsn(5)), 2);
        assert_eq!(Lsn(5).bytes_since(Lsn(7)), 0);
    }
}
