//! The plan file as its readers know it: what is taken, what is refused, and where.

mod services;

use super::*;

const SMALLEST: &str = r#"
name = "orders"
kind = "switch"

[source]
url = "postgres://app_owner@127.0.0.1:5433/orders"

[target]
url = "postgres://app_owner@127.0.0.1:5434/orders"

[[traffic]]
kind = "pgbouncer"
admin_url = "postgres://admin@127.0.0.1:6432/pgbouncer"
database = "orders"
config_file = "pgbouncer.ini"
"#;

fn environment(name: &str) -> Option<String> {
    (name == "PASSWORD").then(|| "p#w d".to_owned())
}

fn parse(text: &str) -> Result<Plan, PlanError> {
    Plan::parse(text, &environment)
}

#[test]
fn the_documented_plan_works_as_it_stands() {
    let plan = parse(SMALLEST).unwrap();
    assert_eq!(plan.name, "orders");
    assert_eq!(plan.pause, Pause { budget: Duration::from_secs(3), attempts: 3, lag_bytes: 1 << 20 });
    assert_eq!(
        plan.copy,
        Copy {
            jobs: 4,
            part_bytes: 64 << 20,
            resume_within: Duration::from_secs(600),
            large_objects: LargeObjects::Refuse,
            max_rate: None,
            max_latency: None
        }
    );
    assert!(plan.switch.reverse);
    assert!(matches!(&plan.traffic[..], [Traffic::PgBouncer { database, .. }] if database == "orders"));
}

#[test]
fn what_is_accepted_has_a_name_and_a_reason() {
    let accept = "[[compatibility.accept]]\nname = \" public.orders.code \"\nreason = \"gone in ${PASSWORD}\"";
    let plan = parse(&format!("{SMALLEST}\n{accept}\n[copy]\nlarge_objects = \"ignore\"")).unwrap();
    assert_eq!(plan.accept, [Accept { name: "public.orders.code".to_owned(), reason: "gone in p#w d".to_owned() }]);
    let copied = parse(&format!("{SMALLEST}\n[copy]\nlarge_objects = \"copy\"")).unwrap();
    assert_eq!(copied.copy.large_objects, LargeObjects::Copy);
    assert_eq!((plan.copy.large_objects, parse(SMALLEST).unwrap().copy.large_objects), (LargeObjects::Ignore, LargeObjects::Refuse));
    for (more, line, message) in [
        (accept.replace("gone in ${PASSWORD}", " "), 19, "without a reason"),
        (accept.replace("public.orders.code", ""), 18, "names nothing"),
        ("[copy]\nlarge_objects = \"keep\"".to_owned(), 18, "can't be treated as `keep`"),
    ] {
        let error = parse(&format!("{SMALLEST}\n{more}")).unwrap_err();
        assert_eq!((error.line, error.message.contains(message)), (line, true), "{error}");
        assert!(error.hint.is_some());
    }
}

#[test]
fn sizes_and_durations_of_the_copy() {
    let copy = |text: &str| parse(&format!("{SMALLEST}\n[copy]\n{text}")).unwrap().copy;
    for (text, bytes) in [("1MB", 1 << 20), ("1024 kB", 1 << 20), ("3GB", 3 << 30), ("1048577B", (1 << 20) + 1)] {
        assert_eq!(copy(&format!("part_size = \"{text}\"")).part_bytes, bytes, "{text}");
    }
    assert_eq!(copy("resume_within = \"0s\"").resume_within, Duration::ZERO);
    let gentle = copy("max_rate = \"100MB\"\nmax_latency = \"20ms\"");
    assert_eq!((gentle.max_rate, gentle.max_latency), (Some(100 << 20), Some(Duration::from_millis(20))));
    let verify = parse(&format!("{SMALLEST}\n[verify]\nmax_latency = \"10s\"")).unwrap().verify;
    assert_eq!((verify.max_latency, parse(SMALLEST).unwrap().verify.max_latency), (Some(Duration::from_secs(10)), None));
}

#[test]
fn any_string_may_hold_a_variable() {
    let text = SMALLEST.replace("app_owner@127.0.0.1:5434", "app_owner:${PASSWORD}@127.0.0.1:5434");
    let error = parse(&text).unwrap_err();
    assert!(error.message.contains("bad URL"), "a `#` in a password must be percent-encoded: {error}");
    let text = format!("{SMALLEST}\n[hooks]\nmigrate = \"make db-migrate P=${{PASSWORD}} $${{HOME}}\"");
    assert_eq!(parse(&text).unwrap().hooks.migrate.unwrap(), "make db-migrate P=p#w d ${HOME}");
}

/// A fault, its line, its column, and words of its message and hint.
#[test]
fn faults_have_a_place_and_a_hint() {
    let cases = [
        (SMALLEST.replace("kind = \"switch\"", "kind = \"swich\""), (3, 8), "unknown kind", "switch"),
        (SMALLEST.replace("[target]", "[taget]"), (8, 2), "unknown field `taget`", "did you mean `target`"),
        (SMALLEST.replace("postgres://app_owner@127.0.0.1:5434/", "postgres://app_owner@127.0.0.1:5434"), (9, 7), "bad URL", "looks like"),
        (SMALLEST.replace(":5434", ":5433"), (9, 7), "same database", "two servers"),
        (SMALLEST.replace("config_file", "path"), (15, 8), "does not belong", "config_file"),
        (SMALLEST.replace("\"pgbouncer\"", "\"pgbounce\""), (12, 8), "unknown kind of traffic", "`pgbouncer`"),
        (SMALLEST.replace("orders:", "").replace("name = \"orders\"", "name = \"a/b\""), (2, 8), "can't name a plan", "letters"),
        (format!("{SMALLEST}\n[verify]\nin_pause = \"all\""), (18, 12), "`all` can't be verified in the pause", "\"changed\""),
        (format!("{SMALLEST}\n[pause]\nbudget = \"soon\""), (18, 10), "not a duration", "150ms"),
        (format!("{SMALLEST}\n[pause]\nbudget = \"1h\""), (18, 10), "out of range", "time-outs"),
        (format!("{SMALLEST}\n[copy]\njobs = 0"), (18, 8), "0 is out of range", "from 1"),
        (format!("{SMALLEST}\n[copy]\npart_size = \"64 parsecs\""), (18, 13), "not a size", "64MB"),
        (format!("{SMALLEST}\n[copy]\npart_size = \"64\""), (18, 13), "not a size", "64MB"),
        (format!("{SMALLEST}\n[copy]\npart_size = \"1023kB\""), (18, 13), "out of range", "from 1MB to 1TB"),
        (format!("{SMALLEST}\n[copy]\nresume_within = \"25h\""), (18, 17), "out of range", "at most 24h"),
        (format!("{SMALLEST}\n[copy]\nmax_rate = \"1kB\""), (18, 12), "out of range", "from 1MB"),
        (format!("{SMALLEST}\n[copy]\nmax_latency = \"0s\""), (18, 15), "out of range", "from 1ms to 10s"),
        (format!("{SMALLEST}\n[verify]\nmax_latency = \"11s\""), (18, 15), "out of range", "from 1ms to 10s"),
        (format!("{SMALLEST}\n[journal]\nurl = \"postgres://u:${{NOPE}}@h/d\""), (18, 7), "no variable `NOPE`", "export NOPE"),
    ];
    for (text, place, message, hint) in cases {
        let error = parse(&text).unwrap_err();
        assert!(error.message.contains(message), "{error}");
        assert_eq!((error.line, error.column), place, "{error}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
    }
}

#[test]
fn a_missing_key_is_named() {
    let error = parse(&SMALLEST.replace("config_file = \"pgbouncer.ini\"", "")).unwrap_err();
    assert_eq!(error.message, "traffic of kind `pgbouncer` needs `config_file`");
    let error = parse(&SMALLEST.replace("admin_url = \"postgres://admin@127.0.0.1:6432/pgbouncer\"", "")).unwrap_err();
    assert_eq!(error.message, "traffic of kind `pgbouncer` needs `admin_url`");
}

#[test]
fn a_files_format_is_told_from_its_name() {
    let file = |path: &str, rest: &str| {
        let head = SMALLEST.split("[[traffic]]").next().unwrap();
        parse(&format!("{head}[[traffic]]\nkind = \"file\"\npath = \"{path}\"\nvariable = \"DB\"\nvalue = \"{{host}}\"\n{rest}"))
    };
    let format = |plan: Plan| match &plan.traffic[0] {
        Traffic::File { format, .. } => *format,
        other => panic!("{other:?}"),
    };
    assert_eq!(format(file("app/.env", "").unwrap()), Format::Env);
    assert_eq!(format(file("values.yml", "").unwrap()), Format::Yaml);
    assert_eq!(format(file("settings", "format = \"toml\"").unwrap()), Format::Toml);
    assert!(file("settings", "").is_err());
}

fn with_flags(keys: &str) -> Result<Plan, PlanError> {
    parse(&format!("{SMALLEST}[[traffic]]\nkind = \"flags\"\n{keys}"))
}

#[test]
fn flags_have_defaults_and_name_places() {
    let seconds = Duration::from_secs;
    let plan = with_flags("").unwrap();
    let names = Vec::new;
    assert_eq!(
        plan.traffic[1],
        Traffic::Flags { lease: seconds(2), rollout: seconds(600), source: names(), target: names(), through: names() }
    );
    let plan =
        with_flags("lease = \"60s\"\nrollout = \"0\"\nsource = [\"db.old\"]\ntarget = [\"DB.new:5432\"]\nthrough = [\"pool:6432/x\"]")
            .unwrap();
    assert!(matches!(plan.traffic[1], Traffic::Flags { rollout: Duration::ZERO, .. }));
    let places = plan.places().unwrap();
    let found = ["db.old:5432", "db.new", "pool", "elsewhere", &plan.source.url.address()].map(|name| places.find(name));
    let at = |side| Some(Place::At(side));
    assert_eq!(found, [at(Side::Source), at(Side::Target), Some(Place::Through), None, at(Side::Source)]);
}

#[test]
fn faults_of_flags_have_a_place_and_a_hint() {
    let source = parse(SMALLEST).unwrap().source.url.host;
    let cases = [
        ("lease = \"199ms\"".to_owned(), (18, 9), "the lease is out of range", "200ms to 60s"),
        ("lease = \"61s\"".to_owned(), (18, 9), "the lease is out of range", "200ms to 60s"),
        ("rollout = \"25h\"".to_owned(), (18, 11), "out of range", "at most 24h"),
        ("path = \"x\"".to_owned(), (18, 8), "`path` does not belong", "lease, rollout"),
        ("source = [\"a\", \"b:port\"]".to_owned(), (18, 16), "`b:port` names no database", "host:port"),
        ("target = [\"a\"]\nsource = [\"a\"]".to_owned(), (19, 11), "`a` can mean more than one side", "one place only"),
        (format!("target = [\"{source}\"]"), (18, 11), "can mean more than one side", "one place only"),
        ("[[traffic]]\nkind = \"flags\"".to_owned(), (19, 8), "two sections", "keep one"),
    ];
    for (keys, place, message, hint) in cases {
        let error = with_flags(&keys).unwrap_err();
        assert!(error.message.contains(message), "{keys}: {error}");
        assert_eq!((error.line, error.column), place, "{keys}: {error}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
    }
}

fn with_checks(checks: &str) -> Result<Plan, PlanError> {
    parse(&format!("{SMALLEST}{checks}"))
}

#[test]
fn b16_checks_have_defaults_and_keep_their_order() {
    let plan = with_checks(
        "[[check]]\nname = \"ledger\"\nsql = \" SELECT 1 \"\n\
         [[check]]\nname = \"orphans\"\nsql = \"SELECT 2\"\nexpect = \"empty\"\ntimeout = \"10min\"\n\
         [[check]]\nname = \"gate\"\nsql = \"SELECT 3\"\nexpect = \"value\"\nvalue = \"${PASSWORD}\"\ntimeout = \"1ms\"",
    );
    let check =
        |name: &str, sql: &str, expect: Expect, timeout: Duration| Check { name: name.to_owned(), sql: sql.to_owned(), expect, timeout };
    let expected = [
        check("ledger", "SELECT 1", Expect::Equal, Duration::from_secs(30)),
        check("orphans", "SELECT 2", Expect::Empty, Duration::from_secs(600)),
        check("gate", "SELECT 3", Expect::Value("p#w d".to_owned()), Duration::from_millis(1)),
    ];
    assert_eq!(plan.unwrap().checks, expected);
    assert!(parse(SMALLEST).unwrap().checks.is_empty());
}

#[test]
fn faults_of_checks_have_a_place_and_a_hint() {
    const CHECK: &str = "[[check]]\nname = \"a\"\nsql = \"SELECT 1\"\n";
    let cases = [
        (format!("{CHECK}expect = \"equals\""), (19, 10), "can't expect `equals`", "did you mean `equal`"),
        (format!("{CHECK}expect = \"zebra\""), (19, 10), "can't expect `zebra`", "equal, empty, value"),
        (format!("{CHECK}expect = \"value\""), (19, 10), "has no `value`", "value = \"0\""),
        (format!("{CHECK}value = \"0\""), (19, 9), "expects `equal`", "expect = \"value\""),
        (format!("{CHECK}value = \"0\"\nexpect = \"empty\""), (19, 9), "expects `empty`", "leave `value` out"),
        (format!("{CHECK}{CHECK}"), (20, 8), "two checks are named `a`", "own name"),
        (CHECK.replace("SELECT 1", " \\n"), (18, 7), "`a` has no SQL", "one query"),
        (CHECK.replace("\"a\"", "\" \""), (17, 8), "can't name a check", "few words"),
        (format!("{CHECK}timeout = \"0s\""), (19, 11), "out of range", "10min"),
        (format!("{CHECK}timeout = \"10min 1ms\""), (19, 11), "out of range", "10min"),
        (format!("{CHECK}timout = \"1s\""), (19, 1), "unknown field `timout`", "did you mean `timeout`"),
    ];
    for (text, place, message, hint) in cases {
        let error = with_checks(&text).unwrap_err();
        assert!(error.message.contains(message), "{error}");
        assert_eq!((error.line, error.column), place, "{error}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
    }
    let error = with_checks("[[check]]\nname = \"a\"").unwrap_err();
    assert!(error.message.contains("missing field `sql`"), "{error}");
}

fn with_tables(tables: &str) -> Result<Plan, PlanError> {
    parse(&format!("{SMALLEST}{tables}"))
}

#[test]
fn tables_are_all_unless_the_plan_says_otherwise() {
    let tables = parse(SMALLEST).unwrap().tables;
    assert_eq!(tables, Tables::default());
    assert!(tables.filter.is_all());
    assert_eq!(tables.filter.to_string(), "all tables");
    let text = "[tables]\ninclude = [\"public.*\", 'billing.\"In*voices\"']\nexclude = ['public.tmp_**x']\ndefinitions = true\ncut_foreign_keys = true\n\
        [[table]]\nname = \"public.documents\"\nchunk_rows = 500\nredact = [\"body\", \"E-mail\"]\n[[table]]\nname = 'public.\"a.\"\"b\"'";
    let tables = with_tables(text).unwrap().tables;
    let texts = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(tables.filter.include.as_ref().unwrap()), ["public.*", "billing.\"In*voices\""]);
    assert_eq!(texts(&tables.filter.exclude), ["public.tmp_*x"]);
    assert!(tables.filter.definitions && tables.cut_foreign_keys && !tables.filter.is_all());
    let settings = |name: &str, chunk_rows: Option<u32>, redact: &[&str]| TableSettings {
        schema: "public".to_owned(),
        name: name.to_owned(),
        chunk_rows,
        redact: redact.iter().map(|column| (*column).to_owned()).collect(),
    };
    assert_eq!(tables.settings, [settings("documents", Some(500), &["body", "E-mail"]), settings("a.\"b", None, &[])]);
}

#[test]
fn a_pattern_is_cut_at_its_stars_and_keeps_what_is_quoted() {
    let text = |text: &str| Piece::Text(text.to_owned());
    let pieces = |pattern: &str| Pattern::parse(pattern).map(|pattern| (pattern.schema, pattern.name)).unwrap();
    assert_eq!(pieces("public.orders"), (vec![text("public")], vec![text("orders")]));
    assert_eq!(pieces("*.*_old"), (vec![Piece::Any], vec![Piece::Any, text("_old")]));
    assert_eq!(pieces("\"A.b\".x\"*Y\"*"), (vec![text("A.b")], vec![text("x*Y"), Piece::Any]));
    assert_eq!(pieces("größe.\"it\"\"s %\""), (vec![text("größe")], vec![text("it\"s %")]));
    for written in ["public.orders", "*.*_old", "\"A.b\".\"x*Y\"*", "größe.\"it\"\"s %\""] {
        assert_eq!(Pattern::parse(written).unwrap().to_string(), written);
    }
    assert_eq!(Pattern::parse("a.b").unwrap().exact(), Some(("a".to_owned(), "b".to_owned())));
    assert_eq!(Pattern::parse("a.b*").unwrap().exact(), None);
}

#[test]
fn faults_of_tables_have_a_place_and_a_hint() {
    let exclude = |pattern: &str| format!("[tables]\nexclude = ['public.a', '{pattern}']");
    let cases = [
        (exclude("orders"), (17, 24), "names no schema", "public.orders"),
        (exclude("a.b.c"), (17, 24), "more than two parts", "double quotes"),
        (exclude("public.Orders"), (17, 24), "capitals outside quotes", "lower case"),
        (exclude("public.odd-name"), (17, 24), "`-` outside quotes", "double quotes"),
        (exclude("public.\"odd"), (17, 24), "not closed", "close it"),
        (exclude("public.\"\""), (17, 24), "empty name", "between"),
        (exclude("public."), (17, 24), "empty part", "public.orders"),
        (exclude(".x"), (17, 24), "empty part", "public.orders"),
        ("[tables]\ninclude = []".to_owned(), (17, 11), "nothing is included", "public.*"),
        ("[tables]\nincludes = []".to_owned(), (17, 1), "unknown field `includes`", "did you mean `include`"),
        ("[[table]]\nname = \"public.*\"".to_owned(), (17, 8), "about one table", "double quotes"),
        ("[[table]]\nname = \"public.a\"\nchunk_rows = 0".to_owned(), (18, 14), "0 is out of range", "from 1"),
        ("[[table]]\nname = \"a.b\"\n[[table]]\nname = 'a.\"b\"'".to_owned(), (19, 8), "two sections", "one section"),
        ("[[table]]\nname = \"a.b\"\nredacted = []".to_owned(), (18, 1), "unknown field `redacted`", "did you mean `redact`"),
    ];
    for (text, place, message, hint) in cases {
        let error = with_tables(&text).unwrap_err();
        assert!(error.message.contains(message), "{error}");
        assert_eq!((error.line, error.column), place, "{error}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
    }
    let many: String = (0..1001).map(|at| format!("'public.t{at}',")).collect();
    let error = with_tables(&format!("[tables]\nexclude = [{many}]")).unwrap_err();
    assert!(error.message.contains("more than 1000 patterns"), "{error}");
}
