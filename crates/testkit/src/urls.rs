//! Connection URLs.

/// `postgres://user[:password]@127.0.0.1:port/db`, with every part written so that it is read back as it was.
pub(crate) fn url(user: &str, password: Option<&str>, port: u16, db: &str) -> String {
    let password = password.map(|password| format!(":{}", encode(password))).unwrap_or_default();
    format!("postgres://{}{password}@127.0.0.1:{port}/{}", encode(user), encode(db))
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
