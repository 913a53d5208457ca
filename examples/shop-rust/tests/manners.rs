//! What the shop says before it begins. Through a whole switch it is run by the command line's tests.

#![cfg(test)]

use std::process::{Command, Stdio};

#[test]
fn without_a_database_to_write_to_it_says_so_and_ends() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop-rust"));
    let output = command.env_remove("DB_WRITE_ENDPOINT").stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("DB_WRITE_ENDPOINT is not set"), "{output:?}");
}
