//! Only host, port and dbname of one entry change.

use std::fs;

use proptest::prelude::*;

use super::*;

const INI: &str = "\
;; orders = host=no
[databases] first = host=127.0.0.1
orders=host=10.0.0.1   port = 5432 dbname='my ''db' user=app password='s3 host=x' pool_size=20  \r
  ordersx = host=no
'odd name' = port=5433

[pgbouncer]
orders = host=no
pool_mode = transaction
";

fn to(host: &str, port: u16, dbname: &str) -> Backend {
    Backend { host: Some(host.to_owned()), port, dbname: dbname.to_owned() }
}

fn found(text: &str, database: &str) -> Result<Entry, TrafficError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pgbouncer.ini");
    fs::write(&path, text).unwrap();
    find(&path, database)
}

#[track_caller]
fn repoint(text: &str, database: &str, backend: &Backend) -> String {
    let place = found(text, database).unwrap().place;
    let new = repointed(text, place, database, backend).unwrap().unwrap();
    assert_eq!(found(&new, database).unwrap().backend, *backend);
    assert_eq!(repointed(&new, place, database, backend).unwrap(), None, "a second time changes nothing");
    new
}

#[test]
fn reads_as_pgbouncer_does() {
    let entry = found(INI, "orders").unwrap();
    assert_eq!(entry.backend, to("10.0.0.1", 5432, "my 'db"));
    assert_eq!(entry.pool_mode.as_deref(), Some("transaction"));
    assert_eq!(found(INI, "first").unwrap().backend, to("127.0.0.1", 5432, "first"));
    assert_eq!(found(INI, "odd name").unwrap().backend, Backend { host: None, port: 5433, dbname: "odd name".to_owned() });
    assert_eq!(
        found("[databases]\na = pool_mode=session\n[pgbouncer]\npool_mode=statement", "a").unwrap().pool_mode.as_deref(),
        Some("session")
    );
}

#[test]
fn b12_only_host_port_and_dbname_change() {
    for (database, backend, old, new) in [
        ("orders", to("db2", 6000, "my 'db"), "host=10.0.0.1   port = 5432", "host=db2   port = 6000"),
        ("orders", to("10.0.0.1", 5432, "it's"), "dbname='my ''db'", "dbname='it''s'"),
        ("first", to("db2", 5432, "first"), "first = host=127.0.0.1", "first = host=db2"),
        ("first", to("db2", 6000, "x y"), "first = host=127.0.0.1", "first = port=6000 dbname='x y' host=db2"),
        ("odd name", to("/run/my pg", 5432, "odd name"), "'odd name' = port=5433", "'odd name' = host='/run/my pg' port=5432"),
    ] {
        assert_eq!(repoint(INI, database, &backend), INI.replacen(old, new, 1), "{database}");
    }
    assert_eq!(repoint("[databases]\na=\n", "a", &to("h", 1, "b")), "[databases]\na=host=h port=1 dbname=b\n");
    assert_eq!(repoint("[databases]\na = host=x host=y", "a", &to("h", 5432, "a")), "[databases]\na = host=x host=h");
}

#[test]
fn says_what_is_wrong() {
    for (text, part) in [
        ("[databases]\na = host=x\na = host=y\n", "more than once"),
        ("[databases]\n* = host=x\n", "only `*` covers it"),
        ("[databases]\nb = host=x\n", "does not set `a`"),
        ("[databases\na = host=x\n", "line 1: a section has no `]`"),
        ("[databases]\na\n", "line 2: it is no `key = value`"),
        ("[databases]\na = host\n", "line 2: the entry is no list"),
        ("[databases]\na = host='x\n", "line 2: the entry is no list"),
        ("[databases]\na = host='x'port=1\n", "line 2: the entry is no list"),
        ("[databases]\na = port=1 host=\n", "line 2: the entry"),
        ("[databases]\na = host=x\tport=1\n", "tabs"),
        ("[databases]\na = port=x\n", "no port"),
    ] {
        let error = found(text, "a").unwrap_err();
        assert!(error.report().contains(part), "{text}: {}", error.report());
    }
}

#[test]
fn follows_includes_and_the_sections_they_leave_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("conf")).unwrap();
    let root = "[databases]\n%include conf/databases.ini\norders = host=no\n";
    let databases = "orders = host=x\n%include conf/more.ini\n[pgbouncer]\npool_mode = session\n";
    fs::write(path("pgbouncer.ini"), root).unwrap();
    fs::write(path("conf/databases.ini"), databases).unwrap();
    fs::write(path("conf/more.ini"), "billing = host=y\n").unwrap();
    let config = path("pgbouncer.ini");

    let orders = find(&config, "orders").unwrap();
    assert_eq!((orders.path.as_path(), orders.pool_mode.as_deref()), (path("conf/databases.ini").as_path(), Some("session")));
    assert!(rewrite(&orders, "orders", &to("green", 5432, "orders")).unwrap());
    assert!(rewrite(&find(&config, "billing").unwrap(), "billing", &to("green", 5432, "billing")).unwrap());

    assert_eq!(fs::read_to_string(&config).unwrap(), root);
    assert_eq!(fs::read_to_string(path("conf/databases.ini")).unwrap(), databases.replace("host=x", "host=green"));
    assert_eq!(fs::read_to_string(path("conf/databases.ini.cutover-1")).unwrap(), databases);
    assert_eq!(fs::read_to_string(path("conf/more.ini")).unwrap(), "billing = host=green\n");

    fs::write(&config, "[databases]\n%include pgbouncer.ini\n").unwrap();
    assert!(find(&config, "orders").unwrap_err().report().contains("too deep"));
    fs::write(&config, "[databases]\n%include gone.ini\n").unwrap();
    assert!(find(&config, "orders").unwrap_err().report().contains("gone.ini"));
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        "[;#][^\\n]{0,12}",
        "[ \\t\\r]{0,3}",
        "[a-z]{1,4}x ?= ?(host=[a-z]{1,3})?( +port=[1-9]{1,4})?( +password='[a-z ]{0,3}('')?=')? *",
        "'[a-z ]{1,4}x' = pool_size=5",
    ]
}

proptest! {
    #[test]
    fn b12_what_else_is_in_the_file_stays_byte_for_byte(
        before in proptest::collection::vec(line(), 0..6),
        after in proptest::collection::vec(line(), 0..6),
        parts in Just(vec!["host=a", "port='12'", "dbname='d''b'", "user=u", "password='host=''x'"]).prop_shuffle(),
        count in 1_usize..6,
        host in "[a-z/' ]{1,8}", port in 1_u16.., dbname in "[a-zA-Z' =]{1,8}",
    ) {
        let (before, after) = (before.join("\n"), after.join("\n"));
        let entry = parts[..count].join("  ");
        let text = format!("[databases]\n{before}\ntarget = {entry} \r\n{after}\n[pgbouncer]\ntarget = x");
        let backend = to(&host, port, &dbname);
        let new = repoint(&text, "target", &backend);
        let head = format!("[databases]\n{before}\ntarget = ");
        prop_assert!(new.starts_with(&head));
        let tail = format!(" \r\n{after}\n[pgbouncer]\ntarget = x");
        prop_assert!(new.ends_with(&tail));
        for kept in parts[..count].iter().filter(|part| part.starts_with("user") || part.starts_with("password")) {
            prop_assert!(new.contains(kept));
        }
    }
}
