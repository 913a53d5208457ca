//! PostgreSQL's client programs: which ones fit, and how they are run.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use cutover_core::plan::DatabaseUrl;
use tokio::process::Command;

use crate::{PgError, PgResult};

/// How much of what a program says is kept for an error.
const STDERR_KEPT: usize = 4000;

/// The programs of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// Their major version.
    pub major: u32,
    folder: PathBuf,
}

impl Tools {
    /// Finds programs that can read a server of major `reads`, and best ones that write as a server of major `writes`
    /// understands: the smallest version that is new enough, which knows no settings that the other lacks.
    /// `more` are folders to look in besides the usual ones.
    ///
    /// # Errors
    /// [`PgError::Refused`] naming the version that is missing, those that are here, and how to get it.
    pub async fn find(reads: u32, writes: u32, more: &[PathBuf]) -> PgResult<Self> {
        let mut found = Vec::new();
        for folder in folders(more) {
            if let Some(major) = version(&folder).await {
                found.push(Self { major, folder });
            }
        }
        found.sort_by_key(|tools| tools.major);
        let wanted = reads.max(writes);
        let fits = found.iter().find(|tools| tools.major >= wanted).or_else(|| found.iter().rev().find(|tools| tools.major >= reads));
        fits.cloned().ok_or_else(|| {
            let here: Vec<String> = found.iter().map(|tools| format!("{} in {}", tools.major, tools.folder.display())).collect();
            let here = if here.is_empty() { "none".to_owned() } else { here.join(", ") };
            PgError::Refused {
                what: format!("pg_dump {reads} or newer is needed to read a PostgreSQL {reads} server; found: {here}"),
                hint: Some(format!("Debian, Ubuntu: apt-get install postgresql-client-{reads}; macOS: brew install postgresql@{reads}")),
            }
        })
    }

    /// Runs a program against a database. The password goes through the environment of the child and nowhere else.
    ///
    /// # Errors
    /// [`PgError::Tool`] with the end of what it said, [`PgError::TimedOut`].
    pub async fn run(&self, program: &str, url: &DatabaseUrl, arguments: &[&str], limit: Option<Duration>) -> PgResult<Vec<u8>> {
        let mut command = self.command(program, arguments);
        command
            .env("PGHOST", &url.host)
            .env("PGPORT", url.port.to_string())
            .env("PGUSER", &url.user)
            .env("PGDATABASE", &url.database)
            .env("PGSSLMODE", url.ssl_mode.name())
            .env("PGCONNECT_TIMEOUT", "10");
        if let Some(password) = &url.password {
            command.env("PGPASSWORD", password.expose());
        }
        if let Some(file) = &url.ssl_root_cert {
            command.env("PGSSLROOTCERT", file);
        }
        output(program, command, limit).await
    }

    /// Runs a program on files alone.
    ///
    /// # Errors
    /// As [`Tools::run`].
    pub async fn run_offline(&self, program: &str, arguments: &[&str], limit: Option<Duration>) -> PgResult<Vec<u8>> {
        output(program, self.command(program, arguments), limit).await
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join(program));
        for name in ["PGSERVICE", "PGHOSTADDR", "PGOPTIONS", "PGTARGETSESSIONATTRS"] {
            command.env_remove(name);
        }
        command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

async fn output(program: &str, mut command: Command, limit: Option<Duration>) -> PgResult<Vec<u8>> {
    let limit = limit.unwrap_or(Duration::from_secs(7 * 24 * 3600));
    let output = match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.map_err(|source| PgError::Io { doing: format!("running {program}"), source })?,
        Err(_) => return Err(PgError::TimedOut { doing: format!("running {program}"), limit }),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let from = stderr.char_indices().rev().nth(STDERR_KEPT).map_or(0, |(at, _)| at);
    Err(PgError::Tool { program: program.to_owned(), stderr: stderr[from..].trim().to_owned() })
}

/// `pg_dump --version` says `pg_dump (PostgreSQL) 15.18 (Debian …)`.
async fn version(folder: &Path) -> Option<u32> {
    let program = folder.join("pg_dump");
    if !program.exists() {
        return None;
    }
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let said = output("pg_dump", command, Some(Duration::from_secs(10))).await.ok()?;
    parse_version(&String::from_utf8_lossy(&said))
}

fn parse_version(said: &str) -> Option<u32> {
    said.split(") ").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn folders(more: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders = more.to_vec();
    for parent in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/usr/pgsql"] {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        folders.extend(entries.flatten().map(|entry| entry.path().join("bin")).filter(|bin| bin.join("pg_dump").exists()));
    }
    folders.extend((13..=18).map(|major| PathBuf::from(format!("/usr/pgsql-{major}/bin"))));
    folders.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_the_program_says() {
        assert_eq!(parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_version("pg_dump (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_version("nonsense"), None);
    }

    #[tokio::test]
    async fn a_missing_version_is_named_with_a_way_to_get_it() {
        let error = Tools::find(99, 99, &[]).await.unwrap_err();
        assert!(error.to_string().contains("pg_dump 99 or newer"), "{error}");
        assert!(error.hint().unwrap_or_default().contains("apt-get install postgresql-client-99"));
    }
}
