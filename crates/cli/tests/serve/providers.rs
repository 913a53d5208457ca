//! Stock OpenFeature providers, as their registries have them, ask a server and an agent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cutover_testkit::{Certificates, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    ground::{LIMIT, Server, command, folder, token},
    stock::{ALL, called},
};

/// Nobody listens there.
const GONE: &str = "http://127.0.0.1:9";

/// Rules end with whole seconds, so it has to be some.
const LEASE: &str = "4s";

const WRITES: &str = "database-writes-enabled";

fn at(database: &str) -> Value {
    json!({ "targetingKey": "pod-1", "instance": "pod-1", "database": database })
}

/// Whoever can be asked: a server, and an agent of it in a folder of its own.
struct Houses {
    server: Server,
    agent: crate::server::Server,
    _folder: tempfile::TempDir,
}

impl Houses {
    async fn open(more: &[&str]) -> Self {
        let server = Server::start(more).await;
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["--output", "json", "agent", "--server", &server.address, "--listen", "127.0.0.1:0"];
        let agent = crate::server::Server::spawn(command(folder.path(), &arguments), None).await;
        eventually(LIMIT, || async { agent.get("/readyz").send().await.unwrap().status() == 200 }).await.unwrap();
        Self { server, agent, _folder: folder }
    }

    fn addresses(&self) -> [(&'static str, &str); 2] {
        [("server", &self.server.address), ("agent", &self.agent.address)]
    }
}

#[tokio::test]
async fn a2_stock_providers_are_told_the_same_as_everybody_by_server_and_agent() {
    let houses = Houses::open(&["--lease", LEASE]).await;
    for (house, url) in houses.addresses() {
        for stock in ALL {
            let who = format!("{stock:?} at the {house}");
            // What the application falls back to is the opposite of what is expected, so that none goes for an answer.
            let ask = [
                (WRITES, json!(false), at("old.example")),
                (WRITES, json!(true), at("new.example")),
                (WRITES, json!(true), at("elsewhere")),
                (WRITES, json!(true), json!({})),
                ("shop.write.allowed", json!(false), at("old.example:5432")),
                ("shop.write.permit", json!("none"), at("old.example:5432/shop")),
                ("shop.write.permit", json!("none"), at("new.example")),
                ("shop.database.read", json!("hold"), at("old.example")),
                ("shop.database.write", json!("hold"), at("new.example")),
                ("shop.stage", json!("hold"), at("old.example")),
            ];
            let mut provider = stock.start(url, None, None).await;
            let told = provider.asked(&ask).await;
            let values: Vec<Value> = told.iter().map(|told| told["value"].clone()).collect();
            let expected = json!([true, false, false, false, true, "0", "", "source", "source", "source"]);
            assert_eq!(json!(values), expected, "{who}: {told:#?}");
            assert!(told.iter().all(|told| told["reason"] == "TARGETING_MATCH" && told["error"].is_null()), "{who}: {told:#?}");
            assert_eq!((&told[0]["variant"], &told[1]["variant"]), (&json!("on"), &json!("off")), "{who}: {told:#?}");
            if stock.tells_metadata() {
                assert_eq!(
                    (&told[0]["metadata"]["stage"], &told[0]["metadata"]["epoch"]),
                    (&json!("source"), &json!(0)),
                    "{who}: {told:#?}"
                );
            }
            // Whatever goes wrong, the application falls back to what is safe, as it says itself.
            let told = provider.asked(&[("no-such-flag", json!(false), at("old.example")), (WRITES, json!("no"), at("old.example"))]).await;
            assert_eq!((&told[0]["value"], &told[1]["value"]), (&json!(false), &json!("no")), "{who}: {told:#?}");
            assert_eq!((&told[0]["error"], &told[1]["error"]), (&json!("FLAG_NOT_FOUND"), &json!("TYPE_MISMATCH")), "{who}: {told:#?}");
            assert!(told.iter().all(|told| told["reason"] == "ERROR"), "{who}: {told:#?}");
            // Not of a boolean: to Python that is a number.
            let told = provider.asked(&[("shop.stage", json!(7), at("old.example"))]).await;
            assert_eq!((&told[0]["value"], &told[0]["error"]), (&json!(7), &json!("TYPE_MISMATCH")), "{who}: {told:#?}");
        }
    }
}

/// A server that wants tokens, and nobody at all: the application falls back to its own default.
#[tokio::test]
async fn a4_stock_providers_fall_back_to_the_applications_default_without_a_token_that_is_known() {
    let folder = folder();
    let bearer = token(folder.path(), "pods", "client").await;
    let files = Certificates::make(folder.path()).unwrap();
    let tls = ["--tls-certificate", files.certificate.to_str().unwrap(), "--tls-key", files.key.to_str().unwrap()];
    let plain = Server::start_in(folder, &[], None).await;
    let secured = Server::start_in(plain_copy(&plain), &tls, Some(&files.root)).await;
    let secured_url = secured.address.replace("127.0.0.1", "localhost");
    let (secured_url, root) = (secured_url.as_str(), Some(files.root.as_path()));
    let ask = || [(WRITES, json!(false), at("old.example")), ("shop.stage", json!("hold"), at("old.example"))];
    let (known, wrong) = (Some(bearer.as_str()), Some("wrong"));
    let plain_url = plain.address.as_str();
    let asked = ALL.map(|stock| async move {
        for (url, root, token) in
            [(plain_url, None, known), (plain_url, None, wrong), (secured_url, root, known), (secured_url, root, wrong), (GONE, None, None)]
        {
            let who = format!("{stock:?} at {url} with {token:?}");
            let may = token == known && url != GONE && stock.takes_token(root.is_some());
            let told = stock.start(url, token, root).await.asked(&ask()).await;
            let values = if may { [json!(true), json!("source")] } else { [json!(false), json!("hold")] };
            assert_eq!([told[0]["value"].clone(), told[1]["value"].clone()], values, "{who}: {told:#?}");
            assert!(may || told.iter().all(|told| told["reason"] == "ERROR" && !told["error"].is_null()), "{who}: {told:#?}");
        }
    });
    join_all(asked).await;
}

/// Another folder with the same plan and tokens.
fn plain_copy(server: &Server) -> tempfile::TempDir {
    let copy = folder();
    std::fs::create_dir_all(copy.path().join(".cutover")).unwrap();
    std::fs::copy(server.folder.path().join(".cutover/tokens.json"), copy.path().join(".cutover/tokens.json")).unwrap();
    copy
}

/// An agent that has lost its server denies by itself.
#[tokio::test]
async fn a4_stock_providers_are_denied_by_an_agent_that_is_cut_off_within_the_lease_plus_a_second() {
    let asked = ALL.map(|stock| async move {
        let mut houses = Houses::open(&["--lease", LEASE]).await;
        let mut provider = stock.start(&houses.agent.address, None, None).await;
        let ask = [(WRITES, json!(false), at("old.example"))];
        assert_eq!(provider.asked(&ask).await[0]["value"], true, "{stock:?}");
        houses.server.server.child.kill().await.unwrap();
        let begun = std::time::Instant::now();
        while provider.asked(&ask).await[0]["value"] == true {
            assert!(begun.elapsed() < Duration::from_secs(4 + 1), "{stock:?}: {:?}", begun.elapsed());
        }
        let told = provider.asked(&[("shop.database.read", json!("hold"), at("old.example"))]).await;
        assert_eq!(told[0]["value"], "source", "reads stay where they were: {stock:?}");
    });
    join_all(asked).await;
}

/// Each method of both versions, by flagd's own messages; and every refusal in gRPC's form.
#[tokio::test]
async fn flagds_evaluation_is_answered_as_its_messages_say() {
    let houses = Houses::open(&[]).await;
    let context = json!({ "database": "old.example", "instance": "pod-1", "more": { "a": [1, null, true] } });
    let ask = |flag: &str| json!({ "flagKey": flag, "context": context });
    for (house, url) in houses.addresses() {
        for service in ["flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service"] {
            let calls = [
                (service, "ResolveBoolean", ask(WRITES), None),
                (service, "ResolveBoolean", json!({ "flagKey": WRITES }), None),
                (service, "ResolveString", ask("shop.write.permit"), None),
                (service, "ResolveString", ask(WRITES), None),
                (service, "ResolveBoolean", ask("shop.stage"), None),
                (service, "ResolveInt", ask("shop.write.permit"), None),
                (service, "ResolveFloat", ask(WRITES), None),
                (service, "ResolveObject", ask("shop.stage"), None),
                (service, "ResolveObject", ask("nothing"), None),
                (service, "ResolveBoolean", json!({ "flagKey": WRITES, "context": { "database": "x".repeat(70_000) } }), None),
                (service, "EventStream", json!({}), Some(1)),
            ];
            let told = called(url, None, &calls).await;
            let who = format!("{service} of the {house}: {told:#?}");
            let status: Vec<&str> = told.iter().map(|told| told["status"].as_str().unwrap()).collect();
            let (ok, mismatch) = ("OK", "INVALID_ARGUMENT");
            assert_eq!(status[..9], [ok, ok, ok, mismatch, mismatch, mismatch, mismatch, mismatch, "NOT_FOUND"], "{who}");
            assert_eq!(status[9..], ["OUT_OF_RANGE", ok], "{who}");
            let yes = &told[0]["answer"];
            assert_eq!((&yes["value"], &yes["variant"], &yes["reason"]), (&json!(true), &json!("on"), &json!("TARGETING_MATCH")), "{who}");
            assert_eq!((&yes["metadata"]["flagSetId"], &yes["metadata"]["epoch"]), (&json!("shop"), &json!(0.0)), "{who}");
            assert_eq!(told[1]["answer"]["metadata"]["why"], "the context names no `database`", "{who}");
            assert_eq!(told[2]["answer"]["value"], "0", "{who}");
            assert!(told[8]["why"].as_str().unwrap().contains("the flags are database-writes-enabled"), "{who}");
            assert_eq!(told[10]["answer"][0]["type"], "provider_ready", "{who}");
        }
        let told = called(url, None, &[("flagd.evaluation.v1.Service", "ResolveAll", json!({ "context": context }), None)]).await;
        let flags = told[0]["answer"]["flags"].as_object().unwrap();
        assert_eq!((flags.len(), &flags[WRITES]["boolValue"], &flags["shop.stage"]["stringValue"]), (6, &json!(true), &json!("source")));
    }
}

/// Each method of the sync; rules hold for the databases by name, and until a second.
#[tokio::test]
async fn flagds_sync_is_answered_as_its_messages_say() {
    let houses = Houses::open(&["--lease", LEASE]).await;
    let sync = "flagd.sync.v1.FlagSyncService";
    for (house, url) in houses.addresses() {
        let selecting = |selector: &str| json!({ "providerId": "checkout", "selector": selector });
        let told = called(
            url,
            None,
            &[
                (sync, "FetchAllFlags", selecting(""), None),
                (sync, "GetMetadata", json!({}), None),
                (sync, "SyncFlags", selecting("database=old.example"), Some(2)),
                (sync, "SyncFlags", selecting("another"), Some(1)),
                (sync, "FetchAllFlags", selecting("database="), None),
            ],
        )
        .await;
        let who = format!("{house}: {told:#?}");
        let status: Vec<&str> = told.iter().map(|told| told["status"].as_str().unwrap()).collect();
        assert_eq!(status, ["OK", "OK", "OK", "INVALID_ARGUMENT", "INVALID_ARGUMENT"], "{who}");
        let read = |answer: &Value| -> Value { serde_json::from_str(answer["flagConfiguration"].as_str().unwrap()).unwrap() };
        let until = |told: &Value| told["flags"][WRITES]["targeting"]["if"][0]["<"][1].as_u64().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        for told in [read(&told[0]["answer"]), read(&told[2]["answer"][0]), read(&told[2]["answer"][1])] {
            assert!((now - 4..=now + 4).contains(&until(&told)), "{now}: {told:#}");
            assert_eq!(told["flags"].as_object().unwrap().len(), 6, "{told:#}");
        }
        let [first, second] = [0, 1].map(|place| read(&told[2]["answer"][place]));
        assert!(until(&second) > until(&first), "they are told again before they run out: {who}");
    }
}

/// Who may not is told so in gRPC's form, and is counted like everybody.
#[tokio::test]
async fn flagds_refusals_have_a_status_of_their_own() {
    let folder = folder();
    let bearer = token(folder.path(), "pods", "client").await;
    let server = Server::start_in(folder, &[], None).await;
    let call = [("flagd.evaluation.v2.Service", "ResolveBoolean", json!({ "flagKey": WRITES }), None)];
    for (token, expected, why) in
        [(None, "UNAUTHENTICATED", "a token is needed"), (Some("wrong"), "UNAUTHENTICATED", "not known"), (Some(&*bearer), "OK", "")]
    {
        let told = called(&server.address, token, &call).await;
        assert_eq!(told[0]["status"], expected, "{told:#?}");
        assert!(told[0]["why"].as_str().unwrap_or_default().contains(why), "{told:#?}");
    }
    for (path, expected) in [("/flagd.evaluation.v1.Service/ResolveNothing", "12"), ("/grpc.health.v1.Health/Check", "12")] {
        let asked = server.client.post(format!("{}{path}", server.address)).bearer_auth(&bearer).header("content-type", "application/grpc");
        let response = asked.send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["grpc-status"].to_str().unwrap()), (200, expected), "{path}");
        assert!(response.headers().contains_key("x-request-id"), "{path}");
    }
}
