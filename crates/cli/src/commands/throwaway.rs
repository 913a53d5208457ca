//! Which throwaway servers to start, for the demo and for rehearsals.

use cutover_testkit::{Install, install, installs};

use crate::output::Failure;

/// The majors asked for; otherwise the oldest at hand, and the newest whose schema can be read and written.
pub(super) fn versions(source: Option<u32>, target: Option<u32>) -> Result<(Install, Install), Failure> {
    let all = installs();
    let pick = |major: Option<u32>, otherwise: Option<&Install>| match (major, otherwise) {
        (Some(major), _) => Ok(install(major)?),
        (None, Some(install)) => Ok(install.clone()),
        (None, None) => Err(Failure::new("no PostgreSQL server is installed here")
            .with_hint("on Debian or Ubuntu: apt-get install postgresql pgbouncer; on macOS: brew install postgresql pgbouncer")),
    };
    Ok((pick(source, all.iter().find(|install| install.tools.is_some()))?, pick(target, all.last())?))
}
