//! How a client is set up, and what becomes of it without a server.

use std::time::Duration;

use cutover_client::{Client, Error, Reason};
use cutover_testkit::{Proxy, eventually};

use crate::{
    LONG, SOON,
    server::{Server, client},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_told_at_once() {
    let server = Server::start(LONG).await;
    let error = server.client().token("another").connect().await.unwrap_err();
    assert!(matches!(&error, Error::Rejected { why } if why.contains("401") && why.contains("not now")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_to_connect_fails_in_time_and_lazily_goes_on_and_refuses() {
    let server = Server::start(LONG).await;
    let proxy = Proxy::start(server.address.clone()).await.unwrap();
    proxy.cut().await;
    let error = client(&proxy.address()).connect_within(Duration::from_millis(200)).connect().await.unwrap_err();
    assert!(matches!(&error, Error::NoAnswer { why: Some(why), .. } if why.contains("refused")), "{error}");

    let client = client(&proxy.address()).connect_lazily().unwrap();
    assert!(client.route().is_none() && !client.may_write());
    assert!(matches!(client.write().unwrap_err().reason, Reason::NotConnected { .. }));
    proxy.restore().await.unwrap();
    let epoch = client.write_within(SOON).await.unwrap().epoch();
    assert_eq!(client.changed(None).await.unwrap().epoch, epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_names_the_process_and_the_database_and_no_password() {
    let server = Server::start(LONG).await;
    let client = server.client().instance("pod-7").connect().await.unwrap();
    let another = server.client().instance("pod-7").connect().await.unwrap();
    eventually(SOON, || async { server.report().clients == 2 }).await.unwrap();
    assert!(client.may_write() && another.may_write());
    for heard in server.heard() {
        assert_eq!((heard["instance"].as_str(), heard["database"].as_str()), (Some("pod-7"), Some("old/shop")), "{heard}");
        assert_eq!(heard["incarnation"].as_str().map(str::len), Some(32), "{heard}");
    }
    assert!(server.heard()[0]["acknowledged"].is_null(), "who acts on nothing yet acknowledges nothing");
}

#[test]
fn outside_of_a_runtime_there_is_an_error_and_no_panic() {
    assert!(matches!(Client::builder("http://127.0.0.1:1").connect_lazily(), Err(Error::NoRuntime)));
}
