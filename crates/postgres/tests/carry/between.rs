//! The copy of a large table in parts, and a change of the source's that comes between them.

use std::sync::Arc;

use cutover_core::{
    Side::{Source, Target},
    Stream,
};
use cutover_postgres::{
    PgResult,
    copy::{Copied, Progress},
};

use crate::{
    ground::{LIMIT, Pair, assert_says},
    splitting::{HERE, ROWS, TRANSACTIONS, begun, ready, release, stand_at, take_away},
};

/// A change of the source's that waits for the parts that stand, and comes before all others.
async fn between_parts(pair: &Arc<Pair>, change: &str) -> (PgResult<Copied>, Arc<Progress>) {
    let holder = stand_at(pair, "id % 500 = 0").await;
    let (copying, progress) = begun(pair, 3).await;
    let changes = async {
        pair.sql(Source, change).await;
    };
    let waits = format!(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE {HERE} AND relation = 'big'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted)"
    );
    let ((), ()) = tokio::join!(changes, async {
        pair.wait_for(Source, &waits).await;
        release(&holder).await;
    });
    let copied = tokio::time::timeout(LIMIT, copying).await.unwrap().unwrap();
    (copied, progress)
}

/// VACUUM FULL and CLUSTER move rows to other pages, so that parts before and after do not fit together: rows would come
/// twice or never. Within one statement the snapshot sees each row once.
#[tokio::test]
async fn a_table_that_is_written_anew_between_its_parts_is_copied_as_a_whole() {
    for (name, change) in [("full", "VACUUM FULL big"), ("cluster", "CLUSTER big USING backwards")] {
        let pair = ready(&format!("moved_by_{name}")).await;
        pair.sql(Source, "CREATE INDEX backwards ON big (n DESC); UPDATE big SET v = 'w' WHERE id % 2 = 0").await;
        let (copied, progress) = between_parts(&pair, change).await;
        assert_eq!(copied.unwrap().rows, ROWS + 2, "{change}");
        let end = progress.snapshot();
        assert_eq!((end.rows, end.tables_done, end.bytes_total), (ROWS + 2, 3, end.bytes), "{end:?}");
        assert_eq!(pair.one::<i64>(Target, TRANSACTIONS).await, 1, "as a whole");
        take_away(&pair).await;
        pair.assert_equal().await;
        pair.drop_streams().await;
    }
}

/// An older snapshot finds a truncated table empty; the truncation itself comes through the stream.
#[tokio::test]
async fn a_table_that_is_truncated_between_its_parts_arrives_equal() {
    let pair = ready("truncated_between").await;
    let (copied, progress) = between_parts(&pair, "TRUNCATE big; INSERT INTO big SELECT generate_series(1, 50)").await;
    assert_eq!((copied.unwrap().rows, progress.snapshot().rows), (2, 2));
    take_away(&pair).await;
    pair.indexes().await.unwrap();
    pair.follow(Stream::Forward).await;
    pair.caught_up(Stream::Forward).await;
    assert_eq!(pair.assert_equal().await["\"public\".\"big\""], 50);
    pair.drop_streams().await;
}

#[tokio::test]
async fn a_table_that_is_altered_between_its_parts_is_an_error_and_never_half_a_copy() {
    let pair = ready("altered_between").await;
    let (copied, _) = between_parts(&pair, "ALTER TABLE big ALTER n TYPE bigint").await;
    assert_says(&copied.unwrap_err().to_string(), &["copying public.big", "copy anew"]);
    pair.drop_streams().await;
}
