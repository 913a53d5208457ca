//! Stock OpenFeature providers, as their registries have them, ask a server and an agent.

use std::{path::Path, time::Duration};

use cutover_testkit::Certificates;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    ground::{Houses, LIMIT, folder, token},
    stock::{ALL, Language, Stock, Way},
};

/// Nobody listens there.
const GONE: &str = "http://127.0.0.1:9";

/// Rules end with whole seconds, so it has to be some.
const LEASE: &str = "4s";

const WRITES: &str = "database-writes-enabled";

fn at(database: &str) -> Value {
    json!({ "targetingKey": "pod-1", "instance": "pod-1", "database": database })
}

/// Whether it can be given a token. flagd's for Node.js can't, and that for Python speaks one over TLS only.
fn takes_token(stock: Stock, tls: bool) -> bool {
    stock.way == Way::Ofrep || (stock.language == Language::Python && tls)
}

/// Whether it tells the application what stands beside a value. flagd's for Python leaves that out when it asks, and that for
/// Rust always.
fn tells_metadata(stock: Stock) -> bool {
    stock.language != Language::Rust && !(stock.language == Language::Python && stock.way == Way::Rpc)
}

/// The reason that it gives for a value, and what it calls one of another type. That for Rust says the same whatever it is
/// told; it keeps no answer, so that its `STATIC` does no harm.
fn words(stock: Stock) -> (&'static str, &'static str) {
    if stock.language == Language::Rust { ("STATIC", "PARSE_ERROR") } else { ("TARGETING_MATCH", "TYPE_MISMATCH") }
}

#[tokio::test]
async fn a2_stock_providers_are_told_the_same_as_everybody_by_server_and_agent() {
    let houses = Houses::open(&["--lease", LEASE]).await;
    for (house, url) in houses.addresses() {
        for stock in ALL {
            let (who, (reason, mismatch)) = (format!("{stock:?} at the {house}"), words(stock));
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
            assert!(told.iter().all(|told| told["reason"] == reason && told["error"].is_null()), "{who}: {told:#?}");
            assert_eq!((&told[0]["variant"], &told[1]["variant"]), (&json!("on"), &json!("off")), "{who}: {told:#?}");
            if tells_metadata(stock) {
                assert_eq!(
                    (&told[0]["metadata"]["stage"], &told[0]["metadata"]["epoch"]),
                    (&json!("source"), &json!(0)),
                    "{who}: {told:#?}"
                );
            } else {
                assert!(told[0]["metadata"].get("stage").is_none(), "{who}: {told:#?}");
            }
            // Whatever goes wrong, the application falls back to what is safe, as it says itself.
            let told = provider.asked(&[("no-such-flag", json!(false), at("old.example")), (WRITES, json!("no"), at("old.example"))]).await;
            assert_eq!((&told[0]["value"], &told[1]["value"]), (&json!(false), &json!("no")), "{who}: {told:#?}");
            assert_eq!((&told[0]["error"], &told[1]["error"]), (&json!("FLAG_NOT_FOUND"), &json!(mismatch)), "{who}: {told:#?}");
            assert!(told.iter().all(|told| told["reason"] == "ERROR"), "{who}: {told:#?}");
            // Not of a boolean: to Python that is a number.
            let told = provider.asked(&[("shop.stage", json!(7), at("old.example"))]).await;
            assert_eq!((&told[0]["value"], &told[0]["error"]), (&json!(7), &json!(mismatch)), "{who}: {told:#?}");
        }
    }
}

/// A server and an agent that want tokens, and nobody at all: the application falls back to its own default.
#[tokio::test]
async fn a4_stock_providers_fall_back_to_the_applications_default_without_a_token_that_is_known() {
    let folder = folder();
    let bearer = token(folder.path(), "pods", "client").await;
    let files = Certificates::make(folder.path()).unwrap();
    let lease = ["--lease", LEASE];
    let copy = copy(folder.path());
    let (plain, secured) =
        tokio::join!(Houses::guarded(folder, &bearer, None, &lease), Houses::guarded(copy, &bearer, Some(&files), &lease));
    let (known, wrong, root) = (Some(bearer.as_str()), Some("wrong"), Some(files.root.as_path()));
    let mut cases = vec![("nobody", GONE, None, None)];
    for (houses, root) in [(&plain, None), (&secured, root)] {
        cases.extend(houses.addresses().into_iter().flat_map(|(house, url)| [known, wrong].map(|token| (house, url, root, token))));
    }
    let ask = || [(WRITES, json!(false), at("old.example")), ("shop.stage", json!("hold"), at("old.example"))];
    let cases = cases.as_slice();
    let asked = ALL.map(|stock| async move {
        for (house, url, root, token) in cases {
            let who = format!("{stock:?} at the {house}, {url}, with {token:?}");
            let may = *token == known && *url != GONE && takes_token(stock, root.is_some());
            let told = stock.start(url, *token, *root).await.asked(&ask()).await;
            let values = if may { [json!(true), json!("source")] } else { [json!(false), json!("hold")] };
            assert_eq!([told[0]["value"].clone(), told[1]["value"].clone()], values, "{who}: {told:#?}");
            assert!(may || told.iter().all(|told| told["reason"] == "ERROR" && !told["error"].is_null()), "{who}: {told:#?}");
        }
    });
    join_all(asked).await;
}

/// Another folder with the same plan and tokens.
fn copy(of: &Path) -> tempfile::TempDir {
    let copy = folder();
    std::fs::create_dir_all(copy.path().join(".cutover")).unwrap();
    std::fs::copy(of.join(".cutover/tokens.json"), copy.path().join(".cutover/tokens.json")).unwrap();
    copy
}

/// An agent that has lost its server denies by itself.
#[tokio::test]
async fn a4_stock_providers_are_denied_by_an_agent_that_is_cut_off_within_the_lease_plus_a_second() {
    let asked = ALL.map(|stock| async move {
        let mut houses = Houses::open(&["--lease", LEASE]).await;
        let mut provider = stock.start(&houses.agent.address, None, None).await;
        let ask = [(WRITES, json!(false), at("old.example"))];
        // A provider that is not answered within its own limit says no, as on a machine with a lot to do.
        let begun = std::time::Instant::now();
        while provider.asked(&ask).await[0]["value"] != true {
            assert!(begun.elapsed() < LIMIT, "{stock:?}");
        }
        houses.server.server.child.kill().await.unwrap();
        let begun = std::time::Instant::now();
        loop {
            // An answer may come late where the machine is busy; it was true when it was given.
            let asked_after = begun.elapsed();
            if provider.asked(&ask).await[0]["value"] != true {
                break;
            }
            assert!(asked_after < Duration::from_secs(4 + 1), "{stock:?}: {asked_after:?}");
        }
        let told = provider.asked(&[("shop.database.read", json!("hold"), at("old.example"))]).await;
        assert_eq!(told[0]["value"], "source", "reads stay where they were: {stock:?}");
    });
    join_all(asked).await;
}
