//! The final archive of the old side: written by `pg_dump`, read back whole, and known by its hash.

use std::path::{Path, PathBuf};

use cutover_core::Side;
use cutover_postgres::{
    connect::{Purpose, connect},
    identity::identity,
    tools::Tools,
};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::{Cutover, EngineError, EngineResult, Notice, Report};

/// An archive that was read back.
pub(crate) struct Archive {
    pub(crate) file: String,
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
}

/// Archives the source into `file`, which must not exist.
pub(crate) async fn write(cutover: &Cutover, file: &Path, report: &dyn Report) -> EngineResult<Archive> {
    if file.exists() {
        return Err(EngineError::Mismatch {
            what: format!("{} exists already", file.display()),
            hint: "name a file that does not; an archive never overwrites".to_owned(),
        });
    }
    let url = &cutover.plan.source.url;
    let client = connect(url, &Purpose::new(&cutover.names.application("archive"))).await.map_err(EngineError::database(Side::Source))?;
    let major = identity(&client, url).await.map_err(EngineError::database(Side::Source))?.major;
    let tools = Tools::find(major, major, &cutover.tools).await.map_err(EngineError::database(Side::Source))?;
    // Under another name until it was read back: a broken archive never looks like a whole one.
    let partial = Partial(file.with_extension("partial"));
    let name = partial.0.to_string_lossy();
    report.notice(&Notice::Note(format!("archiving the source with pg_dump {}", tools.major)));
    let dumped = tools.run("pg_dump", url, &["--format=custom", "--file", &name], None).await.map_err(EngineError::database(Side::Source));
    dumped?;
    tools.run_offline("pg_restore", &["--file=/dev/null", &name], None).await.map_err(EngineError::database("archive"))?;
    let (sha256, bytes) = hash(&partial.0).await?;
    let io = |source| EngineError::Io { doing: format!("finishing {}", file.display()), source };
    tokio::fs::rename(&partial.0, file).await.map_err(io)?;
    let file = tokio::fs::canonicalize(file).await.map_err(io)?;
    Ok(Archive { file: file.to_string_lossy().into_owned(), sha256, bytes })
}

/// An archive that is not known to be whole. It goes when its maker does, also where that is broken off.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Once it is whole it has another name.
        drop(std::fs::remove_file(&self.0));
    }
}

/// The hash of a file that is on disk for good.
async fn hash(path: &Path) -> EngineResult<(String, u64)> {
    let io = |source| EngineError::Io { doing: format!("reading {}", path.display()), source };
    let mut file = tokio::fs::File::open(path).await.map_err(io)?;
    file.sync_all().await.map_err(io)?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).await.map_err(io)?;
        if read == 0 {
            return Ok((hex::encode(hash.finalize()), bytes));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
}
