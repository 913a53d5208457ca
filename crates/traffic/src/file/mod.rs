//! One variable of a configuration file, set for the side in charge.
//!
//! A file can't make anybody wait: holding is a no-op, and the database's fence keeps writes out until
//! the application has read the new value. The file is rewritten as [`crate::revise`] describes, and
//! nothing in it changes but the bytes of that one value.

mod env;
mod json;
mod template;
mod toml;
mod variable;
mod yaml;

use std::path::PathBuf;

use async_trait::async_trait;
use cutover_core::plan::Format;
use tokio::time::Instant;

use self::template::Template;
use crate::{Adapter, Endpoint, FileFault, Observation, Problem, TrafficError, adapter::within, command::direction, revise};

/// How long reading a file may take, in seconds: it may be on a network.
const READ_SECONDS: u64 = 5;

/// Adapter for one variable of a file.
pub(crate) struct FileAdapter {
    path: PathBuf,
    format: Format,
    variable: String,
    value: Template,
}

impl FileAdapter {
    pub(crate) fn new(path: PathBuf, format: Format, variable: String, value: &str) -> Result<Self, TrafficError> {
        let plan_error = |reason| TrafficError::Plan { adapter: label(&path, &variable), reason };
        let value = Template::parse(value).map_err(plan_error)?;
        Ok(Self { path, format, variable, value })
    }

    async fn current(&self, deadline: Instant) -> Result<String, TrafficError> {
        let (path, format, variable) = (self.path.clone(), self.format, self.variable.clone());
        self.blocking(deadline, "read", move || {
            let text = revise::read(&path)?;
            variable::current(format, &text, &variable).map_err(|source| TrafficError::File { path, source })
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        deadline: Instant,
        call: &str,
        work: impl FnOnce() -> Result<T, TrafficError> + Send + 'static,
    ) -> Result<T, TrafficError> {
        let path = self.path.clone();
        within(deadline, &self.name(), call, async move {
            tokio::task::spawn_blocking(work)
                .await
                .unwrap_or_else(|error| Err(TrafficError::Io { doing: "working on", path, source: error.into() }))
        })
        .await
    }

    /// Tries the rewrite for `endpoint` without writing.
    async fn rehearse(&self, endpoint: &Endpoint) -> Result<(), TrafficError> {
        let (path, format, variable, value) = (self.path.clone(), self.format, self.variable.clone(), self.value.render(endpoint));
        self.blocking(soon(), "read", move || {
            revise::writable(&path)?;
            let text = revise::read(&path)?;
            variable::replace(format, &text, &variable, &value).map(drop).map_err(|source| TrafficError::File { path, source })
        })
        .await
    }
}

#[async_trait]
impl Adapter for FileAdapter {
    fn name(&self) -> String {
        label(&self.path, &self.variable)
    }

    fn holds(&self) -> bool {
        false
    }

    fn hold_calls(&self) -> Vec<String> {
        Vec::new()
    }

    fn release_calls(&self, to: &Endpoint) -> Vec<String> {
        vec![format!("set `{}` in {} for the {}, {}", self.variable, self.path.display(), to.side, to.url.address())]
    }

    async fn observe(&self, endpoints: &[Endpoint; 2]) -> Result<Observation, TrafficError> {
        let current = self.current(soon()).await?;
        let mut matching = endpoints.iter().filter(|endpoint| self.value.render(endpoint) == current);
        let points_at = match (matching.next(), matching.next()) {
            (Some(only), None) => Some(only.side),
            _ => None,
        };
        let detail = match points_at {
            Some(side) => format!("`{}` has the value for the {side}", self.variable),
            None => format!("`{}` has the value of neither side, or of both", self.variable),
        };
        Ok(Observation { points_at, held: false, clients: None, detail })
    }

    async fn check(&self, endpoints: &[Endpoint; 2]) -> Vec<Problem> {
        let [one, other] = endpoints;
        if self.value.render(one) == self.value.render(other) {
            let fix = "use {host} and {port} in the plan's value";
            return vec![Problem::error(format!("`{}` would have the same value for both sides", self.variable), fix)];
        }
        for endpoint in endpoints {
            if let Err(error) = self.rehearse(endpoint).await {
                return vec![Problem::from_error(&error)];
            }
        }
        let info = "a file can't make clients wait: during the pause the database itself refuses writes";
        direction(self.observe(endpoints).await).into_iter().chain([Problem::info(info)]).collect()
    }

    async fn hold(&self, _deadline: Instant) -> Result<(), TrafficError> {
        Ok(())
    }

    async fn release(&self, to: &Endpoint, deadline: Instant) -> Result<(), TrafficError> {
        let (path, format, variable, value) = (self.path.clone(), self.format, self.variable.clone(), self.value.render(to));
        self.blocking(deadline, "rewrite", move || revise::edit(&path, |old| variable::replace(format, old, &variable, &value)).map(drop))
            .await
    }
}

fn label(path: &std::path::Path, variable: &str) -> String {
    format!("file {}:{variable}", path.display())
}

fn soon() -> Instant {
    Instant::now() + std::time::Duration::from_secs(READ_SECONDS)
}

/// The number of the line that `at` is in, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The only one of `found`, or why there is none.
fn only<T>(variable: &str, mut found: Vec<T>) -> Result<T, FileFault> {
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(FileFault::Ambiguous(variable.to_owned())),
        (None, _) => Err(FileFault::Missing(variable.to_owned())),
    }
}

#[cfg(test)]
mod tests;
