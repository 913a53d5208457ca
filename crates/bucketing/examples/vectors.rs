//! Writes the published vectors anew: `cargo run -p cutover-bucketing --example vectors > docs/bucketing-vectors.csv`.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use cutover_bucketing::Salt;

const SALTS: [&str; 4] = ["shop.database", "shop.orders", "münchen.aufträge", ""];

/// No field has a comma, a quote or a line break, so that whoever reads the file needs no parser.
const KEYS: &[&str] = &[
    "",
    " ",
    "a",
    "A",
    "b",
    "ab",
    "a:b",
    ":",
    "::",
    "0",
    "1",
    "2",
    "-1",
    "00",
    "10",
    "42",
    "1000000",
    "9007199254740993",
    "-9223372036854775808",
    "18446744073709551615",
    "null",
    "true",
    "NaN",
    "customer-17",
    "Customer-17",
    "customer 17",
    " customer-17",
    "customer-17 ",
    "alice@example.com",
    "https://example.com/?a=1&b=2",
    "c:\\temp",
    "50%",
    "$1",
    "\u{7f}",
    "é",
    "e\u{301}",
    "ß",
    "ẞ",
    "ñandú",
    "Ελλάδα",
    "Привет",
    "שלום",
    "مرحبا",
    "你好",
    "こんにちは",
    "안녕하세요",
    "🙂",
    "👩‍👩‍👧",
    "\u{feff}a",
    "\u{10ffff}",
    "00000000-0000-0000-0000-000000000000",
    "123e4567-e89b-12d3-a456-426614174000",
    "123E4567-E89B-12D3-A456-426614174000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "018f3c5e-7b2a-7c4d-9e1f-0a1b2c3d4e5f",
];

/// Lengths of keys around the blocks of 64 bytes that MD5 works on.
const LENGTHS: [usize; 7] = [39, 40, 41, 49, 50, 120, 1000];

fn main() {
    println!("salt,key,bucket");
    for text in SALTS {
        let salt = Salt::new(text);
        let long = LENGTHS.map(|length| "x".repeat(length));
        for key in KEYS.iter().copied().chain(long.iter().map(String::as_str)) {
            println!("{text},{key},{}", salt.bucket(key));
        }
    }
}
