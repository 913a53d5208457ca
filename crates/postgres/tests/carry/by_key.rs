//! The copy of large tables in parts where ranges of pages can't be read: by ranges of their keys.

use std::sync::Arc;

use cutover_core::{Side::Source, Side::Target, Snapshot, Stream};
use cutover_postgres::copy::copy_rows;

use crate::{ground::Pair, splitting::in_parts};

/// A type, and a key of that type for each n.
const KEYS: [(&str, &str); 7] = [
    ("smallint", "n - 5000"),
    ("integer", "(n - 5000) * 400000"),
    ("bigint", "(n::bigint - 5000) * 1000000000000000"),
    ("numeric", "CASE n WHEN 7 THEN 'NaN' ELSE (n - 5000) / 7.0 END"),
    ("uuid", "md5(n::text)::uuid"),
    ("text", r#"chr(33 + n % 90) || CASE n % 3 WHEN 0 THEN '''' WHEN 1 THEN '\' ELSE 'é" ' END || n"#),
    ("varchar(40)", "CASE n WHEN 5 THEN '' ELSE chr(955) || n END"),
];

/// Keys of each type that a table is cut by, with all that sorts oddly in them; and one whose rows moved to other pages.
#[tokio::test]
async fn b3_a_server_that_reads_no_ranges_of_pages_is_read_by_ranges_of_keys() {
    let pair = Pair::between(13, 18, "split_by_key").await;
    for (at, (of, key)) in KEYS.iter().enumerate() {
        let sql = format!(
            r#"CREATE TABLE t{at} (v text, "the ""key" {of}, n int, PRIMARY KEY ("the ""key", n));
            INSERT INTO t{at} SELECT repeat('v', 100), {key}, n FROM generate_series(1, 10000) n; ANALYZE t{at};
            INSERT INTO t{at} SELECT 'later', {key}, n FROM generate_series(10001, 10100) n"#
        );
        pair.sql(Source, &sql).await;
    }
    pair.schema().await;
    pair.publish(Stream::Forward).await;
    let copied = copy_rows(in_parts(&pair), Arc::default(), async |_: Snapshot| {
        pair.sql(Source, "DELETE FROM t1 WHERE n % 3 = 0").await;
        pair.sql(Source, "VACUUM FULL t1").await;
    });
    assert_eq!(copied.await.unwrap().rows, 7 * 10_100);
    for at in 0..KEYS.len() {
        let parts: i64 = pair.one(Target, &format!("SELECT count(DISTINCT xmin::text) FROM t{at}")).await;
        assert!(parts > 20, "t{at}: {parts}");
    }
    pair.indexes().await.unwrap();
    pair.follow(Stream::Forward).await;
    pair.caught_up(Stream::Forward).await;
    pair.assert_equal().await;
    pair.drop_streams().await;
}
