//! The Rust SDK against the server itself.

use std::time::{Duration, Instant};

use cutover_client::{Client, Reason, Side};
use cutover_testkit::{Certificates, eventually};

use crate::ground::{LIMIT, Server, folder, token};

#[tokio::test]
async fn a7_a_client_outlives_its_server_refuses_within_the_lease_and_goes_on_with_the_next() {
    let folder = folder();
    let secret = token(folder.path(), "shop", "client").await;
    let files = Certificates::make(folder.path()).unwrap();
    let root = std::fs::read(&files.root).unwrap();
    let tls = ["--tls-certificate", files.certificate.to_str().unwrap(), "--tls-key", files.key.to_str().unwrap()];
    let mut server = Server::start_in(folder, &[&tls[..], &["--lease", "1s"]].concat(), Some(&files.root)).await;
    let address = server.address.replace("127.0.0.1", "localhost");
    let builder = || Client::builder(&address).token(&secret).ca_certificate(root.clone());
    let client = builder().database("postgres://a:hunter2@old.example/shop").connect().await.unwrap();
    let other = builder().database("new.example:5433").connect().await.unwrap();
    assert_eq!(client.write().unwrap().epoch(), 0);
    assert_eq!(client.route().unwrap().authority, Side::Source);
    assert!(matches!(other.write().unwrap_err().reason, Reason::WrongDatabase { .. }));
    let stranger = Client::builder(&address).ca_certificate(root.clone()).connect().await.unwrap_err();
    assert!(stranger.to_string().contains("401"), "{stranger}");

    let begun = Instant::now();
    server.server.child.kill().await.unwrap();
    eventually(LIMIT, || async { !client.may_write() }).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "the lease plus one second: {:?}", begun.elapsed());
    assert!(matches!(client.write().unwrap_err().reason, Reason::CutOff { .. }));
    assert_eq!(client.route().unwrap().authority, Side::Source);

    let listen = address.rsplit_once(':').unwrap().1;
    let listen = format!("127.0.0.1:{listen}");
    let Server { folder, .. } = server;
    let next = Server::start_in(folder, &[&tls[..], &["--listen", &listen]].concat(), Some(&files.root)).await;
    assert_eq!(client.write_within(LIMIT).await.unwrap().epoch(), 0);
    client.close().await;
    drop(next);
}
