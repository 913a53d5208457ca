//! Consul's KV store.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use cutover_core::Side;
use cutover_testkit::Certificates;
use cutover_traffic::{ServiceFault, Severity, TrafficError};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

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

/// Over TLS, and only with whom the plan trusts.
#[tokio::test]
async fn a_service_behind_tls_is_trusted_by_the_plans_ca_file_only() {
    let rig = rig().await;
    let folder = tempfile::tempdir().unwrap();
    let files = Certificates::make(folder.path()).unwrap();
    let port = encrypted(&files, rig.double.url.trim_start_matches("http://").to_owned()).await;
    let url = format!("https://localhost:{port}");
    let trusting = adapter(&url, &format!("{KEYS}\nca_file = \"{}\"", files.root.display()), &rig.journal);
    trusting.hold(soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [""; 0]);
    trusting.release(&endpoints()[1], soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [TARGET, "pool:6432"]);
    let distrusting = adapter(&url, &format!("{KEYS}\nca_file = \"{}\"", files.certificate.display()), &rig.journal);
    rig.double.take_requests();
    let error = distrusting.hold(Instant::now() + Duration::from_millis(500)).await.unwrap_err();
    assert!(error.is_time_out() && error.report().contains("certificate"), "{}", error.report());
    assert!(rig.double.take_requests().is_empty());
}

/// Speaks TLS in front of `to`.
async fn encrypted(files: &Certificates, to: String) -> u16 {
    let certificates = CertificateDer::pem_file_iter(&files.certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth().with_single_cert(certificates, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                // One that distrusts the certificate goes away.
                let Ok(mut client) = acceptor.accept(socket).await else { return };
                let mut service = TcpStream::connect(to).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut service).await.ok();
            });
        }
    });
    port
}
