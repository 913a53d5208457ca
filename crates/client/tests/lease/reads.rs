//! Where reads go, by key.

use cutover_client::{Side, Writes};
use cutover_testkit::{Proxy, eventually};

use crate::{
    LONG, SHORT, SOON,
    server::{Server, client},
};

#[tokio::test]
async fn reads_go_by_key_where_the_server_splits_them_and_stay_when_it_is_out_of_reach() {
    let server = Server::start(SHORT).await;
    let road = Proxy::start(&server.address).await.unwrap();
    let lazy = client(&road.address()).connect_lazily().unwrap();
    assert_eq!(lazy.read_from("database", "customer-17"), None, "before the first answer nothing is known");
    eventually(SOON, || async { lazy.route().is_some() }).await.unwrap();
    assert_eq!(lazy.read_from("database", "customer-17"), Some(Side::Source), "this server names no units");
    assert_eq!(lazy.read_from("orders", "customer-17"), None);

    // A published vector: shop.orders,customer-17,6665.
    server.split(&[("orders", 6666)]);
    eventually(SOON, || async { lazy.read_from("orders", "customer-17") == Some(Side::Target) }).await.unwrap();
    road.cut().await;
    eventually(SOON, || async { !lazy.may_write() }).await.unwrap();
    server.split(&[("orders", 0)]);
    assert_eq!(lazy.read_from("orders", "customer-17"), Some(Side::Target), "reads stay where they were");
    road.restore().await.unwrap();
    eventually(SOON, || async { lazy.read_from("orders", "customer-17") == Some(Side::Source) }).await.unwrap();
}

#[tokio::test]
async fn whoever_hears_of_a_route_reads_by_it() {
    let server = Server::start(LONG).await;
    let client = server.client().connect().await.unwrap();
    for authority in [Side::Target, Side::Source, Side::Target] {
        let before = client.route();
        let of_the_core = if authority == Side::Target { cutover_core::Side::Target } else { cutover_core::Side::Source };
        server.change(of_the_core, cutover_core::Writes::Open);
        let route = client.changed(before.as_ref()).await.unwrap();
        assert_eq!((route.authority, route.writes), (authority, Writes::Open));
        assert_eq!(client.read_from("database", "anybody"), Some(authority));
    }
}
