//! Certificates for a throwaway server, and TLS switched on with them.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{Cluster, Error, Result, eventually};

/// How long a server may take to read its certificate.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// The roots that clients may trust. Their files are gone when this is dropped.
#[derive(Debug)]
pub struct Encryption {
    folder: tempfile::TempDir,
}

impl Encryption {
    /// Gives the server a certificate for `localhost`, and has it speak TLS. Clients may still come without.
    ///
    /// # Errors
    /// The certificate can't be made or written, or the server does not take it.
    pub async fn switch_on(cluster: &Cluster) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|source| Error::io("make a folder for certificates", source))?;
        let files = Certificates::make(folder.path())?;
        write(&folder.path().join("another.pem"), &authority("another")?.pem())?;
        // The server's own process writes its files, so they belong to whom it runs as.
        for (file, from) in [("server.crt", &files.certificate), ("server.key", &files.key)] {
            let pem = std::fs::read_to_string(from).map_err(|source| Error::io("read a certificate", source))?;
            let program = format!("umask 077; tr -d ''\\n'' | sed ''s/|/\\n/g'' > {file}");
            let sql = format!("COPY (SELECT '{}') TO PROGRAM '{program}'", pem.trim_end().replace("\r\n", "\n").replace('\n', "|") + "|");
            cluster.execute("postgres", &sql).await?;
        }
        cluster.execute("postgres", "ALTER SYSTEM SET ssl = on").await?;
        cluster.execute("postgres", "SELECT pg_reload_conf()").await?;
        let client = cluster.client("postgres").await?;
        let on = || async { client.query_one("SHOW ssl", &[]).await.map(|row| row.get::<_, String>(0) == "on") };
        eventually(LIMIT, || async { on().await.is_ok_and(|on| on) }).await?;
        Ok(Self { folder })
    }

    /// The root that signed the server's certificate.
    #[must_use]
    pub fn root_file(&self) -> PathBuf {
        self.file("ours.pem")
    }

    /// A root that did not.
    #[must_use]
    pub fn another_root_file(&self) -> PathBuf {
        self.file("another.pem")
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}

/// The files of a server for `localhost`.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The root that signed its certificate.
    pub root: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
    /// The key to it.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes them in a folder.
    ///
    /// # Errors
    /// They can't be made or written.
    pub fn make(folder: &Path) -> Result<Self> {
        let root = authority("ours")?;
        let key = KeyPair::generate().map_err(|error| cant(&error))?;
        let params = CertificateParams::new(vec!["localhost".to_owned()]).map_err(|error| cant(&error))?;
        let certificate = params.signed_by(&key, &root).map_err(|error| cant(&error))?;
        let files = Self { root: folder.join("ours.pem"), certificate: folder.join("localhost.pem"), key: folder.join("localhost.key") };
        write(&files.root, &root.pem())?;
        write(&files.certificate, &certificate.pem())?;
        write(&files.key, &key.serialize_pem())?;
        Ok(files)
    }
}

fn write(file: &Path, pem: &str) -> Result<()> {
    std::fs::write(file, pem).map_err(|source| Error::io("write a certificate", source))
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let key = KeyPair::generate().map_err(|error| cant(&error))?;
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| cant(&error))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, key).map_err(|error| cant(&error))
}

fn cant(error: &rcgen::Error) -> Error {
    Error::io("make a certificate", std::io::Error::other(error.to_string()))
}
