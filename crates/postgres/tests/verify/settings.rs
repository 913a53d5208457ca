//! What a plan says of single tables: smaller chunks, and columns whose values are never shown.

use std::collections::BTreeMap;

use cutover_postgres::{
    catalogue::QualifiedName,
    verify::{Options, Verdict},
};

use crate::ground::{Databases, small_chunks};

fn named(name: &str) -> QualifiedName {
    QualifiedName { schema: "public".to_owned(), name: name.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_redacted_columns_are_never_shown() {
    let databases = Databases::new("redacted").await;
    databases
        .both(
            "CREATE TABLE people (email text PRIMARY KEY, body text); INSERT INTO people VALUES ('ann@example.com', 'secret'), ('bob@example.com', 'secret'); \
             CREATE TABLE parts (id int, email text, PRIMARY KEY (id, email)) PARTITION BY LIST (id); CREATE TABLE part_1 PARTITION OF parts DEFAULT; \
             INSERT INTO parts VALUES (1, 'ann@example.com')",
        )
        .await;
    databases
        .at_follower(
            "UPDATE people SET body = 'hidden' WHERE email LIKE 'ann%'; DELETE FROM people WHERE email LIKE 'bob%'; DELETE FROM parts",
        )
        .await;
    databases.at_authority("CREATE TABLE mixed (email text PRIMARY KEY); INSERT INTO mixed VALUES ('ann@example.com')").await;
    databases.at_follower("CREATE TABLE mixed (email int PRIMARY KEY); INSERT INTO mixed VALUES (5)").await;
    let redact = ["public.people.email", "public.people.body", "public.parts.*", "*.mixed.email"].map(str::to_owned).to_vec();
    let shown = databases.verify(&small_chunks()).await;
    assert!(format!("{shown:?}").contains("@example.com"), "{shown:#?}");
    let report = databases.verify(&Options { redact, ..small_chunks() }).await;
    assert_eq!((report.verdict(), report.differences_total), (Verdict::Different, shown.differences_total), "{report:#?}");
    let all = format!("{report:?} {}", serde_json::to_string(&report).unwrap());
    for value in ["@example.com", "secret", "hidden"] {
        assert!(!all.contains(value), "{value}: {report:#?}");
    }
    let lines: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
    assert!(lines.contains(&"public.people (email (redacted)): differs in body".to_owned()), "{lines:?}");
    assert!(lines.contains(&"public.part_1 (id (redacted), email (redacted)): missing at the follower".to_owned()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_have_chunks_of_its_own_size() {
    let databases = Databases::new("sized").await;
    let rows = "INSERT INTO wide SELECT generate_series(1, 100); INSERT INTO plain SELECT generate_series(1, 100); INSERT INTO parts SELECT generate_series(1, 100)";
    databases
        .both(&format!(
            "CREATE TABLE wide (id int PRIMARY KEY); CREATE TABLE plain (id int PRIMARY KEY); \
             CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE part_1 PARTITION OF parts DEFAULT; {rows}"
        ))
        .await;
    let options = Options { chunk_rows: 100, ..small_chunks() };
    let few = databases.verify(&options).await.chunks;
    let chunk_rows_of = BTreeMap::from([(named("wide"), 10), (named("parts"), 50)]);
    let report = databases.verify(&Options { chunk_rows_of, ..options }).await;
    assert_eq!((report.verdict(), report.rows), (Verdict::Equal, 300));
    assert_eq!(report.chunks, few + 9 + 1, "ten chunks instead of one, and two instead of one: {report:#?}");
}
