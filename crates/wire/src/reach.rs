//! Where a server is, who asks, and whom to trust; checked before anything is sent.

use std::{fmt, path::PathBuf, sync::Arc};

use reqwest::{Url, header::HeaderValue};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// The longest token. Unit: characters.
const MOST_TOKEN: usize = 4096;

/// What a server knows somebody by. It is printed nowhere.
#[derive(Clone)]
pub struct Token(String);

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A server that can be asked.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Ends with a slash.
    pub(crate) server: Url,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) tls: ClientConfig,
}

/// What was said of a server is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The address is none.
    #[error("`{server}` is no address of a cutover server: {why}")]
    Server {
        /// As it was given, without a password.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// The token can't be sent.
    #[error("the token has to have 1 to {MOST_TOKEN} characters, none of which is a control character")]
    Token,
    /// There is nothing to check the server's certificate by.
    #[error("can't check the server's certificate: {why}")]
    Certificate {
        /// What is wrong.
        why: String,
    },
    /// The file with the certificate can't be read.
    #[error("can't read the certificate in {}: {source}", path.display())]
    CertificateFile {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The HTTP client can't be made.
    #[error("can't make an HTTP client: {0}")]
    Http(reqwest::Error),
}

impl ReachError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Server { .. } => Some("http://127.0.0.1:7700, or https://cutover.example"),
            Self::Certificate { .. } => Some("give the certificate of its authority, in PEM form"),
            Self::Token | Self::CertificateFile { .. } | Self::Http(_) => None,
        }
    }
}

impl Reach {
    /// A server at an address, who asks it, and the certificates of those who vouch for it, in PEM form; without them
    /// those count that the system trusts.
    ///
    /// # Errors
    /// See [`ReachError`].
    pub fn new(server: &str, token: Option<Token>, ca: Option<&[u8]>) -> Result<Self, ReachError> {
        let server = url(server)?;
        let authorization = token.map(authorization).transpose()?;
        let tls = trust(&server, ca)?;
        Ok(Self { server, authorization, tls })
    }

    /// The same, with the certificates in a file.
    ///
    /// # Errors
    /// See [`ReachError`].
    pub fn with_ca_file(server: &str, token: Option<Token>, ca: Option<PathBuf>) -> Result<Self, ReachError> {
        let read = |path: PathBuf| std::fs::read(&path).map_err(|source| ReachError::CertificateFile { path, source });
        Self::new(server, token, ca.map(read).transpose()?.as_deref())
    }

    /// Where the server is.
    #[must_use]
    pub fn address(&self) -> &str {
        self.server.as_str()
    }
}

/// How to speak TLS with `server`: it trusts the certificates in `ca`, in PEM form, else whom the system trusts.
///
/// # Errors
/// [`ReachError::Certificate`] where there is nobody to trust.
pub fn trust(server: &Url, ca: Option<&[u8]>) -> Result<ClientConfig, ReachError> {
    let certificate = |why: String| ReachError::Certificate { why };
    let mut roots = RootCertStore::empty();
    if let Some(pem) = ca {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        for der in certificates.map_err(|error| certificate(error.to_string()))? {
            roots.add(der).map_err(|error| certificate(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(certificate("there is none in what was given".to_owned()));
        }
    } else if server.scheme() == "https" {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(certificate("this system trusts nobody".to_owned()));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let config = config.map_err(|error| certificate(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn url(text: &str) -> Result<Url, ReachError> {
    let wrong = |why: &str| ReachError::Server { server: without_password(text).to_owned(), why: why.to_owned() };
    let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("it begins neither with http:// nor with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("who asks is told by a token, not by a name in the address"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has to end with the path, if it has one"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// A password may hold anything, also where it should not: the last @ counts.
fn without_password(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, place)| place).split(['?', '#']).next().unwrap_or_default()
}

fn authorization(Token(token): Token) -> Result<HeaderValue, ReachError> {
    if token.is_empty() || token.chars().count() > MOST_TOKEN || token.chars().any(char::is_control) {
        return Err(ReachError::Token);
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ReachError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_ends_with_a_slash_so_that_paths_go_behind_it() {
        let reach = Reach::new("http://code:7700/base", None, None).unwrap();
        assert_eq!(reach.address(), "http://code:7700/base/");
    }

    #[test]
    fn what_is_wrong_is_told_before_anything_is_sent_and_without_secrets() {
        let token = |text: &str| Some(Token::from(text.to_owned()));
        for server in ["cutover", "ftp://cutover", "http://a:secret@cutover", "http://cutover/?a=b", "http://", "x secret@y"] {
            let error = Reach::new(server, None, None).unwrap_err();
            assert!(error.hint().is_some() && !error.to_string().contains("secret"), "{error}");
        }
        assert!(matches!(Reach::new("http://a", token("a\nb"), None), Err(ReachError::Token)));
        assert!(matches!(Reach::new("http://a", token(""), None), Err(ReachError::Token)));
        assert!(matches!(Reach::new("https://a", None, Some(b"no certificate")), Err(ReachError::Certificate { .. })));
        let gone = Reach::with_ca_file("http://a", None, Some("/nowhere/ca.pem".into())).unwrap_err();
        assert!(gone.to_string().contains("/nowhere/ca.pem"), "{gone}");
        let shown = format!("{:?} {:?}", token("hunter2"), Reach::new("http://a", token("hunter2"), None).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
