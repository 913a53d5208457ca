//! Verification, on real servers: what is equal is called equal, and each difference is found and named.

#![cfg(test)]

#[path = "verify/checks.rs"]
mod checks;
#[path = "verify/gentle.rs"]
mod gentle;
#[path = "verify/going_on.rs"]
mod going_on;
#[path = "verify/ground.rs"]
mod ground;
#[path = "verify/in_stream.rs"]
mod in_stream;
#[path = "verify/keys.rs"]
mod keys;
#[path = "verify/moving.rs"]
mod moving;
#[path = "verify/repair.rs"]
mod repair;
#[path = "verify/settings.rs"]
mod settings;

use cutover_core::{Side, plan::DatabaseUrl};
use cutover_postgres::{
    PgError,
    catalogue::QualifiedName,
    names::Names,
    verify::{Options, Progress, Sides, Verdict, verify},
};
use cutover_testkit::{Cluster, ClusterOptions, installs};
use ground::{Databases, ground, line, lines, small_chunks};

/// A table of every kind.
const SCHEMA: &str = "
    CREATE TABLE kinds (id bigint PRIMARY KEY, txt text, num numeric, flt float8, js jsonb, raw bytea, arr int[], plain json,
        at timestamptz, span interval, cash money, bits bit varying, net inet, part int4range, doc xml, words tsvector, flag boolean,
        fixed char(5), twice numeric GENERATED ALWAYS AS (num * 2) STORED);
    CREATE TABLE \"Odd \"\"name\" (\"The Key\" int PRIMARY KEY, \"a,b\" text);
    CREATE TABLE parts (id int, at int, v text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
    CREATE TABLE parent (id int PRIMARY KEY, v text);
    CREATE TABLE child (extra int, PRIMARY KEY (id)) INHERITS (parent);
    CREATE TABLE keyless (v text, n int);
    ALTER TABLE keyless REPLICA IDENTITY FULL;
    CREATE TABLE pair (a int, b text COLLATE \"C\", v int, PRIMARY KEY (b, a));
    CREATE TABLE nothing (id int PRIMARY KEY);
    CREATE TABLE bare ();
";

/// 26 + 3 + 40 + 4 + 12 + 30 rows.
const ROWS: &str = "
    INSERT INTO kinds SELECT i, 'a', 1.0, 0, '{\"a\": 1, \"b\": 2}', '\\x0102', '{1,2}', '{\"a\":1}', '2026-01-01', '1 day', '1.50', '101',
        '10.0.0.1', '[1,5)', '<a/>', 'a b', true, 'ab' FROM generate_series(-5, 20) i;
    INSERT INTO \"Odd \"\"name\" VALUES (-1, '(x,\"y\")'), (0, ''), (1, NULL);
    INSERT INTO parts SELECT i, i % 20, 'v' FROM generate_series(1, 40) i;
    INSERT INTO parent VALUES (1, 'a'), (2, 'b');
    INSERT INTO child VALUES (1, 'a', 1), (2, 'b', 2);
    INSERT INTO keyless SELECT 'same', i % 3 FROM generate_series(1, 12) i;
    INSERT INTO pair SELECT i % 5, 'b' || i, i FROM generate_series(1, 30) i;
";
const ROW_COUNT: u64 = 26 + 3 + 40 + 4 + 12 + 30;

#[tokio::test(flavor = "multi_thread")]
async fn d18_equal_sides_have_no_difference_and_every_row_is_counted() {
    let databases = Databases::new("equal").await;
    databases.both(SCHEMA).await;
    databases.both(ROWS).await;
    let progress = Progress::default();
    let report = verify(&databases.sides(), &Names::new("test"), &small_chunks(), &progress).await.unwrap();
    assert_eq!(lines(&report), [""; 0]);
    assert_eq!((report.verdict(), report.rows, report.tables), (Verdict::Equal, ROW_COUNT, 10));
    assert_eq!(report.rechecked_rows, 0, "equal rows need no second look");
    let numbers = progress.numbers();
    assert_eq!((numbers.rows_done, numbers.tables, numbers.tables_done), (ROW_COUNT, 10, 10));
    assert_eq!(numbers.chunks_done, report.chunks);
}

/// What is changed at the follower, and the lines that must come of it.
const PLANTED: &[(&str, &str)] = &[
    ("UPDATE kinds SET num = 1.00 WHERE id = 0", "kinds id=0 differs in num,twice"),
    ("UPDATE kinds SET flt = 'NaN' WHERE id = 1", "kinds id=1 differs in flt"),
    ("UPDATE kinds SET flt = '-0' WHERE id = 2", "kinds id=2 differs in flt"),
    ("UPDATE kinds SET js = '{\"b\": 2, \"a\": 1}' WHERE id = 3", ""),
    ("UPDATE kinds SET raw = '\\x0103' WHERE id = 4", "kinds id=4 differs in raw"),
    ("UPDATE kinds SET txt = 'a ' WHERE id = 5", "kinds id=5 differs in txt"),
    ("UPDATE kinds SET arr = '{2,1}' WHERE id = 6", "kinds id=6 differs in arr"),
    ("UPDATE kinds SET txt = NULL, js = NULL WHERE id = 7", "kinds id=7 differs in js,txt"),
    ("UPDATE kinds SET plain = '{\"a\": 1}' WHERE id = 8", "kinds id=8 differs in plain"),
    ("UPDATE kinds SET span = '24:00' WHERE id = 9", "kinds id=9 differs in span"),
    ("UPDATE kinds SET at = at + '1 microsecond', cash = '1.51', bits = '1010' WHERE id = 10", "kinds id=10 differs in at,bits,cash"),
    ("UPDATE kinds SET net = '10.0.0.1/24', part = '[1,6)', doc = '<b/>' WHERE id = 11", "kinds id=11 differs in doc,net,part"),
    ("UPDATE kinds SET words = 'b c', flag = NULL WHERE id = 12", "kinds id=12 differs in flag,words"),
    ("UPDATE kinds SET fixed = 'ab ' WHERE id = 13", ""),
    ("UPDATE kinds SET txt = 'first' WHERE id = -5", "kinds id=-5 differs in txt"),
    ("UPDATE kinds SET id = 15000 WHERE id = -3", "kinds id=-3 missing"),
    ("", "kinds id=15000 extra"),
    ("DELETE FROM kinds WHERE id = 20", "kinds id=20 missing"),
    ("INSERT INTO kinds (id) VALUES (-9223372036854775808)", "kinds id=-9223372036854775808 extra"),
    ("UPDATE \"Odd \"\"name\" SET \"a,b\" = NULL WHERE \"The Key\" = 0", "Odd \"name The Key=0 differs in a,b"),
    ("UPDATE \"Odd \"\"name\" SET \"a,b\" = '' WHERE \"The Key\" = 1", "Odd \"name The Key=1 differs in a,b"),
    ("UPDATE parts SET v = 'w' WHERE id = 33", "parts_2 at=13,id=33 differs in v"),
    ("DELETE FROM parts WHERE id = 1", "parts_1 at=1,id=1 missing"),
    ("UPDATE ONLY parent SET v = 'x' WHERE id = 1", "parent id=1 differs in v"),
    ("DELETE FROM child WHERE id = 2", "child id=2 missing"),
    ("DELETE FROM keyless WHERE ctid = (SELECT ctid FROM keyless WHERE n = 2 LIMIT 1)", "keyless * 4 times, 3 times"),
    ("INSERT INTO keyless VALUES (NULL, 7), (NULL, 7)", "keyless * 0 times, 2 times"),
    ("UPDATE pair SET a = -1 WHERE v = 30", "pair b=b30,a=0 missing"),
    ("", "pair b=b30,a=-1 extra"),
    ("INSERT INTO nothing VALUES (0)", "nothing id=0 extra"),
    ("INSERT INTO bare DEFAULT VALUES", "bare * 0 times, 1 times"),
];

async fn plant(databases: &Databases) -> Vec<String> {
    for (sql, _) in PLANTED.iter().filter(|(sql, _)| !sql.is_empty()) {
        databases.at_follower(sql).await;
    }
    let mut expected: Vec<_> = PLANTED.iter().map(|(_, line)| (*line).to_owned()).filter(|line| !line.is_empty()).collect();
    expected.sort_unstable();
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn d19_each_planted_difference_is_named_when_both_stand_still() {
    let databases = Databases::new("planted").await;
    databases.both(SCHEMA).await;
    databases.both(ROWS).await;
    let expected = plant(&databases).await;
    for chunk_rows in [1, 7, 10_000] {
        let report = databases.verify(&Options { chunk_rows, ..small_chunks() }).await;
        assert_eq!(lines(&report), expected, "{chunk_rows} rows in a chunk");
        assert_eq!((report.verdict(), report.rows), (Verdict::Different, ROW_COUNT));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d19_each_planted_difference_is_named_when_the_follower_follows() {
    let mut databases = Databases::new("planted_following").await;
    databases.both(SCHEMA).await;
    databases.at_authority(ROWS).await;
    databases.follow().await;
    databases.caught_up().await;
    let equal = databases.verify(&small_chunks()).await;
    assert_eq!((lines(&equal), equal.verdict()), (Vec::new(), Verdict::Equal));
    let expected = plant(&databases).await;
    for rechecks in [1, 5] {
        let report = databases.verify(&Options { rechecks, ..small_chunks() }).await;
        assert_eq!(lines(&report), expected, "{rechecks} re-checks");
    }
    databases.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_or_a_column_on_one_side_only_is_a_difference() {
    let databases = Databases::new("one_sided").await;
    databases.both("CREATE TABLE shared (id int PRIMARY KEY); CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)").await;
    databases
        .at_authority(
            "ALTER TABLE shared ADD v text, ADD g int GENERATED ALWAYS AS (id + 1) STORED; INSERT INTO shared VALUES (1, 'x'); \
             CREATE TABLE here (id int); CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20); INSERT INTO parts VALUES (1), (11)",
        )
        .await;
    databases
        .at_follower(
            "ALTER TABLE shared ADD w text; INSERT INTO shared VALUES (1, 'y'); CREATE TABLE there (id int); INSERT INTO parts VALUES (1)",
        )
        .await;
    let report = databases.verify(&small_chunks()).await;
    let expected =
        ["here  missing table", "parts id=11 missing", "parts_2  missing table", "shared  missing columns v", "there  extra table"];
    assert_eq!(lines(&report), expected);
    let notes: Vec<_> = report.notes.iter().map(|note| format!("{}: {}", note.table.name, note.why)).collect();
    assert_eq!(notes.iter().filter(|note| note.starts_with("shared: ")).count(), 2, "{notes:?}");
    assert!(notes.iter().any(|note| note.starts_with("parts: compared as a whole")), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_partitioned_differently_are_compared_as_a_whole() {
    let databases = Databases::new("regrouped").await;
    databases
        .at_authority(
            "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY HASH (id); CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
             CREATE TABLE t_1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO t SELECT generate_series(-20, 20)",
        )
        .await;
    databases.at_follower("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(-20, 20)").await;
    let report = databases.verify(&small_chunks()).await;
    assert_eq!((lines(&report), report.rows, report.verdict()), (Vec::new(), 41, Verdict::Equal));
    databases.at_follower("DELETE FROM t WHERE id = -7").await;
    assert_eq!(lines(&databases.verify(&small_chunks()).await), ["t id=-7 missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_differences_are_counted_and_few_are_kept() {
    let databases = Databases::new("many").await;
    databases.both("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE k (v int)").await;
    databases.at_authority("INSERT INTO t SELECT i, 'a' FROM generate_series(1, 1000) i").await;
    databases.at_follower("INSERT INTO t SELECT i, 'a' FROM generate_series(-4000, 5000) i WHERE i <> 0").await;
    let options = Options { chunk_rows: 50, max_differences: 10, ..small_chunks() };
    let report = databases.verify(&options).await;
    assert_eq!((report.differences_total, report.differences.len(), report.rows), (8000, 10, 1000));
    databases.at_follower("INSERT INTO k SELECT generate_series(1, 5000)").await;
    let only = Some(vec![QualifiedName { schema: "public".to_owned(), name: "k".to_owned() }]);
    let report = databases.verify(&Options { tables: only, ..options }).await;
    assert_eq!((report.differences.len(), report.verdict(), report.tables), (10, Verdict::Different, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_is_never_called_equal() {
    let databases = Databases::new("hidden").await;
    databases
        .both(
            "CREATE TABLE open (id int PRIMARY KEY); CREATE TABLE closed (id int PRIMARY KEY); CREATE TABLE filtered (id int PRIMARY KEY); \
             INSERT INTO filtered VALUES (1); DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
             GRANT USAGE ON SCHEMA public TO reader; GRANT SELECT ON open, filtered TO reader; \
             ALTER TABLE filtered ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON filtered USING (false)",
        )
        .await;
    databases.at_follower("DELETE FROM filtered").await;
    let ground = ground().await;
    let url = |cluster: &Cluster| DatabaseUrl::parse(&cluster.url("reader", "hidden")).unwrap();
    let (authority, follower) = (url(&ground.authority), url(&ground.follower));
    let sides = Sides { authority: &authority, follower: &follower, authority_side: Side::Target, following: None };
    let report = verify(&sides, &Names::new("test"), &small_chunks(), &Progress::default()).await.unwrap();
    assert_eq!(report.verdict(), Verdict::Inconclusive, "{report:#?}");
    let mut unsettled: Vec<_> = report.unsettled.iter().map(|unsettled| unsettled.table.name.as_str()).collect();
    unsettled.sort_unstable();
    assert_eq!(unsettled, ["closed", "filtered"], "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_compare_is_inconclusive_and_an_unknown_table_is_refused() {
    let databases = Databases::new("nothing").await;
    assert_eq!(databases.verify(&small_chunks()).await.verdict(), Verdict::Inconclusive);
    let unknown = Some(vec![QualifiedName { schema: "public".to_owned(), name: "orders".to_owned() }]);
    let error = databases.try_verify(&Options { tables: unknown, ..small_chunks() }).await.unwrap_err();
    assert!(matches!(error, PgError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_major_is_read() {
    for install in installs() {
        let cluster = Cluster::start(&install, ClusterOptions::named("every").not_durable()).await.unwrap();
        for database in ["one", "other"] {
            cluster.create_database(database).await.unwrap();
            cluster.execute(database, SCHEMA).await.unwrap();
            cluster.execute(database, ROWS).await.unwrap();
        }
        cluster.execute("other", "UPDATE kinds SET txt = 'b' WHERE id = 0").await.unwrap();
        let url = |database| DatabaseUrl::parse(&cluster.url("postgres", database)).unwrap();
        let (authority, follower) = (url("one"), url("other"));
        let sides = Sides { authority: &authority, follower: &follower, authority_side: Side::Source, following: None };
        let report = verify(&sides, &Names::new("test"), &small_chunks(), &Progress::default()).await.unwrap();
        let found: Vec<_> = report.differences.iter().map(line).collect();
        assert_eq!((found, report.rows), (vec!["kinds id=0 differs in txt".to_owned()], ROW_COUNT), "{}", install.version);
    }
}
