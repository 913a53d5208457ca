//! Numbers and lists as people read them.

/// A size, to three digits.
pub(super) fn bytes(size: i64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value.abs() >= 10.0 { format!("{value:.0} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time in milliseconds.
pub(super) fn millis(ms: i64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// `1 table`, `2 tables`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([bytes(0), bytes(8192), bytes(307 << 20), bytes(-1)], ["0 B", "8.0 kB", "307 MB", "-1 B"]);
        assert_eq!([millis(150), millis(90_000), millis(600_000), millis(86_400_000)], ["150 ms", "90 s", "10 min", "24 h"]);
        assert_eq!([count(1, "table"), count(0, "table")], ["1 table", "0 tables"]);
    }
}
