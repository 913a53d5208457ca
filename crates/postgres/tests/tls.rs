//! Encrypted connections, with libpq's meanings of `sslmode`: what is checked, and what is refused.

#![cfg(test)]

use cutover_core::plan::DatabaseUrl;
use cutover_postgres::{
    PgResult,
    connect::{Purpose, connect},
};
use cutover_testkit::{Cluster, ClusterOptions, Encryption, install};
use tokio_postgres::Client;

/// A server that speaks TLS, its certificate good for `localhost` and nothing else.
async fn encrypted() -> (Cluster, Encryption) {
    let cluster = Cluster::start(&install(15).unwrap(), ClusterOptions::named("tls")).await.unwrap();
    let encryption = Encryption::switch_on(&cluster).await.unwrap();
    (cluster, encryption)
}

async fn open(cluster: &Cluster, host: &str, parameters: &str) -> PgResult<Client> {
    let url = format!("postgres://postgres@{host}:{}/postgres?{parameters}", cluster.port());
    connect(&DatabaseUrl::parse(&url).unwrap(), &Purpose::new("tls-test")).await
}

async fn is_encrypted(client: &Client) -> bool {
    client.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn sslmode_means_what_libpq_means_by_it() {
    let (cluster, encryption) = encrypted().await;
    let (ours, other) = (encryption.root_file(), encryption.another_root_file());
    let (ours, other) = (ours.display(), other.display());
    for (host, parameters, expected) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), Some(false)),
        ("127.0.0.1", "sslmode=prefer".to_owned(), Some(true)),
        ("127.0.0.1", "sslmode=require".to_owned(), Some(true)),
        // With a root, `require` checks the issuer as well.
        ("127.0.0.1", format!("sslmode=require&sslrootcert={ours}"), Some(true)),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={other}"), None),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ours}"), Some(true)),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other}"), None),
        ("localhost", format!("sslmode=verify-full&sslrootcert={ours}"), Some(true)),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}"), None),
        // Its certificate is for another name.
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ours}"), None),
        // The system does not know our authority.
        ("localhost", "sslmode=verify-full".to_owned(), None),
    ] {
        match (open(&cluster, host, &parameters).await, expected) {
            (Ok(client), Some(encrypted)) => assert_eq!(is_encrypted(&client).await, encrypted, "{host} {parameters}"),
            (Err(error), None) => assert!(error.to_string().contains("TLS"), "{host} {parameters}: {error}"),
            (Ok(_), None) => panic!("{host} {parameters} was let in"),
            (Err(error), Some(_)) => panic!("{host} {parameters}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_replication_connection_is_encrypted_too() {
    let (cluster, _encryption) = encrypted().await;
    let url = DatabaseUrl::parse(&format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=require", cluster.port())).unwrap();
    let client = connect(&url, &Purpose { replication: true, ..Purpose::new("tls-test") }).await.unwrap();
    client.simple_query("IDENTIFY_SYSTEM").await.unwrap();
    let seen = cluster.client("postgres").await.unwrap();
    let sql = "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'tls-test'";
    assert!(seen.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_is_asked_for() {
    let cluster = Cluster::start(&install(15).unwrap(), ClusterOptions::named("plain")).await.unwrap();
    assert!(!is_encrypted(&open(&cluster, "127.0.0.1", "sslmode=prefer").await.unwrap()).await);
    for mode in ["require", "verify-ca", "verify-full"] {
        let refused = open(&cluster, "127.0.0.1", &format!("sslmode={mode}")).await.unwrap_err();
        assert!(refused.to_string().contains("does not speak TLS"), "{refused}");
    }
}
