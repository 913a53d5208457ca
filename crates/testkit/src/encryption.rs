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
        let (ours, another) = (authority("ours")?, authority("another")?);
        let key = KeyPair::generate().map_err(|error| cant(&error))?;
        let params = CertificateParams::new(vec!["localhost".to_owned()]).map_err(|error| cant(&error))?;
        let certificate = params.signed_by(&key, &ours).map_err(|error| cant(&error))?;
        let folder = tempfile::tempdir().map_err(|source| Error::io("make a folder for certificates", source))?;
        for (name, root) in [("ours.pem", &ours), ("another.pem", &another)] {
            std::fs::write(folder.path().join(name), root.pem()).map_err(|source| Error::io("write a certificate", source))?;
        }
        // The server's own process writes its files, so they belong to whom it runs as.
        for (file, pem) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
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
