//! Rows that differ are mended through the stream: every kind, every type, under load, and nothing else is touched.

use std::time::Duration;

use cutover_postgres::{
    PgError,
    names::Names,
    verify::{self, Options, Repair, RepairOptions, Report, Verdict},
};
use cutover_testkit::Seed;

use crate::{
    ROWS, SCHEMA,
    ground::{Databases, lines, small_chunks},
    moving, plant,
};

const HOW: RepairOptions = RepairOptions { epoch: 1, rows_per_s: 10_000 };

async fn repair(databases: &Databases, report: &Report) -> Repair {
    verify::repair(&databases.sides(), &Names::new("test"), &small_chunks(), &HOW, &report.differences).await.unwrap()
}

/// What is left, as `table: why`.
fn left(repair: &Repair) -> Vec<String> {
    let mut left: Vec<_> = repair.still_different.iter().map(|left| format!("{}: {}", left.table.name, left.why)).collect();
    left.sort_unstable();
    left.dedup();
    left
}

/// Beside the tables of every kind: unique values that are swapped, columns of the follower's own, an order of columns
/// of its own, and identities that take no value in an UPDATE.
const MORE: &str = "
    CREATE TABLE swapped (id int PRIMARY KEY, u text UNIQUE);
    CREATE TABLE own (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
    CREATE TABLE numbered (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text);
    CREATE TABLE texts (a text, b text, n int, PRIMARY KEY (b, a));
";
const MORE_ROWS: &str = "
    INSERT INTO swapped SELECT i, 'u' || i FROM generate_series(0, 99) i;
    INSERT INTO own (v) SELECT 'v' || i FROM generate_series(1, 5) i;
    INSERT INTO numbered (id, v) SELECT i, 'v' || i FROM generate_series(1, 5) i;
    INSERT INTO texts VALUES ('', 'a', 1), (' ', 'a', 2), ('a ', 'a', 3), ('it''s \\\"', '{,}', 4);
";
const MORE_PLANTED: &str = "
    UPDATE swapped SET u = 'free' WHERE id = 1; UPDATE swapped SET u = 'u1' WHERE id = 98; UPDATE swapped SET u = 'u98' WHERE id = 1;
    UPDATE swapped SET u = u || 'x' WHERE id BETWEEN 10 AND 90;
    UPDATE own SET v = 'planted', mine = 'kept' WHERE id = 2; DELETE FROM own WHERE id = 3; INSERT INTO own (id, v) OVERRIDING SYSTEM VALUE VALUES (100, 'extra');
    UPDATE numbered SET n = DEFAULT WHERE id = 4;
    UPDATE texts SET n = NULL WHERE n = 1; DELETE FROM texts WHERE n = 2; UPDATE texts SET n = -3 WHERE n = 3; DELETE FROM texts WHERE n = 4;
";

#[tokio::test(flavor = "multi_thread")]
async fn d19_each_planted_difference_of_a_table_with_a_key_is_mended() {
    let mut databases = Databases::new("mended").await;
    databases.both(SCHEMA).await;
    databases.both(MORE).await;
    databases.at_follower("ALTER TABLE own ADD mine text DEFAULT 'new'; DROP TABLE pair; CREATE TABLE pair (v int, b text COLLATE \"C\", a int, PRIMARY KEY (b, a))").await;
    databases.at_authority(ROWS).await;
    databases.at_authority(MORE_ROWS).await;
    databases.follow().await;
    databases.caught_up().await;
    plant(&databases).await;
    databases.at_follower(MORE_PLANTED).await;
    let before = databases.verify(&small_chunks()).await;
    let (keyless, keyed): (Vec<_>, Vec<_>) = lines(&before).into_iter().partition(|line| line.contains(" * "));
    let repair = repair(&databases, &before).await;
    assert_eq!(left(&repair), ["bare: the table has no key to mend a row by", "keyless: the table has no key to mend a row by"]);
    assert_eq!((repair.repaired, repair.equal_meanwhile), (keyed.len() as u64, 0), "{repair:#?}");
    assert_eq!(repair.tables.values().sum::<u64>(), repair.repaired);
    let after = databases.verify(&small_chunks()).await;
    assert_eq!(lines(&after), keyless, "what can't be mended is all that is left");
    let kept = "SELECT string_agg(mine, ',' ORDER BY id) FROM own";
    let kept: String = databases.follower.query_one(kept, &[]).await.unwrap().get(0);
    assert_eq!(kept, "new,kept,new,new,new", "columns of the follower's own are as they were");
    databases.end().await;
}

/// Values that lose something on many a way: signs, scales, spaces, order, bounds, and NULLs inside.
const TYPES: &[(&str, &[&str])] = &[
    ("float8", &["-0", "NaN", "-Infinity", "0.1", "1e-300", "0.30000000000000004"]),
    ("float4", &["-0", "NaN", "Infinity", "0.1", "16777217"]),
    ("numeric", &["1.0", "1.00", "NaN", "-0.000", "1e100", "0.1"]),
    ("numeric(10,3)", &["1.5", "-0.001"]),
    ("money", &["-1234.56", "0"]),
    ("text", &["", " ", "a ", "\\N", "it's", "a\"b\\c,d(e)", "é\u{1F600}", "line\nbreak\ttab\r"]),
    ("varchar(5)", &["a ", ""]),
    ("char(5)", &["a", "  b", ""]),
    ("bpchar", &["a  ", "a"]),
    ("\"char\"", &["a", ""]),
    ("name", &["a b"]),
    ("bytea", &["\\x", "\\x00ff5c27", "\\x0a0d"]),
    ("bool", &["t", "f"]),
    ("timestamptz", &["infinity", "-infinity", "0044-03-15 12:00:00 BC", "2026-03-29 01:30:00.123456+02", "294276-12-31 23:59:59.999999"]),
    ("timestamp", &["infinity", "1999-12-31 23:59:59.999999"]),
    ("timetz", &["23:59:59.5-15:59", "24:00:00+00"]),
    ("date", &["infinity", "-infinity", "4713-01-01 BC"]),
    ("interval", &["1 mon", "30 days", "-1 day 24:00", "1 year -2 mons 3.000001 sec"]),
    ("jsonb", &["{\"b\": 1.00, \"a\": [null, \"x\"]}", "null", "\"\""]),
    ("json", &["{\"a\":1,  \"a\":2}", "null"]),
    ("xml", &["<a b=\"c\">d&amp;</a>", "no element"]),
    ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("inet", &["10.0.0.1", "10.0.0.1/8", "::1/128"]),
    ("cidr", &["10.0.0.0/8"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("bit(3)", &["101"]),
    ("varbit", &["", "1010"]),
    ("int[]", &["{}", "{1,NULL}", "[2:3]={4,5}", "{{1,2},{3,4}}"]),
    ("text[]", &["{\"\",NULL,\"NULL\",\"a\\\\b\\\"c\"}"]),
    ("float8[]", &["{-0,NaN,0.1}"]),
    ("timestamptz[]", &["{infinity,2026-03-29 01:30:00+02}"]),
    ("int4range", &["empty", "[1,5)", "(,3)"]),
    ("tstzrange", &["[2026-01-01 00:00+02,infinity)"]),
    ("numrange[]", &["{\"[1.0,2.00]\"}"]),
    ("place", &["(1.50,\"a,b\")", "(,)", "(NaN,)"]),
    ("place[]", &["{\"(1.50,\\\"a b\\\")\",NULL}"]),
    ("mood", &["sad"]),
    ("email", &["a@b"]),
    ("point", &["(-0,1e300)"]),
    ("tsvector", &["'a':1A 'b c':2"]),
    ("tsquery", &["'a' & !'b'"]),
    ("regclass", &["pg_class"]),
    ("pg_lsn", &["16/B374D848"]),
    ("citext", &["Ab"]),
];

/// Settings of the follower's that a text would be written or read by, if it were left to them.
const ODD_SETTINGS: &str = "SET TimeZone = 'Asia/Kolkata'; DateStyle = 'SQL, DMY'; IntervalStyle = 'iso_8601'; extra_float_digits = -5; \
     bytea_output = 'escape'; quote_all_identifiers = on; row_security = on";

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_are_compared_by_value_and_mended_whatever_the_server_is_set_to() {
    let mut databases = Databases::new("mended_types").await;
    for setting in ODD_SETTINGS.split("; ") {
        let setting = setting.trim_start_matches("SET ");
        databases.at_follower(&format!("ALTER DATABASE mended_types SET {setting}")).await;
    }
    databases
        .both(
            "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE place AS (x numeric, y text); \
             CREATE DOMAIN email AS varchar(20) CHECK (VALUE LIKE '%@%')",
        )
        .await;
    let mut rows = 0;
    for (at, (column, values)) in TYPES.iter().enumerate() {
        databases.both(&format!("CREATE TABLE t{at} (id int PRIMARY KEY, v {column})")).await;
        // The last has no value.
        for (id, value) in values
            .iter()
            .map(|value| format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''")))
            .chain(["NULL".to_owned()])
            .enumerate()
        {
            databases.at_authority(&format!("INSERT INTO t{at} VALUES ({id}, {value})")).await;
            rows += 1;
        }
    }
    databases.follow().await;
    databases.caught_up().await;
    let equal = databases.verify(&Options::default()).await;
    assert_eq!((lines(&equal), equal.verdict()), (Vec::new(), Verdict::Equal), "the same values look the same");
    let mut planted = 0;
    for (at, (_, values)) in TYPES.iter().enumerate() {
        // One is missing, the others have the wrong value or none.
        let wrong =
            format!("UPDATE t{at} SET v = CASE WHEN v IS NOT DISTINCT FROM NULL THEN (SELECT v FROM t{at} WHERE id = 0) END WHERE id > 0");
        databases.at_follower(&format!("{wrong}; DELETE FROM t{at} WHERE id = 0")).await;
        planted += values.len() as u64 + 1;
    }
    let different = databases.verify(&Options::default()).await;
    assert_eq!((different.differences_total, rows), (planted, planted), "{:#?}", lines(&different));
    let repair = repair(&databases, &different).await;
    assert_eq!((left(&repair), repair.repaired), (Vec::new(), planted), "{repair:#?}");
    assert_eq!(lines(&databases.verify(&Options::default()).await), [""; 0]);
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d19_rows_that_change_all_the_time_are_mended_and_no_write_is_lost() {
    let mut databases = Databases::new("mended_moving").await;
    databases.both(moving::SCHEMA).await;
    databases.at_authority(moving::ROWS).await;
    databases.follow().await;
    let load = moving::Load::start(&databases.name, Seed::from_env_or_random()).await;
    databases
        .at_follower(
            "UPDATE cold SET v = 'planted' WHERE id BETWEEN 0 AND 20; DELETE FROM hot WHERE id IN (0, 7); INSERT INTO hot VALUES (-101, 0); \
             INSERT INTO queue VALUES (100, 0)",
        )
        .await;
    let before = databases.verify(&moving::options()).await;
    assert_eq!(before.differences.iter().filter(|found| found.table.name != "tally").count(), 25, "{before:#?}");
    let repair = repair(&databases, &before).await;
    assert_eq!((left(&repair), repair.repaired), (Vec::new(), 25), "{repair:#?}");
    let rate = load.end().await;
    assert!(rate > 500.0, "{rate:.0} rows per second are too few to prove anything");
    databases.caught_up().await;
    assert_eq!(lines(&databases.verify(&moving::options()).await), [""; 0]);
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_mended_is_named_with_its_reason_and_the_stream_goes_on() {
    let mut databases = Databases::new("unmendable").await;
    databases.both("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE meddled (id int PRIMARY KEY, v int)").await;
    databases.at_authority("INSERT INTO t SELECT i, i FROM generate_series(1, 60) i; INSERT INTO meddled VALUES (1, 1)").await;
    databases.follow().await;
    databases.caught_up().await;
    databases
        .at_follower(
            "UPDATE t SET v = -1 WHERE id IN (5, 6); ALTER TABLE t ADD CONSTRAINT not_five CHECK (v <> 5); UPDATE meddled SET v = 2; \
             CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := 3; RETURN NEW; END'; \
             CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON meddled FOR EACH ROW EXECUTE FUNCTION meddle(); \
             ALTER TABLE meddled ENABLE ALWAYS TRIGGER meddle",
        )
        .await;
    let report = databases.verify(&small_chunks()).await;
    let repair = repair(&databases, &report).await;
    let left = left(&repair);
    assert_eq!((repair.repaired, left.len()), (1, 2), "{repair:#?}");
    assert!(left[0].starts_with("meddled: it was mended, and is different still"), "{left:?}");
    assert!(left[1].starts_with("t: ") && left[1].contains("not_five"), "{left:?}");
    databases.at_authority("UPDATE t SET v = 1000 WHERE id = 60").await;
    databases.caught_up().await;
    assert_eq!(lines(&databases.verify(&small_chunks()).await), ["meddled id=1 differs in v", "t id=5 differs in v"]);
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_mended_without_a_stream_or_past_a_newer_driver() {
    let mut databases = Databases::new("unstreamed").await;
    databases.both("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    databases.at_authority("INSERT INTO t SELECT i, i FROM generate_series(1, 9) i").await;
    let report = databases.verify(&small_chunks()).await;
    let attempt = async |how: &RepairOptions| {
        let options = Options { patience: Duration::from_secs(10), ..small_chunks() };
        verify::repair(&databases.sides(), &Names::new("test"), &options, how, &report.differences).await.unwrap_err()
    };
    let refused = attempt(&HOW).await;
    assert!(matches!(&refused, PgError::Refused { what, .. } if what.contains("no stream")), "{refused}");
    databases.follow().await;
    databases.caught_up().await;
    databases.at_follower("DELETE FROM t WHERE id = 3").await;
    let report = databases.verify(&small_chunks()).await;
    databases.at_authority("SELECT cutover.guard(7)").await;
    let sides = databases.sides();
    let superseded = verify::repair(&sides, &Names::new("test"), &small_chunks(), &HOW, &report.differences).await.unwrap_err();
    assert!(matches!(superseded, PgError::Superseded(_)), "{superseded}");
    let how = RepairOptions { epoch: 7, ..HOW };
    let repair = verify::repair(&sides, &Names::new("test"), &small_chunks(), &how, &report.differences).await.unwrap();
    assert_eq!(repair.repaired, 1, "{repair:#?}");
    let again = verify::repair(&sides, &Names::new("test"), &small_chunks(), &how, &report.differences).await.unwrap();
    assert_eq!((again.repaired, again.equal_meanwhile), (0, 1), "a difference that is gone is no difference");
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_shown_as_far_as_the_plan_lets_them() {
    let mut databases = Databases::new("shown").await;
    databases.both("CREATE TABLE users (id int PRIMARY KEY, email text, password_hash text, note text)").await;
    databases.at_authority("INSERT INTO users VALUES (1, 'a@b', 'secret', repeat('x', 500)), (2, 'c', 'same', NULL)").await;
    for following in [false, true] {
        if following {
            databases.at_follower("TRUNCATE users").await;
            databases.follow().await;
            databases.caught_up().await;
        } else {
            databases.at_follower("INSERT INTO users VALUES (1, NULL, NULL, NULL), (2, 'c', 'same', NULL)").await;
        }
        databases
            .at_follower(
                "UPDATE users SET email = NULL, password_hash = 'other', note = '' WHERE id = 1; UPDATE users SET note = 'é' WHERE id = 2",
            )
            .await;
        let redact = vec!["public.users.email".to_owned(), "*.password*".to_owned()];
        let report = databases.verify(&Options { values: true, redact, ..small_chunks() }).await;
        let text: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
        let long = format!("{:?}… (500 characters)", "x".repeat(200));
        assert_eq!(
            text,
            [
                format!(
                    "public.users (id 1): differs in email, note, password_hash\n    email: (3 characters) at the authority, NULL at the follower\n    \
                     note: {long} at the authority, \"\" at the follower\n    \
                     password_hash: (6 characters) at the authority, (5 characters) at the follower"
                ),
                "public.users (id 2): differs in note\n    note: NULL at the authority, \"é\" at the follower".to_owned(),
            ]
        );
        let json = serde_json::to_string(&report).unwrap();
        assert!(!json.contains("secret") && !json.contains("a@b") && !json.contains("other"), "{json}");
        assert!(!databases.verify(&small_chunks()).await.differences.iter().any(|found| !found.values.is_empty()), "not asked for");
    }
    databases.end().await;
}
