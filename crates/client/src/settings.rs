//! What a client is told by its code and its environment. The code goes first.

use std::path::PathBuf;

use cutover_wire::{Reach, ReachError, Token};

use crate::Error;

/// What one of the two says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) server: Option<String>,
    pub(crate) token: Option<Token>,
    pub(crate) instance: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) ca: Option<Ca>,
}

/// Who vouches for the server.
#[derive(Clone, Debug)]
pub(crate) enum Ca {
    Pem(Vec<u8>),
    File(PathBuf),
}

/// Settings that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) reach: Reach,
    pub(crate) instance: String,
    pub(crate) database: Option<String>,
}

/// The longest instance that a server takes, in characters.
const MOST_INSTANCE: usize = 200;

/// The longest address of a database that a server takes, in characters.
const MOST_DATABASE: usize = 500;

impl Settings {
    /// Reads the environment through `lookup`. An empty variable is as good as none.
    pub(crate) fn read(lookup: impl Fn(&'static str) -> Result<Option<String>, Error>) -> Result<Self, Error> {
        let get = |name| lookup(name).map(|value| value.filter(|value| !value.is_empty()));
        Ok(Self {
            server: get("CUTOVER_SERVER")?,
            token: get("CUTOVER_TOKEN")?.map(Token::from),
            instance: get("CUTOVER_INSTANCE")?,
            database: get("CUTOVER_DATABASE")?,
            ca: get("CUTOVER_CA")?.map(|path| Ca::File(path.into())),
        })
    }

    /// What is not said here is as `other` says.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            server: self.server.or(other.server),
            token: self.token.or(other.token),
            instance: self.instance.or(other.instance),
            database: self.database.or(other.database),
            ca: self.ca.or(other.ca),
        }
    }

    /// Checks everything before anything is sent.
    pub(crate) fn check(self) -> Result<Checked, Error> {
        let server = self.server.ok_or(Error::NoServer)?;
        let instance = checked("instance", self.instance.unwrap_or_else(process), MOST_INSTANCE)?;
        let database = self.database.map(|database| checked("database", address(&database).to_owned(), MOST_DATABASE)).transpose()?;
        let reach = match self.ca {
            Some(Ca::File(path)) => Reach::with_ca_file(&server, self.token, Some(path)),
            Some(Ca::Pem(pem)) => Reach::new(&server, self.token, Some(&pem)),
            None => Reach::new(&server, self.token, None),
        };
        Ok(Checked { reach: reach?, instance, database })
    }
}

impl From<ReachError> for Error {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::Server { server, why } => Self::Server { server, why },
            error @ ReachError::Token => Self::Token { source: error },
            ReachError::Certificate { why } => Self::Certificate { why },
            ReachError::CertificateFile { path, source } => Self::CertificateFile { path, source },
            ReachError::Http(source) => Self::Http { source },
        }
    }
}

/// The host, port and database of a URL, or of what is no URL. Nothing else leaves the process.
fn address(text: &str) -> &str {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    // A password may hold anything, also where it should not: the last @ counts.
    let text = text.rsplit_once('@').map_or(text, |(_, place)| place);
    text.split(['?', '#']).next().unwrap_or_default()
}

fn checked(setting: &'static str, text: String, most: usize) -> Result<String, Error> {
    if text.is_empty() || text.chars().count() > most || text.chars().any(char::is_control) {
        return Err(Error::Setting { setting, most });
    }
    Ok(text)
}

/// The host's name and the process' number.
fn process() -> String {
    let host = hostname().filter(|host| !host.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    let host: String = host.chars().take(MOST_INSTANCE / 2).collect();
    format!("{host}-{}", std::process::id())
}

#[cfg(unix)]
fn hostname() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

#[cfg(not(unix))]
fn hostname() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &'static str) -> Result<Option<String>, Error> {
        Ok(match name {
            "CUTOVER_SERVER" => Some("https://environment".to_owned()),
            "CUTOVER_TOKEN" => Some("secret".to_owned()),
            "CUTOVER_INSTANCE" => Some(String::new()),
            "CUTOVER_DATABASE" => Some("postgres://app:p/w@r?d@db:5432/shop?sslmode=require".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn code_beats_environment_beats_default() {
        let code = Settings { server: Some("http://code:7700/base".to_owned()), ..Settings::default() };
        let checked = code.or(Settings::read(environment).unwrap()).check().unwrap();
        assert_eq!(checked.reach.address(), "http://code:7700/base/");
        assert_eq!(checked.instance, process(), "an empty variable is as good as none");
        assert!(checked.instance.ends_with(&format!("-{}", std::process::id())), "{}", checked.instance);
    }

    #[test]
    fn no_password_leaves_the_process() {
        let checked = Settings::read(environment).unwrap().check().unwrap();
        assert_eq!(checked.database.as_deref(), Some("db:5432/shop"));
        assert_eq!(["db", "db:1/a", "postgres://u@[::1]:1/a#b"].map(address), ["db", "db:1/a", "[::1]:1/a"]);
        let shown = format!("{:?}", Settings::read(environment).unwrap().token);
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn bad_settings_are_told_before_anything_is_sent() {
        let told = |settings: Settings| settings.check().unwrap_err().to_string();
        let at = |server: &str| Settings { server: Some(server.to_owned()), ..Settings::default() };
        assert!(told(Settings::default()).contains("CUTOVER_SERVER"));
        let wrong = told(at("http://a:secret@cutover"));
        assert!(wrong.contains("hint: ") && !wrong.contains("secret"), "{wrong}");
        assert!(told(Settings { instance: Some("a\nb".to_owned()), ..at("http://a") }).contains("instance"));
        assert!(told(Settings { database: Some("x".repeat(501)), ..at("http://a") }).contains("database"));
        assert!(told(Settings { token: Some(Token::from("a\nb".to_owned())), ..at("http://a") }).contains("token"));
        assert!(told(Settings { ca: Some(Ca::File("/nowhere/ca.pem".into())), ..at("http://a") }).contains("/nowhere/ca.pem"));
    }
}
