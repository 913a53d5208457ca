//! `cutover rehearse` on throwaway servers that it starts itself: green, and red in every way that a plan can be.

use serde_json::Value;

use crate::{
    world::{Said, World},
    xml,
};

/// Accounts, and transfers between them: `{accounts}` of one and three times as many of the other.
const SEED: &str = "INSERT INTO bank.accounts (id, holder, opening, balance) SELECT n, 'seeded', 10, 10 FROM generate_series(1, {accounts}) n; \
     INSERT INTO bank.transfers (client, op, debit, credit, amount) \
     SELECT 0, n, 1 + n % {accounts}, 1 + (n + 1) % {accounts}, 1 FROM generate_series(1, 3 * {accounts}) n;";

/// A migration that an application would make, and a smoke test that needs it on one side and not on the other.
const HOOKS: &str = "[hooks]\nmigrate = \"psql -X -v ON_ERROR_STOP=1 -qc 'ALTER TABLE bank.accounts ADD COLUMN note text'\"\n\
     smoke = \"psql -X -v ON_ERROR_STOP=1 -qAtc 'SELECT count(*) FROM bank.accounts' | grep -qv '^0$'\"\n";

const CHECK: &str = "[[check]]\nname = \"balances\"\nsql = \"SELECT count(*) > 0, count(*), sum(balance) FROM bank.accounts\"\n";

/// The cases of one profile: name, outcome, message.
fn cases(said: &Said, profile: &str) -> Vec<(String, String, String)> {
    let answer = said.json();
    let profiles = answer["profiles"].as_array().unwrap();
    let one = profiles.iter().find(|one| one["profile"] == profile).unwrap_or_else(|| panic!("no {profile}: {answer:#}"));
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    one["cases"].as_array().unwrap().iter().map(|case| (text(case, "name"), text(case, "outcome"), text(case, "message"))).collect()
}

/// The names of those with an outcome.
fn with(cases: &[(String, String, String)], outcome: &str) -> Vec<String> {
    cases.iter().filter(|case| case.1 == outcome).map(|case| case.0.clone()).collect()
}

#[track_caller]
fn message(cases: &[(String, String, String)], name: &str) -> String {
    cases.iter().find(|case| case.0 == name).unwrap_or_else(|| panic!("no case {name}: {cases:#?}")).2.clone()
}

/// What a server's statistics and catalogue say of everything that was ever written, made or set there.
async fn written(world: &World) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', (SELECT sum(tup_inserted + tup_updated + tup_deleted) FROM pg_stat_database), \
         (SELECT string_agg(datname, ',' ORDER BY 1) FROM pg_database), (SELECT string_agg(rolname, ',' ORDER BY 1) FROM pg_roles), \
         (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_subscription), (SELECT count(*) FROM pg_publication), \
         (SELECT string_agg(nspname, ',' ORDER BY 1) FROM pg_namespace), (SELECT count(*) FROM pg_class))";
    vec![world.ask(&world.source, sql).await, world.ask(&world.target, sql).await]
}

#[tokio::test]
async fn b8_b21_small_and_spike_are_rehearsed_there_and_back_and_the_real_servers_stay_as_they_are() {
    let rehearse = "[rehearse]\nseed = { small = \"small.sql\", spike = \"./spike.sh\" }\nload = \"while psql -X -qAtc 'SELECT 1'; do sleep 0.2; done\"\n";
    let world = World::of(15, 17, &[CHECK, HOOKS, rehearse].concat()).await;
    let file = |name: &str| world.folder.path().join(name);
    std::fs::write(file("small.sql"), format!("\\set ON_ERROR_STOP 1\n{}\n", SEED.replace("{accounts}", "50"))).unwrap();
    std::fs::write(file("spike.sh"), format!("psql -X -v ON_ERROR_STOP=1 -qc \"{}\"\n", SEED.replace("{accounts}", "5000"))).unwrap();
    assert!(std::process::Command::new("chmod").arg("+x").arg(file("spike.sh")).status().unwrap().success());
    for real in [&world.source, &world.target] {
        real.execute("postgres", "ALTER SYSTEM SET log_statement = 'mod'").await.unwrap();
        real.execute("postgres", "ALTER SYSTEM SET autovacuum = off").await.unwrap();
        real.execute("postgres", "SELECT pg_reload_conf()").await.unwrap();
    }
    let (before, bouncer) = (written(&world).await, std::fs::read(world.bouncer.config_file()).unwrap());
    let logs = [&world.source, &world.target].map(|real| std::fs::read_to_string(real.log_file()).unwrap().len());

    let junit = file("rehearsal.xml");
    let said = world.cutover(&["rehearse", "--output", "json", "--junit", junit.to_str().unwrap()]).await.code(0);
    let answer = said.json();
    assert_eq!(
        (&answer["green"], &answer["profiles"][0]["source_major"], &answer["profiles"][0]["target_major"]),
        (&true.into(), &15.into(), &17.into())
    );
    for (profile, rows) in [("small", 200), ("spike", 20_000)] {
        let cases = cases(&said, profile);
        assert_eq!(with(&cases, "passed").len(), cases.len(), "{cases:#?}");
        for name in [
            "seed",
            "migrate",
            "check: balances",
            "switch",
            "smoke",
            "rollback",
            "smoke_back",
            "kept",
            "check_back: balances",
            "load",
            "tear_down",
            "removed",
        ] {
            message(&cases, name);
        }
        assert!(message(&cases, "copy_rows").contains(&format!("rows {rows}")), "B21: {cases:#?}");
    }
    for profile in answer["profiles"].as_array().unwrap() {
        assert!(
            profile["switch_pause_ms"].as_u64().unwrap() <= 3000 && profile["rollback_pause_ms"].as_u64().unwrap() <= 3000,
            "{profile:#}"
        );
        assert!(profile["acknowledged_writes"].as_u64().unwrap() >= 15 && profile["lost_writes"] == 0, "{profile:#}");
    }
    let suites = xml::parse(&std::fs::read_to_string(&junit).unwrap());
    assert_eq!((suites.name.as_str(), suites.all("testsuite").len()), ("testsuites", 2));
    assert_eq!((suites.number("tests") as usize, suites.number("failures") as u32), (suites.all("testcase").len(), 0));

    assert_eq!(written(&world).await, before, "nothing was written or made at the real servers");
    assert_eq!(std::fs::read(world.bouncer.config_file()).unwrap(), bouncer, "nor at the real PgBouncer");
    for (real, from) in [&world.source, &world.target].into_iter().zip(logs) {
        let log = std::fs::read_to_string(real.log_file()).unwrap().split_off(from);
        assert!(!log.contains("LOG:  statement:") && !log.contains("LOG:  execute"), "a statement that changes something:\n{log}");
    }
}

#[tokio::test]
async fn b8_a_sample_of_the_source_brings_what_it_refers_to() {
    let world = World::of(15, 17, CHECK).await;
    let said = world.cutover(&["rehearse", "--rows", "5", "--output", "json"]).await.code(0);
    let sample = cases(&said, "source");
    assert_eq!(with(&sample, "passed").len(), sample.len(), "all foreign keys were built: {sample:#?}");
    let all = cases(&world.cutover(&["rehearse", "--data", "all", "--output", "json"]).await.code(0), "source");
    let rows = |cases: &[(String, String, String)]| -> u64 {
        let message = message(cases, "restore");
        message.split(", ").find_map(|part| part.strip_suffix(" rows")).unwrap().parse().unwrap()
    };
    // Of each table at most so many rows, by counting them.
    let at_most = |most: &str| {
        format!(
            "SELECT sum(least({most}, (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM ONLY %s', c.oid::regclass), \
             false, true, '')))[1]::text::bigint)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND n.nspname = 'bank'"
        )
    };
    let held: u64 = world.ask(&world.source, &at_most("NULL")).await.parse().unwrap();
    let asked: u64 = world.ask(&world.source, &at_most("5")).await.parse().unwrap();
    assert_eq!(rows(&all), held);
    let sampled = rows(&sample);
    assert!(sampled > asked && sampled < held / 4, "{asked} asked for, {sampled} brought with what they refer to, of {held}");
}

#[tokio::test]
async fn b9_a_red_rehearsal_says_what_is_red_tries_the_rest_and_keeps_the_switch_from_beginning() {
    let required = "[rehearse]\nrequired = true\n";
    let world = World::of(15, 17, &format!("[hooks]\nmigrate = \"echo no column for you >&2; exit 1\"\n{required}")).await;
    let junit = world.folder.path().join("red.xml");
    let said = world.cutover(&["rehearse", "--output", "json", "--junit", junit.to_str().unwrap()]).await.code(3);
    let red = cases(&said, "source");
    assert_eq!(with(&red, "failed"), ["migrate"]);
    assert!(message(&red, "migrate").contains("no column for you"), "{red:#?}");
    assert_eq!(with(&red, "skipped").first().unwrap(), "follow", "{red:#?}");
    assert_eq!(red.last().unwrap().1, "passed", "the clones are gone all the same: {red:#?}");
    let suites = xml::parse(&std::fs::read_to_string(&junit).unwrap());
    assert_eq!((suites.number("failures") as usize, suites.all("failure").len()), (1, 1));
    assert_eq!(suites.number("skipped") as usize, suites.all("skipped").len());
    assert!(suites.all("failure")[0].text.contains("no column for you"));

    // The smoke test fails at the target alone: the way back is tried, and works.
    world.write_plan(&format!("[hooks]\nsmoke = \"test $CUTOVER_SIDE = source\"\n{required}"));
    let red = cases(&world.cutover(&["rehearse", "--output", "json"]).await.code(3), "source");
    assert_eq!((with(&red, "failed"), with(&red, "skipped")), (vec!["smoke".to_owned()], vec![]), "{red:#?}");

    let check = "[[check]]\nname = \"holders\"\nsql = \"SELECT 1\"\nexpect = \"value\"\nvalue = \"7\"\n";
    let other = "[[check]]\nname = \"fine\"\nsql = \"SELECT 1\"\n";
    world.write_plan(&[check, other, required].concat());
    let red = cases(&world.cutover(&["rehearse", "--output", "json"]).await.code(3), "source");
    assert_eq!(with(&red, "failed"), ["check: holders"], "{red:#?}");
    assert!(with(&red, "passed").contains(&"check: fine".to_owned()), "one that fails hides no other: {red:#?}");
    assert!(with(&red, "skipped").contains(&"switch".to_owned()), "{red:#?}");

    // B9: not while the last rehearsal of this plan is red, nor with another plan's; and a green one lets it through.
    world.ready().await;
    let red_digest = world.cutover(&["run"]).await.code(3).says("the plan wants to be rehearsed").says("was not green");
    assert!(red_digest.err.contains("hint: `cutover rehearse`"), "{red_digest:?}");
    world.write_plan(required);
    world.cutover(&["run"]).await.code(3).says("the plan was changed since it was rehearsed");
    assert_eq!(world.authority().await, "source");
    world.cutover(&["rehearse"]).await.code(0).says("green: ");
    world.cutover(&["run"]).await.code(0);
    assert_eq!(world.authority().await, "target");
}
