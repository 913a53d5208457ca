//! One write on trial: after the commit point and before the opening, one instance may write once, and nobody else (A11).

use std::{path::Path, time::Duration};

use cutover_testkit::eventually;
use serde_json::{Value, json};

use crate::{
    server::{Server, answer},
    serving::agent,
    world::{DATABASE, Said, World},
};

const SOON: Duration = Duration::from_secs(30);

const FLAG: &str = "/ofrep/v1/evaluate/flags/database-writes-enabled";

/// A hook that says its word where the test reads it, and ends as the test says.
const HOOK: &str = "printf %s \"$CUTOVER_TRIAL\" > word.tmp; mv word.tmp word; \
    while [ ! -e verdict ]; do sleep 0.05; done; read -r code < verdict; rm -f verdict word; exit $code";

async fn world() -> World {
    World::of(15, 15, &format!("[hooks]\ntrial = '{HOOK}'\n[[traffic]]\nkind = \"flags\"\nlease = \"1s\"\n")).await
}

async fn serve(world: &World) -> Server {
    Server::spawn(world.command(&["serve", "--listen", "127.0.0.1:0", "--output", "json"]), None).await
}

/// What an instance is told that is connected to this database and shows this word, or none.
async fn told(asked: &Server, instance: &str, port: u16, word: Option<&str>) -> Value {
    let context = json!({ "instance": instance, "database": format!("127.0.0.1:{port}/{DATABASE}"), "trial": word });
    answer(asked.post(FLAG, json!({ "context": context }).to_string())).await.1
}

async fn word(folder: &Path) -> String {
    let read = || async { std::fs::read_to_string(folder.join("word")).ok().filter(|word| !word.is_empty()) };
    eventually(SOON, read).await.unwrap()
}

fn verdict(folder: &Path, code: u8) {
    std::fs::write(folder.join("verdict.tmp"), format!("{code}\n")).unwrap();
    std::fs::rename(folder.join("verdict.tmp"), folder.join("verdict")).unwrap();
}

async fn ends(run: tokio::process::Child) -> Said {
    Said::of(tokio::time::timeout(SOON * 2, run.wait_with_output()).await.expect("it did not end").unwrap())
}

/// Through a server, a second server, and an agent.
#[tokio::test]
async fn a11_one_instance_writes_once_on_trial_while_all_others_are_refused() {
    let world = world().await;
    let folder = world.folder.path();
    let (server, other) = (serve(&world).await, serve(&world).await);
    world.ready().await;
    let agent = agent(&world, &server.address).await;
    let (old, new) = (world.source.port(), world.target.port());

    let run = world.command(&["run"]).spawn().unwrap();
    let shown = word(folder).await;
    for asked in [&server, &other, &agent] {
        assert_eq!(told(asked, "ordinary", new, None).await["value"], false, "all others are refused");
        assert_eq!(told(asked, "guesses", new, Some("word")).await["value"], false, "no other word will do");
        let at_old = told(asked, "ordinary", old, Some(&shown)).await;
        assert_eq!(at_old["value"], false, "not at the source: {at_old}");
    }
    let tried = told(&agent, "new-pod", new, Some(&shown)).await;
    assert_eq!((&tried["value"], &tried["variant"], &tried["reason"]), (&json!(true), &json!("on"), &json!("TARGETING_MATCH")), "{tried}");
    for asked in [&server, &other, &agent] {
        assert_eq!(told(asked, "new-pod", new, Some(&shown)).await["value"], false, "one write, not two");
        assert_eq!(told(asked, "ordinary", new, None).await["value"], false, "all others are refused still");
    }
    assert_eq!(world.phase().await, "opening");
    verdict(folder, 1);
    ends(run).await.code(7).says("the trial hook failed").says("goes on with the opening");
    assert_eq!(told(&server, "new-pod", new, None).await["value"], false);

    let run = world.command(&["run"]).spawn().unwrap();
    let again = word(folder).await;
    assert_ne!(again, shown);
    assert_eq!(told(&other, "new-pod", new, Some(&shown)).await["value"], false, "the first word's time is over");
    let asks = |word: &str| json!({ "trial": word, "instance": "new-pod", "database": format!("127.0.0.1:{new}") }).to_string();
    let both = tokio::join!(answer(server.post("/v1/trial", asks(&again))), answer(other.post("/v1/trial", asks(&again))));
    let granted = [&both.0.1["granted"], &both.1.1["granted"]];
    assert!(granted == [&json!(true), &json!(false)] || granted == [&json!(false), &json!(true)], "at two servers at once: {both:?}");
    verdict(folder, 0);
    ends(run).await.code(0).says("new-pod may write once").says("the trial went well");
    assert_eq!((world.authority().await.as_str(), world.phase().await.as_str()), ("target", "following"));
    eventually(SOON, || async { told(&agent, "new-pod", new, None).await["value"] == true }).await.unwrap();

    let audit = world.cutover(&["audit", "--verify", "--output", "json"]).await.code(0).json();
    let kinds: Vec<&str> = audit["entries"].as_array().unwrap().iter().filter_map(|entry| entry["kind"].as_str()).collect();
    let trials: Vec<&str> = kinds.iter().copied().filter(|kind| kind.starts_with("trial_")).collect();
    assert_eq!(trials, ["trial_offered", "trial_granted", "trial_ended", "trial_offered", "trial_granted", "trial_ended"]);
    let text = audit.to_string();
    assert!(!text.contains(&shown) && !text.contains(&again), "the journal keeps hashes of words");
}

/// Nothing is on trial where no hook says so, and a plan without flags has nobody to refuse meanwhile.
#[tokio::test]
async fn a_trial_wants_flags_and_bad_claims_are_refused() {
    let world = World::of(15, 15, "[hooks]\ntrial = \"true\"\n").await;
    world.cutover(&["check"]).await.code(2).says("`trial` wants flags").says("kind = \"flags\"");
    world.write_plan("");
    let server = serve(&world).await;
    for (body, status) in [
        (json!({ "trial": "x", "instance": "a", "database": "b" }), 200),
        (json!({ "trial": "", "instance": "a", "database": "b" }), 400),
        (json!({ "trial": "x\ny", "instance": "a", "database": "b" }), 400),
        (json!({ "trial": "x".repeat(201), "instance": "a", "database": "b" }), 400),
        (json!({ "trial": 7 }), 400),
    ] {
        let (found, answered) = answer(server.post("/v1/trial", body.to_string())).await;
        assert_eq!(found.as_u16(), status, "{answered}");
        assert!(status != 200 || answered["granted"] == false, "{answered}");
    }
}
