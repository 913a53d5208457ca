//! What can't be moved is refused by name, with the way out.

use cutover_core::Side::Source;
use cutover_postgres::preflight::{
    Fix,
    Severity::{Error, Warning},
};
use cutover_testkit::install;

use crate::support::{Case, shared_pair, start_pair};

/// The target is the source of the way back. Found only there, it would be after the copy.
#[tokio::test]
async fn a_whole_row_that_identifies_none_at_the_other_side_is_found_at_the_source() {
    let pair = shared_pair().await;
    let mut case = Case::with_table(pair, "computed_whole").await;
    let sql = "CREATE TABLE public.t (a int, g int GENERATED ALWAYS AS (a + 1) STORED); ALTER TABLE public.t REPLICA IDENTITY FULL; \
         CREATE TABLE public.u (a int, g int GENERATED ALWAYS AS (a + 1) STORED)";
    case.sql(Source, sql).await;
    if pair.target.install().major >= 18 {
        let words = ["public.t: REPLICA IDENTITY FULL, and generated columns", "public.u: no primary key"];
        let finding = case.find("replica_identity", Error, Source, &words).await;
        let Some(Fix::Sql { text, .. }) = &finding.fix else { panic!("{finding:?}") };
        assert!(text.contains("-- public.t: add a key") && text.contains("-- public.u: add a key"), "never FULL: {text}");
    }
    case.plan.switch.reverse = false;
    case.refute("replica_identity", Error, Source, &["public.t"]).await;
}

#[tokio::test]
async fn an_exclusion_constraint_of_a_partitioned_table_is_refused_and_can_come_back() {
    let newest = install(18).unwrap();
    let pair = start_pair(&newest, &newest, &|options| options).await;
    let case = Case::with_table(&pair, "excluding").await;
    let sql = "CREATE TABLE public.\"the rooms\" (room int4range, during tstzrange, PRIMARY KEY (room, during), \
             CONSTRAINT \"no overlap\" EXCLUDE USING gist (room WITH =, during WITH &&)) PARTITION BY LIST (room); \
         CREATE TABLE public.rooms_1 PARTITION OF public.\"the rooms\" FOR VALUES IN ('[1,2)'); \
         CREATE TABLE public.unparted (room int4range PRIMARY KEY, EXCLUDE USING gist (room WITH &&)); \
         CREATE TABLE public.hollow (room int4range PRIMARY KEY, EXCLUDE USING gist (room WITH =)) PARTITION BY LIST (room)";
    case.sql(Source, sql).await;
    let finding = case.find_and_mend("partitions", Error, Source, &["public.\"the rooms\": \"no overlap\" EXCLUDE USING gist"]).await;
    assert_eq!(finding.evidence.len(), 1, "one of a plain table, or without partitions, can be made: {finding:?}");
    let Some(Fix::Sql { text, .. }) = &finding.fix else { panic!("{finding:?}") };
    let again = text.lines().find_map(|line| line.strip_prefix("-- when the switch is done: ")).unwrap();
    case.sql(Source, again).await;
    case.find("partitions", Error, Source, &["no overlap"]).await;
}

/// A dump of definitions holds no rows, and the stream leaves out what an extension owns.
#[tokio::test]
async fn rows_in_a_table_of_an_extension_are_named() {
    let case = Case::with_table(shared_pair().await, "extended").await;
    let sql = "CREATE EXTENSION hstore; CREATE TABLE public.settings (id int PRIMARY KEY); CREATE TABLE public.hollow (id int PRIMARY KEY); \
         ALTER EXTENSION hstore ADD TABLE public.settings; ALTER EXTENSION hstore ADD TABLE public.hollow; INSERT INTO public.settings VALUES (1)";
    case.sql(Source, sql).await;
    let finding = case.find("not_moved", Warning, Source, &["no row of theirs moves", "settings of hstore"]).await;
    assert_eq!(finding.evidence.len(), 1, "{finding:?}");
}

#[tokio::test]
async fn a_function_that_needs_the_applications_search_path_is_named_and_mended() {
    let case = Case::with_table(shared_pair().await, "searching").await;
    let sql = "CREATE FUNCTION public.helper(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT left($1, 3)'; \
         CREATE FUNCTION public.short(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN helper($1); END'; \
         CREATE FUNCTION public.known(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN public.helper($1); \
         CREATE DOMAIN public.three AS text CONSTRAINT is_short CHECK (public.helper(VALUE) = VALUE); \
         CREATE TABLE public.t (id int PRIMARY KEY, v text, s text GENERATED ALWAYS AS (public.short(v)) STORED, k text GENERATED ALWAYS AS (public.known(v)) STORED); \
         CREATE INDEX by_helper ON public.t (public.helper(v))";
    case.sql(Source, sql).await;
    let words = ["public.helper(text), called by constraint is_short of public.three", "public.short(text), called by column public.t.s"];
    let finding = case.find_and_mend("search_path", Warning, Source, &words).await;
    assert_eq!(finding.evidence.len(), 2, "one that was parsed when it was made knows what it names: {finding:?}");
    case.refute("search_path", Warning, Source, &[]).await;
}
