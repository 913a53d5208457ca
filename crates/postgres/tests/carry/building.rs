//! What is built on full tables while others are still copied, and what is proved of foreign keys at the end.

use std::sync::Arc;

use cutover_core::{
    Side::{Source, Target},
    Stream,
};
use cutover_postgres::index::Definitions;

use crate::{
    ground::Pair,
    splitting::{HERE, ROWS, SCHEMA, begun, is_followed, release, stand_at, take_away},
};

/// Ready to be copied with its indexes.
async fn ready(name: &str, more: &str) -> Arc<Pair> {
    let mut pair = Pair::new(name).await;
    pair.sql(Source, SCHEMA).await;
    pair.sql(Source, more).await;
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    pair.definitions = Definitions::of(&pair.dump().await.unwrap(), &pair.session(Source).await).await.unwrap();
    Arc::new(pair)
}

/// The names of all indexes of the target's tables, with the files that they lie in.
const BUILT: &str = "SELECT COALESCE(string_agg(c.relname || ' ' || c.relfilenode, ',' ORDER BY c.relname COLLATE \"C\"), '') FROM pg_index i \
     JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = 'public'::regnamespace";

fn names(built: &str) -> Vec<&str> {
    built.split(',').filter_map(|index| index.split_once(' ')).map(|(name, _)| name).collect()
}

/// B3: a table that is full gets its indexes while another is still filled; not before, and none that runs code of the
/// user's, which may read what is not there yet. A copy that is broken off does not build them again.
#[tokio::test]
async fn b3_indexes_are_built_as_soon_as_their_table_is_full() {
    let more = "CREATE INDEX by_n ON big (n); CREATE INDEX plain ON small ((id + 1)) WHERE id > 0; \
        CREATE FUNCTION how_many() RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT count(*) FROM public.big'; \
        CREATE INDEX reading ON small ((id + how_many()))";
    let pair = ready("built_early", more).await;
    let holder = stand_at(&pair, "id = 5000").await;
    let (copying, progress) = begun(&pair, 1).await;
    let built = format!("SELECT count(*) = 3 FROM ({BUILT}) built (names), regexp_split_to_table(names, ',')");
    pair.wait_for(Target, &built).await;
    let early: String = pair.one(Target, BUILT).await;
    assert_eq!(names(&early), ["nothing_pkey", "plain", "small_pkey"]);
    cutover_testkit::eventually(crate::ground::LIMIT, || async { progress.snapshot().indexes == 3 }).await.unwrap();
    copying.abort();
    assert!(copying.await.unwrap_err().is_cancelled());
    release(&holder).await;
    take_away(&pair).await;
    let gone = format!("SELECT count(*) = 0 FROM pg_locks WHERE {HERE} AND locktype = 'advisory' AND objid = 42");
    pair.wait_for(Target, &gone).await;
    let copied = cutover_postgres::copy::copy_rows(crate::splitting::in_parts(&pair), Arc::default(), async |_| {}).await.unwrap();
    assert_eq!((copied.rows, copied.indexes), (ROWS + 2, 2), "the large table's, and nothing twice");
    let built: String = pair.one(Target, BUILT).await;
    assert_eq!(names(&built), ["big_pkey", "by_n", "nothing_pkey", "plain", "small_pkey"]);
    assert!(early.split(',').all(|index| built.contains(index)), "{early} in {built}");
    is_followed(&pair).await;
    let how_many = "SELECT indexdef LIKE '%how_many%' FROM pg_indexes WHERE indexname = 'reading'";
    assert!(pair.one::<bool>(Target, how_many).await);
}

/// A foreign key is as it was: proved, not proved, deferrable, of a partitioned table, to itself, from both sides.
#[tokio::test]
async fn b4_foreign_keys_are_made_first_and_proved_in_parallel() {
    let more = "CREATE TABLE \"Parts\" (id int, day int, big int CONSTRAINT \"to big\" REFERENCES big ON DELETE CASCADE, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); \
        CREATE TABLE parts_1 PARTITION OF \"Parts\" FOR VALUES FROM (0) TO (10); INSERT INTO \"Parts\" VALUES (1, 1, 7); \
        CREATE TABLE of_parts (id int, day int, other int CONSTRAINT around REFERENCES small DEFERRABLE INITIALLY DEFERRED, \
            CONSTRAINT \"of; parts\" FOREIGN KEY (id, day) REFERENCES \"Parts\" MATCH FULL); INSERT INTO of_parts VALUES (1, 1, 2); \
        ALTER TABLE small ADD CONSTRAINT back FOREIGN KEY (id) REFERENCES big NOT VALID; INSERT INTO big (id, n) VALUES (0, 0); \
        ALTER TABLE big ADD CONSTRAINT itself FOREIGN KEY (n) REFERENCES big";
    let pair = ready("proved_later", more).await;
    let keys = "SELECT string_agg(conrelid::regclass || ' ' || conname || ' ' || convalidated || ' ' || pg_get_constraintdef(oid), E'\\n' \
        ORDER BY conrelid::regclass::text COLLATE \"C\", conname COLLATE \"C\") FROM pg_constraint WHERE contype = 'f' AND conparentid = 0";
    pair.copy_rows().await.unwrap();
    pair.indexes().await.unwrap();
    let (source, target): (String, String) = (pair.one(Source, keys).await, pair.one(Target, keys).await);
    assert_eq!(source, target);
    assert_eq!((source.lines().count(), source.matches(" false ").count()), (5, 1), "{source}");
    pair.sql(Target, "DELETE FROM of_parts; ALTER TABLE of_parts DROP CONSTRAINT \"of; parts\"; INSERT INTO of_parts VALUES (5, 5, 1)")
        .await;
    let error = pair.indexes().await.unwrap_err().to_string();
    crate::ground::assert_says(&error, &["building fk constraint of_parts of; parts", "23503", "(5, 5)"]);
    pair.sql(Target, "DELETE FROM of_parts; INSERT INTO of_parts VALUES (1, 1, 2)").await;
    pair.indexes().await.unwrap();
    assert_eq!(pair.one::<String>(Target, keys).await, source);
    pair.assert_equal().await;
    pair.drop_streams().await;
}

/// Publications of others, with what is in them; ours stay where they are.
#[tokio::test]
async fn publications_of_others_are_carried_and_ours_are_not() {
    let more = "CREATE PUBLICATION \"some; tables\" FOR TABLE small, big WITH (publish = 'insert'); CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); \
        CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA s; CREATE PUBLICATION everything FOR ALL TABLES; \
        CREATE PUBLICATION few FOR TABLE big (id, v) WHERE (id > 7)";
    let pair = ready("publishing", more).await;
    pair.copy_rows().await.unwrap();
    for _ in 0..2 {
        pair.indexes().await.unwrap();
    }
    let of_others = "SELECT string_agg(p.pubname || ' ' || p.puballtables || p.pubinsert || p.pubdelete || ' ' || COALESCE(t.tables, ''), E'\n' ORDER BY p.pubname) \
        FROM pg_publication p LEFT JOIN (SELECT pubname, string_agg(tablename || ' ' || attnames::text || COALESCE(rowfilter, ''), ',' ORDER BY tablename) AS tables \
            FROM pg_publication_tables WHERE schemaname <> 'cutover' GROUP BY pubname) t USING (pubname) WHERE pubname NOT LIKE 'cutover%'";
    let (source, target): (String, String) = (pair.one(Source, of_others).await, pair.one(Target, of_others).await);
    assert_eq!(source, target);
    assert_eq!(source.lines().count(), 4, "{source}");
    assert_eq!(pair.one::<i64>(Target, "SELECT count(*) FROM pg_publication WHERE pubname LIKE 'cutover%'").await, 0);
    pair.assert_equal().await;
    pair.drop_streams().await;
}

/// What was read for the copy serves for the rest of the definitions, unless the source was given more since.
#[tokio::test]
async fn b3_definitions_are_read_anew_if_and_only_if_there_are_others() {
    let more = "CREATE VIEW seen AS SELECT id FROM small; CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
        CREATE FUNCTION nothing_at_all() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'";
    let pair = ready("defined_since", more).await;
    let source = pair.session(Source).await;
    let current = async || pair.definitions.are_current(&pair.session(Source).await).await.unwrap();
    for same in [
        "INSERT INTO small VALUES (77)",
        "UPDATE small SET id = 78 WHERE id = 77",
        "ANALYZE",
        "VACUUM",
        "CREATE PUBLICATION cutover_x_forward",
    ] {
        source.batch_execute(same).await.unwrap();
        assert!(current().await, "nothing is defined by {same}");
    }
    for other in [
        "CREATE INDEX late ON small ((id * 2))",
        "COMMENT ON INDEX late IS 'made late'",
        "ALTER TABLE small ADD CONSTRAINT positive CHECK (id > -1000)",
        "ALTER TABLE small ALTER COLUMN id SET STATISTICS 77",
        "GRANT SELECT ON small TO PUBLIC",
        "GRANT SELECT (id) ON big TO PUBLIC",
        "CREATE RULE r AS ON DELETE TO seen DO INSTEAD NOTHING",
        "CREATE TRIGGER t BEFORE INSERT ON small FOR EACH ROW EXECUTE FUNCTION other()",
        "ALTER TABLE small DISABLE TRIGGER t",
        "CREATE POLICY p ON small",
        "CREATE STATISTICS st ON id, n FROM big",
        "CREATE PUBLICATION theirs",
        "ALTER PUBLICATION theirs ADD TABLE small",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "CREATE EVENT TRIGGER ev ON ddl_command_start WHEN TAG IN ('DROP CAST') EXECUTE FUNCTION nothing_at_all()",
        "DROP POLICY p ON small",
    ] {
        let before = Definitions::of(&pair.dump().await.unwrap(), &source).await.unwrap();
        assert!(before.are_current(&source).await.unwrap(), "before {other}");
        source.batch_execute(other).await.unwrap();
        assert!(!before.are_current(&source).await.unwrap(), "after {other}");
    }
    pair.copy_rows().await.unwrap();
    pair.indexes().await.unwrap();
    let late: String = pair.one(Target, "SELECT obj_description('public.late'::regclass)").await;
    assert_eq!(late, "made late", "what was defined after the copy had read comes along");
}
