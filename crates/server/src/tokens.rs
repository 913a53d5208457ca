//! Who may do what: bearer tokens, of which only hashes are kept, in a file that several servers can be given.

use std::{
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::SystemTime,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ServerError;

/// What a token's holder may do; each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ask for flags and leases: an application.
    Client,
    /// Look at everything: a dashboard.
    Viewer,
    /// Drive a cutover.
    Operator,
    /// All of it.
    Admin,
}

/// A token, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose it is; what the journal names as the actor.
    pub name: String,
    /// What it lets its holder do.
    pub role: Role,
    /// The SHA-256 of its text, in hexadecimal. The text itself has 256 random bits, so there is nothing to guess.
    pub sha256: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// From when on it is none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Token {
    /// Whether it still counts.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|until| now < until)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Token>,
}

/// The file of all tokens.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
}

/// How a token's text begins, so that one that leaked is recognised.
const PREFIX: &str = "cutover_";

impl TokenFile {
    /// The file at `path`; there may be none yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tokens.
    ///
    /// # Errors
    /// [`ServerError::Tokens`] if it can't be read, or holds something else.
    pub fn read(&self) -> Result<Vec<Token>, ServerError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("can't be read", &error)),
        };
        let file: File = serde_json::from_str(&text).map_err(|error| self.failed("holds something else than tokens", &error))?;
        Ok(file.tokens)
    }

    /// Makes a token and says its text, which nobody can tell afterwards.
    ///
    /// # Errors
    /// [`ServerError::Tokens`] if there is one of this name, or the file can't be written.
    pub fn make(&self, name: &str, role: Role, expires_at: Option<Timestamp>) -> Result<String, ServerError> {
        if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            return Err(self.failed("takes no such name", &"a name has 1 to 100 characters"));
        }
        let mut tokens = self.read()?;
        let now = Timestamp::now();
        tokens.retain(|token| token.is_valid(now));
        if tokens.iter().any(|token| token.name == name) {
            return Err(self.failed("has a token of this name", &format!("`{name}`; revoke it first, or choose another name")));
        }
        let text = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
        tokens.push(Token { name: name.to_owned(), role, sha256: digest(&text), made_at: now, expires_at });
        self.write(tokens)?;
        Ok(text)
    }

    /// Takes a token back, and says whether there was one.
    ///
    /// # Errors
    /// [`ServerError::Tokens`] if the file can't be written.
    pub fn revoke(&self, name: &str) -> Result<bool, ServerError> {
        let mut tokens = self.read()?;
        let before = tokens.len();
        tokens.retain(|token| token.name != name);
        let revoked = tokens.len() < before;
        if revoked {
            self.write(tokens)?;
        }
        Ok(revoked)
    }

    /// In one rename, readable for its owner only.
    fn write(&self, tokens: Vec<Token>) -> Result<(), ServerError> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |error: &dyn std::fmt::Display| self.failed("can't be written", error);
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        let text = serde_json::to_string_pretty(&File { tokens }).map_err(|error| failed(&error))?;
        // A temporary file is made for its owner only.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
        writeln!(file, "{text}").and_then(|()| file.as_file().sync_all()).map_err(|error| failed(&error))?;
        file.persist(&self.path).map_err(|error| failed(&error.error)).map(drop)
    }

    fn failed(&self, what: &str, why: &dyn std::fmt::Display) -> ServerError {
        ServerError::Tokens(format!("{} {what}: {why}", self.path.display()))
    }
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// The tokens as a server knows them: read again when the file has changed.
#[derive(Debug)]
pub(crate) struct Tokens {
    file: TokenFile,
    read: RwLock<Read>,
}

#[derive(Debug, Default)]
struct Read {
    /// Which file it was, and when it was written.
    version: Option<(u64, SystemTime)>,
    tokens: Vec<Token>,
    /// Whether there has ever been one.
    ever: bool,
}

impl Tokens {
    pub(crate) fn open(file: TokenFile) -> Result<Self, ServerError> {
        let tokens = Self { file, read: RwLock::default() };
        tokens.look()?;
        Ok(tokens)
    }

    /// Reads the file if it was written since. One that can't be read changes nothing.
    pub(crate) fn look(&self) -> Result<(), ServerError> {
        let version = std::fs::metadata(self.file.path()).ok().and_then(|data| Some((data.ino(), data.modified().ok()?)));
        if version.is_some() && version == self.lock().version {
            return Ok(());
        }
        let tokens = self.file.read()?;
        let ever = self.lock().ever || !tokens.is_empty();
        *self.read.write().unwrap_or_else(PoisonError::into_inner) = Read { version, tokens, ever };
        Ok(())
    }

    /// Whether there has never been any: then nobody is asked for it. Who revokes the last one wants nobody in, rather
    /// than everybody.
    pub(crate) fn is_unused(&self) -> bool {
        !self.lock().ever
    }

    /// Whose a text is. Hashes are compared, so how long that takes tells nothing of a token.
    pub(crate) fn find(&self, text: &str) -> Option<Token> {
        let sha256 = digest(text);
        let now = Timestamp::now();
        self.lock().tokens.iter().find(|token| token.sha256 == sha256 && token.is_valid(now)).cloned()
    }

    fn lock(&self) -> RwLockReadGuard<'_, Read> {
        self.read.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::ToSpan;

    use super::*;

    fn file(folder: &tempfile::TempDir) -> TokenFile {
        TokenFile::new(folder.path().join("state").join("tokens.json"))
    }

    #[test]
    fn a_token_is_kept_as_a_hash_and_found_by_its_text_only() {
        let folder = tempfile::tempdir().unwrap();
        let text = file(&folder).make("grafana", Role::Viewer, None).unwrap();
        let kept = std::fs::read_to_string(file(&folder).path()).unwrap();
        assert!(text.starts_with(PREFIX) && !kept.contains(&text[PREFIX.len()..]), "{kept}");
        assert_eq!(std::fs::metadata(file(&folder).path()).unwrap().permissions().mode() & 0o777, 0o600);
        let tokens = Tokens::open(file(&folder)).unwrap();
        assert_eq!(tokens.find(&text).map(|token| (token.name, token.role)), Some(("grafana".to_owned(), Role::Viewer)));
        for other in ["", "cutover_", &text[..text.len() - 1], &kept] {
            assert_eq!(tokens.find(other), None);
        }
    }

    #[test]
    fn a_token_ends_when_it_is_revoked_or_expires() {
        let folder = tempfile::tempdir().unwrap();
        let past = Timestamp::now().checked_sub(1.second()).unwrap();
        let expired = file(&folder).make("old", Role::Admin, Some(past)).unwrap();
        let revoked = file(&folder).make("ci", Role::Operator, None).unwrap();
        let tokens = Tokens::open(file(&folder)).unwrap();
        assert!(tokens.find(&expired).is_none() && tokens.find(&revoked).is_some());
        assert!(file(&folder).revoke("ci").unwrap() && !file(&folder).revoke("ci").unwrap());
        tokens.look().unwrap();
        assert!(tokens.find(&revoked).is_none());
    }

    #[test]
    fn two_of_one_name_are_refused_and_a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        file(&folder).make("a", Role::Client, None).unwrap();
        assert!(file(&folder).make("a", Role::Client, None).unwrap_err().to_string().contains("`a`"));
        assert!(file(&folder).make("", Role::Client, None).is_err());
        std::fs::write(file(&folder).path(), "{").unwrap();
        let error = Tokens::open(file(&folder)).unwrap_err().to_string();
        assert!(error.contains("tokens.json"), "{error}");
    }

    #[test]
    fn roles_stand_above_each_other() {
        assert!(Role::Client < Role::Viewer && Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }
}
