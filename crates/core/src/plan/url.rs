//! A PostgreSQL connection URL, taken apart once and checked.

use std::{collections::BTreeMap, fmt};

use url::Url;

use super::Secret;

/// How a connection is encrypted, with libpq's meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it.
    Prefer,
    /// Always; the certificate is not checked.
    Require,
    /// Always; the certificate's issuer is checked.
    VerifyCa,
    /// Always; the certificate's issuer and host name are checked.
    VerifyFull,
}

impl SslMode {
    const NAMES: [(&'static str, Self); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Prefer),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode)
    }

    /// Whether a connection without encryption is refused.
    #[must_use]
    pub fn is_required(self) -> bool {
        matches!(self, Self::Require | Self::VerifyCa | Self::VerifyFull)
    }

    /// libpq's name of the mode.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().rev().find(|(_, mode)| *mode == self).map_or("prefer", |(name, _)| name)
    }
}

/// A parsed `postgres://user:password@host:port/database?sslmode=…` URL. Its `Display` leaves the password out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// Host name, address, or the folder of a Unix socket (then it begins with `/`).
    pub host: String,
    /// TCP port, 5432 where the URL names none.
    pub port: u16,
    /// Role to log in as.
    pub user: String,
    /// Its password, if the URL carries one.
    pub password: Option<Secret>,
    /// Database.
    pub database: String,
    /// Encryption.
    pub ssl_mode: SslMode,
    /// File with the trusted root certificates; the system's where absent.
    pub ssl_root_cert: Option<String>,
}

/// Parameters of a URL that are understood.
const PARAMETERS: [&str; 5] = ["sslmode", "sslrootcert", "host", "application_name", "connect_timeout"];

impl DatabaseUrl {
    /// Parses `text`. The error says what is wrong and never repeats the URL, which may hold a password.
    ///
    /// # Errors
    /// A sentence naming the part that is missing or not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|e| format!("not a URL: {e}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(format!("the scheme is `{}`, expected `postgres`", url.scheme()));
        }
        let parameters: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        if let Some(unknown) = parameters.keys().find(|key| !PARAMETERS.contains(&key.as_str())) {
            return Err(format!("unknown parameter `{unknown}`, expected one of {}", PARAMETERS.join(", ")));
        }
        Ok(Self {
            host: host(&url, parameters.get("host"))?,
            port: url.port().unwrap_or(5432),
            user: non_empty(decode(url.username())?, "it names no user")?,
            password: url.password().map(decode).transpose()?.map(Secret::new),
            database: non_empty(decode(url.path().trim_start_matches('/'))?, "it names no database")?,
            ssl_mode: ssl_mode(parameters.get("sslmode"))?,
            ssl_root_cert: parameters.get("sslrootcert").cloned(),
        })
    }

    /// libpq's keyword form, with the password, as a server needs it to reach this one.
    #[must_use]
    pub fn conninfo(&self) -> String {
        let mut parts = vec![
            format!("host={}", quote(&self.host)),
            format!("port={}", self.port),
            format!("user={}", quote(&self.user)),
            format!("dbname={}", quote(&self.database)),
        ];
        if let Some(password) = &self.password {
            parts.push(format!("password={}", quote(password.expose())));
        }
        if self.ssl_mode != SslMode::Prefer {
            parts.push(format!("sslmode={}", self.ssl_mode.name()));
        }
        if let Some(file) = &self.ssl_root_cert {
            parts.push(format!("sslrootcert={}", quote(file)));
        }
        parts.join(" ")
    }

    /// `host:port`, for messages.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

fn host(url: &Url, parameter: Option<&String>) -> Result<String, String> {
    let host = match (url.host_str().filter(|host| !host.is_empty()), parameter) {
        (_, Some(host)) => host.clone(),
        (Some(host), None) => decode(host.trim_start_matches('[').trim_end_matches(']'))?,
        (None, None) => return Err("it names no host".to_owned()),
    };
    if host.contains(',') {
        return Err("it names several hosts; a cutover needs exactly one server".to_owned());
    }
    Ok(host)
}

fn ssl_mode(name: Option<&String>) -> Result<SslMode, String> {
    let Some(name) = name else { return Ok(SslMode::Prefer) };
    SslMode::parse(name).ok_or_else(|| format!("`{name}` is no sslmode, expected disable, prefer, require, verify-ca or verify-full"))
}

fn non_empty(text: String, otherwise: &str) -> Result<String, String> {
    if text.is_empty() { Err(otherwise.to_owned()) } else { Ok(text) }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next().unwrap_or(0), rest.next().unwrap_or(0)];
        let value = std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.ok_or("a `%` is not followed by two hexadecimal digits")?);
    }
    String::from_utf8(bytes).map_err(|_| "a percent-encoded part is not UTF-8".to_owned())
}

/// Quotes a value of a libpq keyword string.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_url_apart() {
        let url =
            DatabaseUrl::parse("postgres://app%40x:p%27w%20d@db.example:6000/orders?sslmode=verify-full&sslrootcert=/ca.pem").unwrap();
        assert_eq!((url.user.as_str(), url.host.as_str(), url.port, url.database.as_str()), ("app@x", "db.example", 6000, "orders"));
        assert_eq!(url.ssl_mode, SslMode::VerifyFull);
        assert_eq!(
            url.conninfo(),
            r"host='db.example' port=6000 user='app@x' dbname='orders' password='p\'w d' sslmode=verify-full sslrootcert='/ca.pem'"
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = DatabaseUrl::parse("postgres://app:hunter2@h/d").unwrap();
        assert!(!format!("{url} {url:?}").contains("hunter2"));
    }

    #[test]
    fn sockets_and_ipv6_are_hosts() {
        assert_eq!(DatabaseUrl::parse("postgres://u@socket/d?host=/run/pg").unwrap().host, "/run/pg");
        assert_eq!(DatabaseUrl::parse("postgres://u@%2Frun%2Fpg/d").unwrap().host, "/run/pg");
        assert_eq!(DatabaseUrl::parse("postgres://u@[::1]:5/d").unwrap().host, "::1");
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("mysql://u@h/d", "scheme is `mysql`"),
            ("postgres://h/d", "no user"),
            ("postgres://u@h", "no database"),
            ("postgres://u@h/d?sslmode=maybe", "no sslmode"),
            ("postgres://u@h/d?pool=3", "unknown parameter `pool`"),
            ("postgres://u@a,b/d", "several hosts"),
            ("orders", "not a URL"),
        ] {
            let error = DatabaseUrl::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
