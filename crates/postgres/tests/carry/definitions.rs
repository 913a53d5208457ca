//! The definitions: everything that a schema holds is at the target, however often it was begun.

use cutover_core::{
    Side::{self, Source, Target},
    Stream,
};
use cutover_postgres::{PgError, gate, tools::Tools};
use cutover_testkit::{
    compare, eventually,
    schemas::{AWKWARD, EVERYTHING, ROLES},
};

use crate::ground::{EPOCH, LIMIT, Pair, assert_says, soon, tools};

/// A database that holds one of everything.
async fn one_of_each(pair: &Pair) {
    for side in Side::BOTH {
        pair.sql(side, ROLES).await;
    }
    compare::script(pair.source_server, &pair.database, EVERYTHING).await.unwrap();
}

/// And what is worse.
async fn everything(pair: &Pair) {
    one_of_each(pair).await;
    compare::script(pair.source_server, &pair.database, AWKWARD).await.unwrap();
}

async fn dump(pair: &Pair, side: Side) -> Vec<String> {
    compare::definitions(pair.server(side), &pair.database, true).await.unwrap()
}

#[track_caller]
fn assert_same(source: &[String], target: &[String]) {
    let only =
        |these: &[String], those: &[String]| these.iter().filter(|one| !those.contains(one)).cloned().collect::<Vec<_>>().join("\n\n");
    let (lacking, extra) = (only(source, target), only(target, source));
    assert!(lacking.is_empty() && extra.is_empty(), "only at the source:\n{lacking}\n\nonly at the target:\n{extra}");
    assert_eq!(source.len(), target.len());
}

async fn assert_same_definitions(pair: &Pair) -> usize {
    let (source, target) = (dump(pair, Source).await, dump(pair, Target).await);
    assert_same(&source, &target);
    source.len()
}

#[tokio::test]
async fn everything_that_a_schema_holds_is_at_the_target() {
    let pair = Pair::new("everything").await;
    everything(&pair).await;
    pair.carry().await;
    let definitions = assert_same_definitions(&pair).await;
    assert!(definitions > 330, "{definitions}");
    let rows = pair.assert_equal().await;
    assert_eq!((rows["\"app\".\"people\""], rows["\"app\".\"events_rest\""]), (50, 22));
    assert_eq!(pair.one::<i64>(Target, "SELECT n::bigint FROM app.m1").await, 50, "a view of a view holds rows");
    assert!(!pair.one::<bool>(Target, "SELECT relispopulated FROM pg_class WHERE relname = 'empty_yet'").await);
    let invalid = "SELECT string_agg(conname, ',' ORDER BY conname) FROM pg_constraint WHERE NOT convalidated";
    assert_eq!(pair.one::<String>(Target, invalid).await, "fresh,unsure");
    assert!(
        pair.one::<bool>(Target, "SELECT bool_and(last_analyze IS NOT NULL) FROM pg_stat_user_tables WHERE relname IN ('egg', 'base')")
            .await
    );
    for side in Side::BOTH {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pg_dump%'";
        assert_eq!(pair.one::<i64>(side, left).await, 0);
    }
}

/// Done again from the start, and from the middle, it comes to the same.
#[tokio::test]
async fn each_part_can_be_done_twice() {
    let pair = Pair::new("twice").await;
    everything(&pair).await;
    pair.schema().await;
    pair.try_schema(EPOCH).await.unwrap();
    gate::arm(&mut pair.driver(Target).await, EPOCH, soon()).await.unwrap();
    pair.publish(Stream::Forward).await;
    pair.copy_rows().await.unwrap();
    let first = pair.indexes().await.unwrap();
    let again = pair.indexes().await.unwrap();
    assert_eq!((first.indexes, first.others, first.materialized_views), (again.indexes, again.others, again.materialized_views));
    assert_eq!(again.materialized_views, 3);
    assert_same_definitions(&pair).await;
    // With everything built, a new beginning drops it all first.
    pair.try_schema(EPOCH).await.unwrap();
    gate::arm(&mut pair.driver(Target).await, EPOCH, soon()).await.unwrap();
    assert_eq!(pair.publish(Stream::Forward).await, [""; 0]);
    pair.copy_rows().await.unwrap();
    pair.indexes().await.unwrap();
    assert_same_definitions(&pair).await;
    pair.assert_equal().await;
    pair.drop_streams().await;
}

/// A build that is broken off leaves whole indexes only; the next one builds the others.
#[tokio::test]
async fn a_build_that_is_broken_off_goes_on_where_it_was() {
    let pair = std::sync::Arc::new(Pair::new("broken_build").await);
    one_of_each(&pair).await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    pair.copy_rows().await.unwrap();
    let obstacle = pair.session(Target).await;
    let waiting = format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock' AND datname = current_database()",
        pair.names.application("indexes")
    );
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}' AND datname = current_database()",
        pair.names.application("indexes")
    );
    for dropped in [true, false] {
        obstacle.batch_execute("BEGIN; LOCK TABLE app.people IN ROW EXCLUSIVE MODE").await.unwrap();
        let shared = std::sync::Arc::clone(&pair);
        let building = tokio::spawn(async move { shared.indexes().await });
        pair.wait_for(Target, &waiting).await;
        if dropped {
            building.abort();
            assert!(building.await.unwrap_err().is_cancelled());
        } else {
            pair.sql(Target, &end).await;
            let error = building.await.unwrap().unwrap_err();
            assert_says(&error.to_string(), &["building", "eople"]);
            assert!(error.is_disconnect(), "{error}");
        }
        obstacle.batch_execute("ROLLBACK").await.unwrap();
    }
    pair.indexes().await.unwrap();
    assert_same_definitions(&pair).await;
    assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM pg_index WHERE NOT indisvalid").await, 0);
    pair.drop_streams().await;
}

#[tokio::test]
async fn an_index_that_cannot_be_built_is_named() {
    let pair = Pair::new("unbuildable").await;
    pair.sql(
        Source,
        "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE UNIQUE INDEX \"only once\" ON t (v); INSERT INTO t VALUES (1, 1), (2, 2)",
    )
    .await;
    pair.sql(Source, "CREATE TABLE u (id int PRIMARY KEY, t int CONSTRAINT points_at_t REFERENCES t)").await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    pair.copy_rows().await.unwrap();
    pair.sql(Target, "INSERT INTO t VALUES (3, 2)").await;
    assert_says(&pair.indexes().await.unwrap_err().to_string(), &["building index only once", "(v)=(2)", "23505"]);
    pair.sql(Target, "DELETE FROM t WHERE id = 3; INSERT INTO u VALUES (1, 99)").await;
    assert_says(&pair.indexes().await.unwrap_err().to_string(), &["building fk constraint u points_at_t", "23503"]);
    pair.sql(Target, "DELETE FROM u").await;
    pair.indexes().await.unwrap();
    assert_same_definitions(&pair).await;
    pair.drop_streams().await;
}

/// Where a tablespace is set for one index, the next one does not inherit it.
#[tokio::test]
async fn indexes_lie_in_the_tablespaces_that_they_were_in() {
    let pair = Pair::new("tablespaces").await;
    for side in Side::BOTH {
        let client = pair.session(side).await;
        client.batch_execute("SET allow_in_place_tablespaces = on").await.unwrap();
        client.batch_execute("CREATE TABLESPACE df_fast LOCATION ''").await.unwrap();
    }
    pair.sql(Source, "CREATE TABLE t (id int PRIMARY KEY, v int) TABLESPACE df_fast").await;
    for n in 0..12 {
        let place = if n % 3 == 1 { "TABLESPACE df_fast" } else { "" };
        pair.sql(
            Source,
            &format!(
                "CREATE INDEX i{n} ON t (v) {place}; CREATE TABLE t{n} (id int PRIMARY KEY USING INDEX TABLESPACE pg_default) {place}"
            ),
        )
        .await;
    }
    pair.carry().await;
    let places = "SELECT string_agg(relname || COALESCE((SELECT spcname FROM pg_tablespace s WHERE s.oid = reltablespace), ''), ',' ORDER BY relname) \
         FROM pg_class WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace";
    assert_eq!(pair.one::<String>(Source, places).await, pair.one::<String>(Target, places).await);
    pair.drop_streams().await;
    for cluster in [pair.source_server, pair.target_server] {
        cluster.execute("postgres", &format!("DROP DATABASE {} WITH (FORCE)", pair.database)).await.unwrap();
        cluster.execute("postgres", "DROP TABLESPACE df_fast").await.unwrap();
    }
}

/// Definitions are written in the target's encoding, whatever the source's is.
#[tokio::test]
async fn definitions_in_another_encoding_arrive() {
    let mut pair = Pair::new("not_utf8").await;
    let latin = "CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    pair.source_server.execute("postgres", latin).await.unwrap();
    pair.source_url.database = "latin1".to_owned();
    let source = pair.source_server.client("latin1").await.unwrap();
    let sql = "CREATE TABLE \"Größe\" (\"käse\" text DEFAULT 'é' PRIMARY KEY); COMMENT ON TABLE \"Größe\" IS 'ÿ'; INSERT INTO \"Größe\" VALUES ('über')";
    source.batch_execute(sql).await.unwrap();
    pair.install().await;
    pair.try_schema(EPOCH).await.unwrap();
    pair.publish(Stream::Forward).await;
    assert_eq!(pair.copy_rows().await.unwrap().rows, 1);
    pair.indexes().await.unwrap();
    assert_eq!(pair.one::<String>(Target, "SELECT \"käse\" || obj_description('\"Größe\"'::regclass) FROM \"Größe\"").await, "überÿ");
    pair.drop_streams().await;
}

#[tokio::test]
async fn tables_that_are_not_our_copy_are_never_dropped() {
    let pair = Pair::new("strangers").await;
    pair.sql(Source, "CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.sql(Target, "CREATE TABLE stranger (id int PRIMARY KEY); INSERT INTO stranger VALUES (1)").await;
    pair.install().await;
    let error = pair.try_schema(EPOCH).await.unwrap_err();
    assert!(matches!(&error, PgError::Refused { what, .. } if what.contains("public.stranger")), "{error}");
    assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM stranger").await, 1);
    pair.sql(Target, "DROP TABLE stranger").await;
    pair.try_schema(EPOCH).await.unwrap();
}

/// What a migration made at the target is neither in the way of what follows, nor dropped by it.
#[tokio::test]
async fn what_a_migration_made_stays() {
    let pair = Pair::new("migrated").await;
    pair.sql(Source, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    pair.carry().await;
    pair.sql(Target, "CREATE TABLE made (id int PRIMARY KEY); INSERT INTO made VALUES (1); ALTER TABLE t ADD extra text DEFAULT 'e'").await;
    pair.indexes().await.unwrap();
    pair.follow(Stream::Forward).await;
    pair.sql(Source, "INSERT INTO t VALUES (2)").await;
    pair.caught_up(Stream::Forward).await;
    assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM t, made WHERE extra = 'e'").await, 2);
    assert_eq!(pair.check(Stream::Forward).await, [""; 0]);
    let published = pair.publish(Stream::Reverse).await;
    let expected = ["added \"public\".\"t\"", "added \"cutover\".\"marker\"", "added \"cutover\".\"look\""];
    assert_eq!(published, expected, "what only the target has, has nowhere to go");
    pair.drop_streams().await;
}

/// A driver that lost the cutover can neither define nor build, even where nothing is to be built.
#[tokio::test]
async fn an_older_epoch_defines_and_builds_nothing() {
    let pair = Pair::new("defining_late").await;
    pair.sql(Source, "CREATE SCHEMA s; CREATE TABLE s.t (id int)").await;
    pair.install().await;
    gate::guard(&mut pair.driver(Target).await, EPOCH + 1).await.unwrap();
    assert!(matches!(pair.try_schema(EPOCH).await, Err(PgError::Superseded(_))));
    assert!(pair.one::<bool>(Target, "SELECT to_regnamespace('s') IS NULL").await);
    pair.try_schema(EPOCH + 1).await.unwrap();
    let built = pair.try_indexes(EPOCH).await;
    assert!(matches!(built, Err(PgError::Superseded(_))), "{built:?}");
}

/// What the schema is copied with is found, or named with a way to get it.
#[tokio::test]
async fn a_dump_that_fails_says_why() {
    let pair = Pair::new("unreadable").await;
    pair.sql(Source, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut url = pair.source_url.clone();
    url.database = "no such database".to_owned();
    let found = Tools::find(15, 18, &tools()).await.unwrap();
    assert_eq!(found.major, 18, "the smallest that both understand");
    let error = found.run("pg_dump", &url, &["--schema-only"], Some(LIMIT)).await.unwrap_err();
    assert_says(&error.to_string(), &["pg_dump failed", "no such database"]);
    let obstacle = pair.session(Source).await;
    obstacle.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let limit = Some(std::time::Duration::from_millis(700));
    let error = found.run("pg_dump", &pair.source_url, &["--schema-only"], limit).await.unwrap_err();
    assert!(matches!(error, PgError::TimedOut { .. }), "{error}");
    obstacle.batch_execute("ROLLBACK").await.unwrap();
    // It was killed with its time-out, and holds nothing any more.
    let gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pg_dump%'";
    eventually(LIMIT, || async { pair.one::<bool>(Source, gone).await }).await.unwrap();
}
