//! Finds the server programs on this machine.
//!
//! Looked at, best first: the folder in `$CUTOVER_SERVERS`, PostgreSQL as Debian and Homebrew install it, the one
//! on the `PATH`, and `.servers/` in a folder above the current one or the running program, which
//! `scripts/servers.sh` fills.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::{Error, Result};

/// One PostgreSQL server that can be started here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// 15 in 15.18.
    pub major: u32,
    /// The whole version, as `postgres --version` tells it.
    pub version: String,
    /// The folder with `postgres`, `initdb` and `pg_ctl`.
    pub bin: PathBuf,
    /// The folder with `pg_dump`, `psql` and `pgbench` that can talk to this server: its own, or a newer one.
    pub tools: Option<PathBuf>,
}

/// One `PgBouncer` that can be started here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgBouncerInstall {
    /// Major and minor, as in `(1, 18)`.
    pub version: (u32, u32),
    /// The program.
    pub program: PathBuf,
}

/// Every PostgreSQL major that can be started here, oldest first. Found out once per process.
#[must_use]
pub fn installs() -> Vec<Install> {
    static FOUND: OnceLock<Vec<Install>> = OnceLock::new();
    FOUND.get_or_init(find_installs).clone()
}

/// The server of this major.
///
/// # Errors
/// [`Error::NotInstalled`], with a hint how to get it.
pub fn install(major: u32) -> Result<Install> {
    installs().into_iter().find(|install| install.major == major).ok_or_else(|| Error::NotInstalled {
        what: format!("PostgreSQL {major}"),
        hint: match major {
            13 | 14 | 16..=18 => format!("run scripts/servers.sh {major}"),
            _ => format!(
                "on Debian or Ubuntu: apt-get install postgresql-{major}; elsewhere set CUTOVER_SERVERS to a folder with {major}/bin"
            ),
        },
    })
}

/// The newest folder with `pg_dump`, `psql` and `pgbench`: these can talk to every older server.
///
/// # Errors
/// [`Error::NotInstalled`] if there are none.
pub fn newest_tools() -> Result<PathBuf> {
    tools().values().next_back().cloned().ok_or_else(|| Error::NotInstalled {
        what: "pg_dump".to_owned(),
        hint: "run scripts/servers.sh, or on Debian and Ubuntu: apt-get install postgresql-client".to_owned(),
    })
}

/// A file of a Debian package that `scripts/samples.sh` has unpacked: the schema of a real application. None where the
/// package is not to be had; then a test leaves it out and says so.
///
/// # Errors
/// [`Error::NotInstalled`] if it is not there though `$CI` is set: there nothing is left out.
pub fn sample(package: &str, file: &str) -> Result<Option<PathBuf>> {
    let found = folders().into_iter().map(|folder| folder.join("samples").join(package).join(file)).find(|path| path.is_file());
    if found.is_none() && std::env::var_os("CI").is_some() {
        return Err(Error::NotInstalled { what: format!("{file} of {package}"), hint: "run scripts/samples.sh".to_owned() });
    }
    Ok(found)
}

/// The folder with the stock OpenFeature providers that `scripts/providers.sh` has fetched.
///
/// # Errors
/// [`Error::NotInstalled`] if they are not there.
pub fn providers() -> Result<PathBuf> {
    let found = folders().into_iter().map(|folder| folder.join("providers")).find(|folder| folder.join("python/.version").is_file());
    found.ok_or_else(|| Error::NotInstalled { what: "OpenFeature's providers".to_owned(), hint: "run scripts/providers.sh".to_owned() })
}

/// Every version of `PgBouncer` that can be started here, oldest first.
#[must_use]
pub fn pgbouncers() -> Vec<PgBouncerInstall> {
    static FOUND: OnceLock<Vec<PgBouncerInstall>> = OnceLock::new();
    FOUND.get_or_init(find_pgbouncers).clone()
}

/// The newest `PgBouncer`.
///
/// # Errors
/// [`Error::NotInstalled`] if there is none.
pub fn pgbouncer() -> Result<PgBouncerInstall> {
    pgbouncers().pop().ok_or_else(|| Error::NotInstalled {
        what: "PgBouncer".to_owned(),
        hint: "run scripts/servers.sh, or on Debian and Ubuntu: apt-get install pgbouncer".to_owned(),
    })
}

/// A folder with client tools for servers of at least this major, preferring the very major.
pub(crate) fn tools_for(major: u32) -> Option<PathBuf> {
    tools().range(major..).next().map(|(_, bin)| bin.clone())
}

fn find_installs() -> Vec<Install> {
    let mut found = BTreeMap::new();
    for bin in postgres_folders() {
        let Some((major, version)) = version(&bin.join("postgres")).filter(|_| bin.join("initdb").exists()) else { continue };
        found.entry(major).or_insert_with(|| Install { major, version, tools: tools_for(major), bin });
    }
    found.into_values().collect()
}

/// Folders with client tools by their major.
fn tools() -> &'static BTreeMap<u32, PathBuf> {
    static FOUND: OnceLock<BTreeMap<u32, PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found = BTreeMap::new();
        let fetched = folders().into_iter().flat_map(|folder| children(&folder.join("tools")));
        for bin in postgres_folders().into_iter().chain(fetched.map(|child| child.join("bin"))) {
            if let Some((major, _)) = version(&bin.join("pg_dump")).filter(|_| bin.join("psql").exists()) {
                found.entry(major).or_insert(bin);
            }
        }
        found
    })
}

fn find_pgbouncers() -> Vec<PgBouncerInstall> {
    let mut programs: Vec<_> =
        folders().into_iter().flat_map(|folder| children(&folder.join("pgbouncer"))).map(|child| child.join("bin/pgbouncer")).collect();
    programs.extend(
        path_folders()
            .into_iter()
            .chain(["/usr/sbin".into(), "/usr/bin".into(), "/opt/homebrew/bin".into(), "/usr/local/bin".into()])
            .map(|folder| folder.join("pgbouncer")),
    );
    let mut found = BTreeMap::new();
    for program in programs {
        if let Some(version) = said_version(&program).as_deref().and_then(major_and_minor) {
            found.entry(version).or_insert(PgBouncerInstall { version, program });
        }
    }
    found.into_values().collect()
}

/// Every `bin` folder that may hold a server, best first.
fn postgres_folders() -> Vec<PathBuf> {
    let mut bins: Vec<PathBuf> = Vec::new();
    let own = own_folder();
    let debian = children(Path::new("/usr/lib/postgresql"));
    bins.extend(
        own.iter()
            .flat_map(|folder| children(folder).into_iter().chain(children(&folder.join("postgresql"))))
            .chain(debian)
            .map(|child| child.join("bin")),
    );
    bins.extend(homebrew_folders());
    bins.extend(pg_config_folder());
    bins.extend(folders().into_iter().flat_map(|folder| children(&folder.join("postgresql"))).map(|child| child.join("bin")));
    bins
}

fn homebrew_folders() -> Vec<PathBuf> {
    let prefixes = ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"];
    let formulas = prefixes.iter().flat_map(|prefix| children(Path::new(prefix)));
    let postgres = formulas.filter(|formula| formula.file_name().is_some_and(|name| name.to_string_lossy().starts_with("postgresql")));
    postgres.map(|formula| formula.join("bin")).collect()
}

fn pg_config_folder() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// The folders in the layout of `scripts/servers.sh`, best first.
fn folders() -> Vec<PathBuf> {
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let above = here.iter().chain(&program).flat_map(|start| start.ancestors()).map(|folder| folder.join(".servers"));
    own_folder().into_iter().chain(above).filter(|folder| folder.is_dir()).collect()
}

/// Absolute, since the programs in it are run from other folders.
fn own_folder() -> Option<PathBuf> {
    std::path::absolute(std::env::var_os("CUTOVER_SERVERS")?).ok()
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// The folders in a folder, sorted; none if it can't be read.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

/// Major and whole version of a PostgreSQL program.
fn version(program: &Path) -> Option<(u32, String)> {
    let said = said_version(program)?;
    let version = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    Some((leading_number(version)?, version.to_owned()))
}

/// The first line that a program answers to `--version`.
fn said_version(program: &Path) -> Option<String> {
    if !program.is_file() {
        return None;
    }
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

fn major_and_minor(said: &str) -> Option<(u32, u32)> {
    let (major, rest) = said.split_whitespace().last()?.split_once('.')?;
    Some((major.parse().ok()?, leading_number(rest)?))
}

fn leading_number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_write_them() {
        assert_eq!(major_and_minor("PgBouncer 1.25.2"), Some((1, 25)));
        assert_eq!(major_and_minor("PgBouncer 1.18.0"), Some((1, 18)));
        assert_eq!(leading_number("18beta1"), Some(18));
    }

    #[test]
    fn a_missing_major_says_how_to_get_it() {
        let error = install(12).unwrap_err();
        assert!(error.hint().unwrap().contains("postgresql-12"), "{error}");
    }

    #[test]
    fn every_server_found_has_tools_at_least_as_new() {
        let found = installs();
        assert!(!found.is_empty(), "no PostgreSQL server is installed here");
        assert!(found.is_sorted_by_key(|install| install.major));
        for install in found {
            let tools = install.tools.unwrap_or_else(|| panic!("no tools for {}", install.version));
            assert!(version(&tools.join("pg_dump")).unwrap().0 >= install.major, "{}", tools.display());
        }
    }
}
