//! Keys of every kind, in every order.

use cutover_postgres::verify::{Options, Report, Verdict};

use crate::ground::{Databases, lines, small_chunks};

/// Key type, values in no particular order; the first is changed, the second missing, the third extra.
const KEYS: &[(&str, &[&str])] = &[
    ("int8", &["0", "-9223372036854775808", "9223372036854775807", "1", "-1"]),
    ("numeric", &["1.50", "-3", "NaN", "1e20", "0.000"]),
    ("float8", &["-0", "NaN", "Infinity", "-Infinity", "0.1"]),
    ("text", &["", "a'b\\c\"d", "b,c", "ß", "é"]),
    ("char(4)", &["a", "b", "ab", "  c", ""]),
    ("varchar(9)", &["a ", "a", "b", "B", "\u{1F600}"]),
    ("\"char\"", &["a", "b", "c", "d", "e"]),
    ("name", &["a", "b", "c", "d", "e"]),
    ("bytea", &["\\x", "\\x00ff", "\\xdead", "\\x01", "\\x02"]),
    (
        "uuid",
        &[
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "10000000-0000-0000-0000-000000000000",
        ],
    ),
    ("timestamptz(3)", &["-infinity", "infinity", "2026-03-29 01:30:00.123+02", "0044-03-15 BC", "1999-12-31 23:59:59"]),
    ("date", &["-infinity", "2026-02-28", "0044-03-15 BC", "1999-12-31"]),
    ("interval", &["1 mon", "-1 day", "00:00:01.5", "1 year 2 mons"]),
    ("bool", &["true", "false"]),
    ("inet", &["10.0.0.1", "10.0.0.0/8", "::1", "10.0.0.2"]),
    ("bit(3)", &["101", "000", "111", "001"]),
    ("money", &["1234.50", "-0.01", "0", "99"]),
    ("int[]", &["{}", "{1,NULL}", "{1,2}", "{{1},{2}}"]),
    ("int4range", &["empty", "[1,5)", "(,3)", "[7,)"]),
    ("jsonb", &["{\"b\": 1, \"a\": 2}", "[]", "null", "\"x\""]),
    ("mood", &["sad", "ok", "happy"]),
    ("place", &["(1,a)", "(1,\"b c\")", "(2,)"]),
    ("email", &["a@x", "b@x", "c@x"]),
    ("citext", &["Ab", "b", "C", "d"]),
];

const TYPES: &str = "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE TYPE place AS (x int, y text); \
     CREATE DOMAIN email AS varchar(20) CHECK (VALUE LIKE '%@%')";

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_find_their_rows() {
    let databases = Databases::new("key_types").await;
    databases.both(TYPES).await;
    let mut expected = 0;
    for (at, (key, values)) in KEYS.iter().enumerate() {
        databases.both(&format!("CREATE TABLE t{at} (k {key} PRIMARY KEY, v int)")).await;
        for (number, value) in values.iter().enumerate() {
            let insert = format!("INSERT INTO t{at} VALUES ('{}', {number})", value.replace('\'', "''"));
            databases.both(&insert).await;
        }
        databases.at_follower(&format!("UPDATE t{at} SET v = -1 WHERE v = 0; DELETE FROM t{at} WHERE v = 1")).await;
        databases.at_authority(&format!("DELETE FROM t{at} WHERE v = 2")).await;
        expected += values.len().min(3);
    }
    for chunk_rows in [1, 100] {
        let report = databases.verify(&Options { chunk_rows, ..small_chunks() }).await;
        let found = lines(&report);
        for (at, (key, values)) in KEYS.iter().enumerate() {
            let of_table = |end: &str| found.iter().filter(|line| line.starts_with(&format!("t{at} k=")) && line.ends_with(end)).count();
            let seen = [of_table(" differs in v"), of_table(" missing"), of_table(" extra")];
            assert_eq!(seen, [1, 1, usize::from(values.len() > 2)], "{key}: {found:#?}");
        }
        assert_eq!(found.len(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_equal_but_written_differently_are_one_row() {
    let databases = Databases::new("written").await;
    databases
        .both("CREATE EXTENSION citext; CREATE TABLE n (k numeric PRIMARY KEY); CREATE TABLE c (k citext, n int, PRIMARY KEY (k, n))")
        .await;
    databases.at_authority("INSERT INTO n VALUES (1.0), (2); INSERT INTO c VALUES ('Ab', 1), ('b', 2)").await;
    databases.at_follower("INSERT INTO n VALUES (1.00), (2); INSERT INTO c VALUES ('aB', 1), ('b', 2)").await;
    for chunk_rows in [1, 100] {
        let report = databases.verify(&Options { chunk_rows, ..small_chunks() }).await;
        assert_eq!(lines(&report), ["c k=Ab,n=1 differs in k", "n k=1.0 differs in k"]);
    }
}

/// Words that C, and any language, sort differently.
const WORDS: &str = "INSERT INTO t SELECT w || i, i FROM unnest('{a,B,c,D,é,Z,_x,-y,ß,\u{1F600}}'::text[]) w, generate_series(1, 20) i";

const CHANGES: &str =
    "UPDATE t SET v = 0 WHERE k = 'B7'; DELETE FROM t WHERE k = 'é3'; INSERT INTO t VALUES ('zz', 1), ('', 2), ('Z7x', 3)";

#[track_caller]
fn assert_changes_found(report: &Report) {
    assert_eq!(lines(report), ["t k= extra", "t k=B7 differs in v", "t k=Z7x extra", "t k=zz extra", "t k=é3 missing"]);
    assert_eq!(report.rows, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_keys_that_both_sides_sort_differently_are_compared() {
    let mut databases = Databases::new("collated").await;
    databases.at_authority("CREATE TABLE t (k text COLLATE \"C\" PRIMARY KEY, v int)").await;
    databases.at_follower("CREATE TABLE t (k text COLLATE \"und-x-icu\" PRIMARY KEY, v int)").await;
    databases.at_authority(WORDS).await;
    databases.follow().await;
    databases.caught_up().await;
    let report = databases.verify(&small_chunks()).await;
    assert_eq!((report.verdict(), report.rows, report.rechecked_rows), (Verdict::Equal, 200, 0), "{report:#?}");
    assert!(report.notes.iter().any(|note| note.why.contains("may sort k differently")), "{report:#?}");
    databases.at_follower(CHANGES).await;
    assert_changes_found(&databases.verify(&small_chunks()).await);
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_keys_under_a_collation_that_ignores_case_are_compared() {
    let databases = Databases::new("ignoring_case").await;
    databases
        .both(
            "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
             CREATE TABLE t (k text COLLATE loose PRIMARY KEY, v text COLLATE loose)",
        )
        .await;
    databases.at_authority("INSERT INTO t VALUES ('a', 'x'), ('B', 'x')").await;
    databases.at_follower("INSERT INTO t VALUES ('a', 'X'), ('b', 'x')").await;
    assert_eq!(lines(&databases.verify(&small_chunks()).await), ["t k=B differs in k", "t k=a differs in v"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_keys_under_the_same_collation_are_compared_by_range() {
    let databases = Databases::new("same_order").await;
    databases.both("CREATE TABLE t (k text PRIMARY KEY, v int)").await;
    databases.both(WORDS).await;
    databases.at_follower(CHANGES).await;
    let report = databases.verify(&small_chunks()).await;
    assert_changes_found(&report);
    assert_eq!(report.notes, [], "initdb chose C.UTF-8 or C on both sides");
}

const STAGES: [&str; 2] = ["CREATE TYPE stage AS ENUM ('a', 'b', 'c', 'd')", "CREATE TYPE stage AS ENUM ('d', 'b', 'a', 'c')"];

/// An enum by itself is known to sort differently; inside an array it is not, so no range is the same on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_shared_hides_and_invents_nothing() {
    for (database, key) in [("disordered", "stage"), ("disordered_after_all", "stage[]")] {
        let databases = Databases::new(database).await;
        databases.at_authority(STAGES[0]).await;
        databases.at_follower(STAGES[1]).await;
        let value = |stage: &str| if key == "stage" { stage.to_owned() } else { format!("{{{stage}}}") };
        databases.both(&format!("CREATE TABLE t (s {key}, id int, v int, PRIMARY KEY (s, id))")).await;
        for stage in ["a", "b", "c", "d"] {
            databases.both(&format!("INSERT INTO t SELECT '{}', i, 0 FROM generate_series(-50, 50) i", value(stage))).await;
        }
        let report = databases.verify(&small_chunks()).await;
        assert_eq!((lines(&report), report.verdict()), (Vec::new(), Verdict::Equal));
        assert_eq!(report.notes.is_empty(), key == "stage[]", "{:?}", report.notes);
        let [a, b, d] = ["a", "b", "d"].map(value);
        let changes = [
            format!("UPDATE t SET v = 1 WHERE s = '{d}' AND id = 50"),
            format!("DELETE FROM t WHERE s = '{b}' AND id = 0"),
            format!("INSERT INTO t VALUES ('{a}', 51, 0)"),
        ];
        databases.at_follower(&changes.join(";")).await;
        let expected = [format!("t s={a},id=51 extra"), format!("t s={b},id=0 missing"), format!("t s={d},id=50 differs in v")];
        assert_eq!(lines(&databases.verify(&small_chunks()).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_in_different_encodings_are_the_same_texts() {
    let latin = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";
    let databases = Databases::with("encodings", latin, "").await;
    databases.both("CREATE TABLE t (k text PRIMARY KEY, v text); INSERT INTO t VALUES ('é', 'ß'), ('a', 'ü')").await;
    let report = databases.verify(&small_chunks()).await;
    assert_eq!((lines(&report), report.verdict()), (Vec::new(), Verdict::Equal));
    databases.at_follower("UPDATE t SET v = 'u' WHERE k = 'a'").await;
    assert_eq!(lines(&databases.verify(&small_chunks()).await), ["t k=a differs in v"]);
}

/// ghostferry#305: a table was read from key 1 upwards, so rows with a key of zero or below were neither copied nor
/// compared.
#[tokio::test(flavor = "multi_thread")]
async fn ghostferry_305_rows_with_keys_of_zero_and_below_are_compared() {
    let databases = Databases::new("ghostferry_305").await;
    databases.both("CREATE TABLE t (k bigint PRIMARY KEY, v int); INSERT INTO t SELECT k, 0 FROM generate_series(-500, 500) k").await;
    databases.at_follower("UPDATE t SET v = 1 WHERE k IN (-500, -1, 0)").await;
    databases.at_authority("INSERT INTO t VALUES (-9223372036854775808, 0)").await;
    let report = databases.verify(&small_chunks()).await;
    assert_eq!(report.rows, 1002, "every row is counted");
    let expected = ["t k=-1 differs in v", "t k=-500 differs in v", "t k=-9223372036854775808 missing", "t k=0 differs in v"];
    assert_eq!(lines(&report), expected);
}
