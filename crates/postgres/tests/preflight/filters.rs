//! What a plan leaves out: patterns that match nothing, and what reaches across the border.

use cutover_core::{
    Side::{self, Source, Target},
    plan::{Filter, Pattern, TableSettings},
};
use cutover_postgres::{
    coverage::{Coverage, left_out},
    preflight::{
        Finding,
        Severity::{self, Error, Info, Warning},
    },
};

use crate::support::{Case, errors, shared_pair};

fn patterns(patterns: &[&str]) -> Vec<Pattern> {
    patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect()
}

fn without(exclude: &[&str]) -> Filter {
    Filter { exclude: patterns(exclude), ..Filter::default() }
}

async fn case(name: &str, exclude: &[&str], sql: &str) -> Case<'static> {
    let mut case = Case::with_table(shared_pair().await, name).await;
    case.sql(Source, sql).await;
    case.plan.tables.filter = without(exclude);
    case
}

/// The filter's findings that block or warn, for messages.
async fn refute_all(case: &Case<'_>, severity: Severity, side: Side) {
    for check in ["tables", "left_out"] {
        case.refute(check, severity, side, &[]).await;
    }
}

#[tokio::test]
async fn a_pattern_that_matches_nothing_is_an_error_and_names_the_nearest() {
    let tables = "CREATE SCHEMA billing; CREATE TABLE billing.invoices (id int PRIMARY KEY); CREATE TABLE public.\"Audit.Log\" (id int PRIMARY KEY); \
        CREATE TABLE public.\"50%_off\" (id int PRIMARY KEY); CREATE TABLE public.\"50 of f\" (id int PRIMARY KEY)";
    let mut case = case("patterns", &["billing.invoice", "public.audit_log", "public.\"50%_off\""], tables).await;
    let words = [
        "match nothing",
        "exclude: billing.invoice; did you mean billing.invoices?",
        "public.audit_log; did you mean public.\"Audit.Log\"?",
    ];
    let finding = case.find("tables", Error, Source, &words).await;
    assert!(!format!("{finding:?}").contains("50%"), "{finding:?}");
    // Decided long ago, it is no reason to stop.
    case.prepared = true;
    case.refute("tables", Error, Source, &["match nothing"]).await;
    case.find("tables", Info, Source, &["match nothing"]).await;
    case.prepared = false;

    case.plan.tables.filter = Filter { include: Some(patterns(&["public.*"])), ..without(&["public.\"50%_off\""]) };
    refute_all(&case, Error, Source).await;
    case.find("tables", Info, Source, &["2 relations", "billing.invoices: table", "public.50%_off: table", "do not exist at the target"])
        .await;
    let client = case.session(Source).await;
    let names: Vec<String> = left_out(&client, &Coverage::of(&case.plan.tables.filter))
        .await
        .unwrap()
        .iter()
        .map(|left_out| left_out.name.to_string())
        .collect();
    assert_eq!(names, ["billing.invoices", "public.50%_off"], "a name is no pattern where it is quoted");

    case.plan.tables.filter = without(&["*.*"]);
    case.find("tables", Error, Source, &["nothing to move"]).await;
}

#[tokio::test]
async fn settings_of_unknown_tables_and_columns_are_errors() {
    let mut case = case("settings", &["public.out"], "CREATE TABLE public.out (id int PRIMARY KEY)").await;
    let settings = |name: &str, redact: &str| TableSettings {
        schema: "public".to_owned(),
        name: name.to_owned(),
        chunk_rows: None,
        redact: vec![redact.to_owned()],
    };
    case.plan.tables.settings = vec![settings("kept", "note"), settings("out", "id")];
    refute_all(&case, Error, Source).await;
    case.find("tables", Info, Source, &["leaves out", "public.out"]).await;
    case.plan.tables.settings = vec![settings("kep", "note"), settings("kept", "notes")];
    let words = ["public.kep: there is no such table; did you mean public.kept?", "no column notes to redact; did you mean note?"];
    case.find("tables", Error, Source, &words).await;
}

#[tokio::test]
async fn foreign_keys_across_the_border_are_found_both_ways() {
    let tables = "CREATE TABLE public.region (id int PRIMARY KEY); CREATE TABLE public.shop (id int PRIMARY KEY, \
        region int CONSTRAINT \"to region\" REFERENCES public.region); CREATE TABLE public.log (id int PRIMARY KEY, shop int REFERENCES public.shop)";
    let mut case = case("border", &["public.region", "public.log"], tables).await;
    case.find("left_out", Error, Source, &["can't be built", "\"to region\" refers to", "region"]).await;
    case.find("left_out", Warning, Source, &["once the target is in charge", "log_shop_fkey"]).await;
    case.plan.tables.cut_foreign_keys = true;
    refute_all(&case, Error, Source).await;
    case.find("left_out", Warning, Target, &["does without them", "\"to region\""]).await;
    case.plan.tables.filter = Filter::default();
    refute_all(&case, Warning, Source).await;
    refute_all(&case, Info, Source).await;
}

#[tokio::test]
async fn a_partition_or_heir_goes_with_its_family() {
    let tables = "CREATE TABLE public.events (at int PRIMARY KEY) PARTITION BY RANGE (at); \
        CREATE TABLE public.events_old PARTITION OF public.events FOR VALUES FROM (0) TO (10); \
        CREATE TABLE public.events_new PARTITION OF public.events FOR VALUES FROM (10) TO (20); \
        CREATE TABLE public.base (id int PRIMARY KEY); CREATE TABLE public.heir (PRIMARY KEY (id)) INHERITS (public.base)";
    let mut case = case("families", &["public.events_old", "public.base"], tables).await;
    let words = ["events_old (left out) is a partition of", "events (covered)", "heir (covered) inherits from", "base (left out)"];
    case.find("left_out", Error, Source, &words).await;
    case.plan.tables.filter = without(&["public.events*", "public.base", "public.heir"]);
    refute_all(&case, Error, Source).await;
    refute_all(&case, Warning, Source).await;
}

#[tokio::test]
async fn what_needs_what_is_left_out_is_named() {
    let tables = "CREATE TABLE public.audit (id serial PRIMARY KEY, note text); CREATE VIEW public.recent AS SELECT note FROM public.audit; \
        CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM public.recent; \
        CREATE FUNCTION public.last(public.audit) RETURNS int LANGUAGE sql RETURN 1; \
        CREATE TABLE public.fed (id int PRIMARY KEY DEFAULT nextval('public.audit_id_seq'), v public.audit); \
        CREATE POLICY seen ON public.kept USING (EXISTS (SELECT FROM public.audit)); \
        CREATE FUNCTION public.write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit (note) VALUES ('x'); RETURN NULL; END $$; \
        CREATE TRIGGER tell AFTER INSERT ON public.kept EXECUTE FUNCTION public.write(); CREATE SEQUENCE public.feed; \
        CREATE TABLE public.one (id int PRIMARY KEY DEFAULT nextval('public.feed')); CREATE TABLE public.two (id int PRIMARY KEY DEFAULT nextval('public.feed'))";
    let mut case = case("needs", &["public.audit", "public.two"], tables).await;
    let words = [
        "can't be made at the target",
        "view public.recent needs table public.audit",
        "function public.last(public.audit) needs type public.audit",
        "default value for column id of table public.fed needs sequence public.audit_id_seq",
        "table public.fed needs type public.audit",
        "policy seen on table public.kept needs table public.audit",
    ];
    let finding = case.find("left_out", Error, Source, &words).await;
    assert!(!finding.evidence.iter().any(|line| line.contains("counted")), "it needs what is there: {finding:#?}");
    case.find("left_out", Warning, Source, &["public.kept: its trigger runs public.write()", "names public.audit"]).await;
    case.find("left_out", Warning, Source, &["take values from them", "public.feed, used by public.two"]).await;

    // The target has it all, without rows.
    case.plan.tables.filter.definitions = true;
    refute_all(&case, Error, Source).await;
    case.find("left_out", Warning, Source, &["finds them without rows", "view public.recent"]).await;
    case.refute("left_out", Warning, Source, &["its trigger runs"]).await;

    case.sql(Source, "DROP POLICY seen ON public.kept; DROP TABLE public.fed; DROP FUNCTION public.last; DROP TRIGGER tell ON public.kept; DROP TABLE public.two")
        .await;
    case.plan.tables.filter = without(&["public.audit", "public.recent", "public.counted"]);
    refute_all(&case, Error, Source).await;
    refute_all(&case, Warning, Source).await;
}

/// Faults of tables that stay where they are stop nothing.
#[tokio::test]
async fn a_table_that_is_left_out_needs_neither_key_nor_room() {
    let tables = "CREATE TABLE public.keyless (a int); CREATE UNLOGGED TABLE public.quick (a int PRIMARY KEY); \
        CREATE TABLE public.full (id smallserial PRIMARY KEY); SELECT setval('public.full_id_seq', 32767); \
        CREATE SEQUENCE public.shared AS smallint; CREATE TABLE public.other (id int PRIMARY KEY DEFAULT nextval('public.shared')); \
        SELECT setval('public.shared', 32767)";
    let out = ["public.keyless", "public.quick", "public.full", "public.other"];
    let mut case = case("excused", &out, tables).await;
    let findings = case.check().await;
    assert!(errors(&findings).is_empty(), "{findings:#?}");
    case.plan.tables.filter = Filter::default();
    for (check, word) in [("replica_identity", "public.keyless"), ("sequences", "public.full_id_seq"), ("sequences", "public.shared")] {
        case.find(check, Error, Source, &[word]).await;
    }
}

/// Room is for what moves: the rest stays on its disk.
#[tokio::test]
async fn what_is_left_out_takes_no_room() {
    let tables = "CREATE TABLE public.large (id int PRIMARY KEY, note text); ALTER TABLE public.large ALTER note SET STORAGE PLAIN; \
        INSERT INTO public.large SELECT i, repeat('x', 7000) FROM generate_series(1, 4000) i";
    let mut case = case("room", &["public.large"], tables).await;
    let sql = "SELECT round((pg_database_size(current_database()) - pg_total_relation_size('public.large')) / 1048576.0, 1)::float8";
    let small: f64 = case.session(Source).await.query_one(sql, &[]).await.unwrap().get(0);
    assert!(small < 20.0, "{small}");
    let finding = case.find("storage", Info, Target, &["what the plan covers has "]).await;
    let shown = |finding: &Finding| {
        finding.message.split(" MB").next().unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap_or_else(|_| panic!("{finding:?}"))
    };
    assert!((shown(&finding) - small).abs() <= 1.0, "{small}: {finding:?}");
    case.plan.tables.filter = Filter::default();
    let finding = case.find("storage", Info, Target, &["the database has "]).await;
    assert!(shown(&finding) > small + 30.0, "{small}: {finding:?}");
}
