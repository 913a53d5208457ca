//! Consul's KV store.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use cutover_core::Side;
use cutover_traffic::{ServiceFault, Severity, TrafficError};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Rig, SOURCE, TARGET, adapter, serves, trouble};
use crate::{
    doubles::{
        TOKEN,
        consul::{Kv, PATH},
    },
    suite::{endpoints, soon},
};

const KEYS: &str = "kind = \"consul\"\nkey = \"shop/database-writes-enabled\"\ntoken = \"hunter2\"\ntimeout = \"300ms\"";
async fn rig() -> Rig<Kv> {
    Rig::new(Kv::of(&json!({"enabled": true, "databases": [SOURCE, "blue", "pool:6432"]})), KEYS).await
}

#[tokio::test]
async fn a6_consul_conforms() {
    serves(rig().await).await;
}

#[tokio::test]
async fn a6_consul_bears_trouble() {
    trouble::is_borne(rig().await).await;
}

#[tokio::test]
async fn a6_the_document_says_all_of_the_route() {
    let rig = rig().await;
    rig.adapter.hold(soon()).await.unwrap();
    let held = json!({"cutover": "bank", "enabled": false, "epoch": 7, "authority": "source", "writes": "held", "databases": []});
    assert_eq!(rig.double.state().document(), held);
    rig.journal.moves_to(Side::Target);
    rig.adapter.release(&endpoints()[1], soon()).await.unwrap();
    let databases = [TARGET, "pool:6432"];
    let open = json!({"cutover": "bank", "enabled": true, "epoch": 8, "authority": "target", "writes": "open", "databases": databases});
    assert_eq!(rig.double.state().document(), open);
}

/// A driver that woke up late does not take back what a newer one wrote; another cutover's epochs are no measure.
#[tokio::test]
async fn a6_an_older_epoch_writes_nothing() {
    let rig = rig().await;
    let newer = json!({"cutover": "bank", "enabled": false, "epoch": 8, "authority": "source", "writes": "held", "databases": []});
    rig.double.change(|kv| kv.set(newer.to_string()));
    for endpoint in &endpoints() {
        let error = rig.adapter.release(endpoint, soon()).await.unwrap_err();
        assert!(matches!(error, TrafficError::Service { source: ServiceFault::Newer { epoch: 8 }, .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("another driver"));
    }
    assert_eq!(rig.double.state().document(), newer);
    rig.double.change(|kv| kv.set(newer.to_string().replace("bank", "last year's")));
    rig.adapter.release(&endpoints()[1], soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [TARGET, "pool:6432"]);
}

#[tokio::test]
async fn a_key_that_is_missing_or_holds_something_else_is_found_before_the_switch() {
    for (value, message) in [(None, "there is no key"), (Some("true"), "no JSON object"), (Some("on"), "no JSON object")] {
        let rig = rig().await;
        rig.double.change(|kv| {
            kv.value = value.map(str::to_owned);
            kv.index += 1;
        });
        let problems = rig.adapter.check(&endpoints()).await;
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(problem.severity == Severity::Error && problem.message.contains(message), "{problem:?}");
        // The fix is what the preflight is content with.
        let document = problem.fix.split('\'').nth(1).unwrap().to_owned();
        rig.double.change(|kv| kv.set(document));
        let problems = rig.adapter.check(&endpoints()).await;
        assert!(problems.iter().all(|problem| problem.severity == Severity::Info), "{problems:?}");
    }
}

#[tokio::test]
async fn a_key_that_vanished_is_made_again_by_the_opening() {
    let rig = rig().await;
    rig.double.change(|kv| kv.value = None);
    rig.adapter.release(&endpoints()[1], soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [TARGET, "pool:6432"]);
}

/// The time to settle is part of the pause, and begins when the service shows that writes are held.
#[tokio::test]
async fn a4_a_hold_lets_instances_hear_of_it_within_the_budget() {
    let rig = rig().await;
    let settles = adapter(&rig.double.url, &format!("{KEYS}\nsettle = \"400ms\""), &rig.journal);
    assert!(settles.hold_calls().iter().any(|call| call.contains("400ms")), "{:?}", settles.hold_calls());
    let begun = Instant::now();
    settles.hold(soon()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    let begun = Instant::now();
    let error = settles.hold(begun + Duration::from_millis(390)).await.unwrap_err();
    assert!(error.is_time_out() && begun.elapsed() < Duration::from_millis(640), "{}", error.report());
}

#[tokio::test]
async fn a4_who_watches_the_key_hears_of_a_hold_at_once() {
    let rig = rig().await;
    rustls::crypto::ring::default_provider().install_default().ok();
    let url = format!("{}/{}?index=100&wait=20s", rig.double.url, PATH.join("/"));
    let watch = reqwest::Client::builder().no_proxy().build().unwrap().get(url).header("x-consul-token", TOKEN);
    let begun = Instant::now();
    let (answer, held) = tokio::join!(watch.send(), rig.adapter.hold(soon()));
    held.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let answer = answer.unwrap();
    assert_eq!(answer.headers()["x-consul-index"], "101");
    let entry: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let document = BASE64_STANDARD.decode(entry[0]["Value"].as_str().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&document).unwrap()["enabled"], false);
}
