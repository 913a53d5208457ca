//! flagd's services, called by the messages that flagd itself publishes.

use std::time::{SystemTime, UNIX_EPOCH};

use cutover_testkit::eventually;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    ground::{Houses, LIMIT, Server, folder, token},
    stock::program,
};

const WRITES: &str = "database-writes-enabled";

/// Calls methods of flagd's services, each with its request, and of a stream takes so many messages.
async fn called(address: &str, token: Option<&str>, calls: &[(&str, &str, Value, Option<u8>)]) -> Vec<Value> {
    let one = |(service, method, request, messages): &(&str, &str, Value, Option<u8>)| {
        let mut call = json!({ "service": service, "method": method, "request": request });
        messages.inspect(|messages| call["messages"] = json!(messages));
        call
    };
    let calls: Vec<Value> = calls.iter().map(one).collect();
    let target = address.trim_start_matches("http://");
    let mut child = program("python3", "call.py", "python-flagd").spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(json!({ "target": target, "token": token, "calls": calls }).to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it did not end").unwrap();
    assert!(output.status.success(), "it failed");
    serde_json::from_slice(&output.stdout).unwrap()
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
    let houses = Houses::open(&["--lease", "4s"]).await;
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

/// A13, A16: where the instances of an in-process provider are, nobody can say; but one that says it is waited for.
#[tokio::test]
async fn a16_a_stream_of_rules_is_astray_only_if_it_names_a_database_that_is_not_in_charge() {
    let server = Server::start(&["--lease", "4s"]).await;
    for (selector, astray) in [("", 0), ("database=old.example", 0), ("database=new.example", 1), ("database=elsewhere", 1)] {
        let request = json!({ "providerId": "checkout", "selector": selector });
        let (calls, expected) =
            ([("flagd.sync.v1.FlagSyncService", "SyncFlags", request, Some(50))], format!("\ncutover_clients_astray {astray}\n"));
        let counted = || async {
            let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
            text.contains("\ncutover_clients 1\n") && text.contains(&expected)
        };
        tokio::select! {
            _ = called(&server.address, None, &calls) => panic!("the stream ended"),
            counted = eventually(LIMIT, counted) => counted.unwrap_or_else(|_| panic!("{selector}: no client, or not {astray} astray")),
        }
    }
}

/// Who may not is told so in gRPC's form, and is counted like everybody.
#[tokio::test]
async fn flagds_refusals_have_a_status_of_their_own() {
    let folder = folder();
    let bearer = token(folder.path(), "pods", "client").await;
    let houses = Houses::guarded(folder, &bearer, None, &[]).await;
    let call = [("flagd.evaluation.v2.Service", "ResolveBoolean", json!({ "flagKey": WRITES }), None)];
    for (house, url) in houses.addresses() {
        for (token, expected, why) in
            [(None, "UNAUTHENTICATED", "a token is needed"), (Some("wrong"), "UNAUTHENTICATED", "not known"), (Some(&*bearer), "OK", "")]
        {
            let told = called(url, token, &call).await;
            assert_eq!(told[0]["status"], expected, "{house}: {told:#?}");
            assert!(told[0]["why"].as_str().unwrap_or_default().contains(why), "{house}: {told:#?}");
        }
        for path in ["/flagd.evaluation.v1.Service/ResolveNothing", "/grpc.health.v1.Health/Check"] {
            let asked = houses.agent.client.post(format!("{url}{path}")).bearer_auth(&bearer).header("content-type", "application/grpc");
            let response = asked.send().await.unwrap();
            let status = (response.status().as_u16(), response.headers()["grpc-status"].to_str().unwrap());
            assert_eq!(status, (200, "12"), "{path} of the {house}");
            assert!(response.headers().contains_key("x-request-id"), "{path} of the {house}");
        }
    }
}
