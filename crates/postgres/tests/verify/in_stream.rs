//! Looks where the stream passes: what they decide, what they leave behind, and what becomes of the stream when they fail.

use cutover_core::{Side, plan::DatabaseUrl};
use cutover_postgres::verify::{Sides, Verdict};
use cutover_testkit::Cluster;

use crate::ground::{Databases, ground, lines, small_chunks};

/// Rows that differ in every way.
const PLANTED: &str =
    "UPDATE t SET v = -1 WHERE id = 5; DELETE FROM t WHERE id = 6; INSERT INTO t VALUES (0, 0); UPDATE t SET v = -2 WHERE id = 50";
const FOUND: [&str; 4] = ["t id=0 extra", "t id=5 differs in v", "t id=50 differs in v", "t id=6 missing"];

async fn followed(name: &str) -> Databases {
    let mut databases = Databases::new(name).await;
    databases.both("CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    databases.at_authority("INSERT INTO t SELECT i, i FROM generate_series(1, 60) i").await;
    databases.follow().await;
    databases.caught_up().await;
    databases.at_follower(PLANTED).await;
    databases
}

/// The stream still carries what the application writes.
async fn assert_flows(databases: &Databases) {
    databases.at_authority("UPDATE t SET v = 1000 WHERE id = 60").await;
    databases.caught_up().await;
    let row = databases.follower.query_one("SELECT v FROM t WHERE id = 60", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 1000);
}

const LEFT_OVER: &str = "SELECT (SELECT count(*) FROM cutover.look) + (SELECT count(*) FROM cutover.look_statement) \
     + (SELECT count(*) FROM cutover.look_outcome) + (SELECT count(*) FROM cutover.look_row)";

#[tokio::test(flavor = "multi_thread")]
async fn d19_a_look_in_the_stream_decides_every_kind_and_leaves_nothing_behind() {
    let databases = followed("carried").await;
    // Every round of looks would leave these undecided: they are held for reading all the time.
    databases.at_authority("BEGIN; SELECT FROM t WHERE id IN (5, 50) FOR KEY SHARE").await;
    let report = databases.verify(&small_chunks()).await;
    assert_eq!((lines(&report), report.verdict()), (FOUND.map(str::to_owned).to_vec(), Verdict::Different));
    databases.at_authority("COMMIT").await;
    databases.caught_up().await;
    for client in [&databases.authority, &databases.follower] {
        assert_eq!(client.query_one(LEFT_OVER, &[]).await.unwrap().get::<_, i64>(0), 0);
    }
    assert_flows(&databases).await;
    databases.end().await;
}

/// Whatever fails where the stream passes, the stream goes on and the rows are looked at in the other way.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_fails_at_the_follower_does_not_stop_the_stream() {
    let broken = [
        ("look_fails", "ALTER TABLE cutover.look_row ADD CONSTRAINT never CHECK (false)"),
        ("note_fails", "ALTER TABLE cutover.look_row DROP COLUMN n; ALTER TABLE cutover.look_outcome ADD CONSTRAINT never CHECK (false)"),
        ("tables_gone", "DROP TABLE cutover.look_row, cutover.look_outcome, cutover.look_statement"),
        ("trigger_gone", "DROP TRIGGER look_where_the_stream_is ON cutover.look"),
    ];
    for (name, sql) in broken {
        let databases = followed(name).await;
        databases.at_follower(sql).await;
        let report = databases.verify(&small_chunks()).await;
        assert_eq!(lines(&report), FOUND, "{name}");
        assert_flows(&databases).await;
        databases.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_at_the_authority_compares_by_looks() {
    let databases = followed("unwritten").await;
    databases
        .both(
            "DO $$ BEGIN CREATE ROLE looker LOGIN IN ROLE pg_monitor; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
             GRANT SELECT ON t TO looker",
        )
        .await;
    let url = |cluster: &Cluster| DatabaseUrl::parse(&cluster.url("looker", "unwritten")).unwrap();
    let (authority, follower) = (url(&ground().await.authority), url(&ground().await.follower));
    let sides = Sides { authority: &authority, follower: &follower, authority_side: Side::Source, ..databases.sides() };
    let report = databases.verify_between(&sides, &small_chunks()).await;
    assert_eq!(lines(&report), FOUND);
    databases.end().await;
}

/// The statements that run where the stream passes are the follower's own: what comes through the stream only names them.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_nobody_has_prepared_is_noted_and_passed_by() {
    let databases = followed("unprepared").await;
    databases
        .at_authority("INSERT INTO cutover.look (id, statement, keys) VALUES ('x', 'DROP TABLE t', '{{1}}'); DELETE FROM cutover.look")
        .await;
    databases.caught_up().await;
    let row = databases.follower.query_one("SELECT why FROM cutover.look_outcome WHERE id = 'x'", &[]).await.unwrap();
    assert!(row.get::<_, String>(0).contains("no rows"), "{row:?}");
    assert_flows(&databases).await;
    databases.end().await;
}
