//! Connection URLs, and sessions opened by them.

use std::time::Duration;

use tokio_postgres::{Client, NoTls, config::SslMode};

use crate::{Error, Result};

/// How long a session may take to be opened.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// `postgres://user[:password]@127.0.0.1:port/db`, with every part written so that it is read back as it was.
pub(crate) fn url(user: &str, password: Option<&str>, port: u16, db: &str) -> String {
    let password = password.map(|password| format!(":{}", encode(password))).unwrap_or_default();
    format!("postgres://{}{password}@127.0.0.1:{port}/{}", encode(user), encode(db))
}

/// Opens a session, and drives it in the background until the client is dropped.
pub(crate) async fn connect(url: &str, doing: &str) -> Result<Client> {
    let mut config: tokio_postgres::Config = url.parse().map_err(|source| Error::sql(doing, source))?;
    config.ssl_mode(SslMode::Disable).connect_timeout(CONNECT_LIMIT);
    if config.get_application_name().is_none() {
        config.application_name("testkit");
    }
    let connecting = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls)).await;
    let (client, connection) =
        connecting.map_err(|_| Error::timed_out(doing, CONNECT_LIMIT))?.map_err(|source| Error::sql(doing, source))?;
    // How it ends is told to whoever uses the client.
    tokio::spawn(connection);
    Ok(client)
}

fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_survive_the_url() {
        let config: tokio_postgres::Config = url("a@b", Some("p:/w%?"), 1234, "my db/ü").parse().unwrap();
        assert_eq!(config.get_user(), Some("a@b"));
        assert_eq!(config.get_password(), Some("p:/w%?".as_bytes()));
        assert_eq!(config.get_dbname(), Some("my db/ü"));
        assert_eq!(config.get_ports(), [1234]);
    }
}
