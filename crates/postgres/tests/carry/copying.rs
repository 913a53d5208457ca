//! The copy of the rows: every kind of value and table arrives as it was.

use cutover_core::Side::{Source, Target};
use cutover_postgres::verify::{Options, Progress, Sides, Verdict, verify};
use cutover_testkit::schemas::{EDGES, KINDS, OWN, OWN_ROWS, SHAPES};

use crate::ground::Pair;

/// The same without what names an object of the database, so that it is sent in its binary form.
const BINARY: &str = "
    CREATE TABLE plain AS TABLE kinds;
    ALTER TABLE plain DROP o, DROP cls, DROP typ, DROP proc, DROP ns, DROP rol, DROP cfg, DROP ov, DROP iv2, DROP ca;
    CREATE TABLE vectors AS SELECT id, ov, iv2 FROM kinds;
";

/// Values that are stored out of line, compressed and not, and rows of many of them.
const LARGE: &str = "
    CREATE TABLE large (id int PRIMARY KEY, zeros text, noise text, raw bytea, plain text);
    ALTER TABLE large ALTER noise SET STORAGE EXTERNAL, ALTER plain SET STORAGE MAIN;
    INSERT INTO large SELECT n, repeat('x', n * 6000000), (SELECT string_agg(md5(n || ':' || i), '') FROM generate_series(1, 150000) i),
        decode(repeat('00ff', n * 400000), 'hex'), repeat(md5(n::text), 300) FROM generate_series(1, 3) n;
";

#[tokio::test]
async fn every_type_arrives_equal() {
    let pair = Pair::new("types").await;
    for sql in [OWN, KINDS, EDGES, BINARY, OWN_ROWS, LARGE] {
        pair.sql(Source, sql).await;
    }
    pair.carry().await;
    let rows = pair.assert_equal().await;
    assert_eq!((rows["\"public\".\"own\""], rows["\"public\".\"moody\""], rows["\"public\".\"large\""]), (130, 3, 3));
    assert_eq!(rows["\"public\".\"kinds\""], 8 + 127 + 14 + 3 + 4 + 4 + 2 + 5 + 2 + 4 + 2 + 2 + 2);
    assert_eq!(
        (rows["\"public\".\"plain\""], rows["\"public\".\"vectors\""]),
        (rows["\"public\".\"kinds\""], rows["\"public\".\"kinds\""])
    );
    let report = verify_still(&pair).await;
    assert_eq!(report.verdict(), Verdict::Equal, "{report:#?}");
    let generated = "SELECT count(*) FROM kinds WHERE twice IS NOT DISTINCT FROM n * 2";
    assert_eq!(pair.one::<i64>(Target, generated).await, rows["\"public\".\"kinds\""]);
}

async fn verify_still(pair: &Pair) -> cutover_postgres::verify::Report {
    let sides = Sides { authority: &pair.source_url, follower: &pair.target_url, authority_side: Source, following: None };
    verify(&sides, &pair.names, &Options::default(), &Progress::default()).await.unwrap()
}

#[tokio::test]
async fn every_shape_of_table_arrives_equal() {
    let pair = Pair::new("Shapes of \"tables\"").await;
    pair.sql(Source, SHAPES).await;
    pair.schema().await;
    pair.publish(cutover_core::Stream::Forward).await;
    let copied = pair.copy_rows().await.unwrap();
    pair.indexes().await.unwrap();
    pair.sql(Target, "INSERT INTO volatile VALUES (1)").await;
    let rows = pair.assert_equal().await;
    assert_eq!(copied.rows, rows.values().sum::<i64>().cast_unsigned() - 1, "all but the unlogged one");
    assert_eq!(copied.tables, rows.len() as u64 - 1);
    let row_count = |table: &str| rows[&format!("\"public\".\"{table}\"")];
    assert_eq!((row_count("bare"), row_count("hollow"), row_count("nothing"), row_count("parent"), row_count("child")), (7, 5, 0, 2, 1));
    assert_eq!(rows.keys().filter(|table| table.contains("measured")).map(|table| rows[table]).sum::<i64>(), 400);
    assert!(row_count("measured_2_a_1") > 0 && row_count("measured_2_rest") > 0 && row_count("measured_rest") > 0);
}
