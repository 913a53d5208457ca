//! A verification that goes on where an earlier one ended: what was equal counts, what was altered since does not.

use cutover_core::{Lsn, VerifiedTable};
use cutover_postgres::{
    names::Names,
    verify::{Options, Progress, Report, Verdict, verify},
};

use crate::ground::{Databases, lines, small_chunks};

/// The report, and the tables that were found equal, by name.
async fn compared(databases: &Databases, done: &[VerifiedTable]) -> (Report, Vec<VerifiedTable>) {
    let (progress, options) = (Progress::default(), Options { done: done.to_vec(), ..small_chunks() });
    let report = verify(&databases.sides(), &Names::new("test"), &options, &progress).await.unwrap();
    let mut equal = progress.take_equal();
    equal.sort_by(|one, other| one.name.cmp(&other.name));
    (report, equal)
}

fn names(tables: &[VerifiedTable]) -> Vec<&str> {
    tables.iter().map(|table| table.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_equal_counts_and_is_not_compared_again_unless_it_was_altered() {
    let databases = Databases::new("going_on").await;
    let table =
        |name: &str| format!("CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} SELECT generate_series(1, 20), 'v';");
    databases.both(&["same", "wider", "anew", "other"].map(table).concat()).await;
    databases.at_follower("UPDATE other SET v = 'w' WHERE id = 7").await;
    let (report, equal) = compared(&databases, &[]).await;
    assert_eq!((names(&equal), equal[0].rows, equal[0].lsn), (vec!["anew", "same", "wider"], 20, report.lsn));

    // All of them differ now, and the definitions of two are others.
    databases.both("ALTER TABLE wider ADD COLUMN more int; CREATE TABLE next (LIKE anew INCLUDING ALL)").await;
    databases.at_follower("UPDATE wider SET more = 1 WHERE id = 3; DELETE FROM same WHERE id = 5").await;
    databases.at_follower("DROP TABLE anew; ALTER TABLE next RENAME TO anew").await;
    databases.at_authority("DROP TABLE next; DELETE FROM anew WHERE id > 1").await;
    let (again, equal) = compared(&databases, &equal).await;
    assert_eq!(lines(&again), ["anew id=1 missing", "other id=7 differs in v", "wider id=3 differs in more"]);
    assert!(equal.is_empty(), "{equal:?}");
    assert_eq!((again.tables, again.rows, again.lsn), (4, 20 + 20 + 1 + 20, report.lsn), "the claim begins where the first part began");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_which_a_column_is_missing_is_not_done_with() {
    let databases = Databases::new("lacking").await;
    databases.both("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 20)").await;
    databases.at_authority("ALTER TABLE t ADD COLUMN v text DEFAULT 'v'").await;
    let (report, equal) = compared(&databases, &[]).await;
    assert_eq!((lines(&report), names(&equal)), (vec!["t  missing columns v".to_owned()], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_does_not_count() {
    let databases = Databases::new("gone").await;
    let gone = |lsn| VerifiedTable { schema: "public".into(), name: "gone".into(), definition: String::new(), lsn: Lsn(lsn), rows: 9 };
    let (report, _) = compared(&databases, &[gone(1)]).await;
    assert_eq!((report.tables, report.rows, report.verdict()), (0, 0, Verdict::Inconclusive));
    assert!(report.lsn > Lsn(1), "{report:?}");
}
