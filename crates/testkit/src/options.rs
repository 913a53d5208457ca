//! What throwaway PostgreSQL server to start.

use std::{fmt, path::Path};

/// What every cluster is started with, unless its options say otherwise. Fit for logical replication between many
/// small servers on one machine.
const SETTINGS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("max_replication_slots", "20"),
    ("max_wal_senders", "20"),
    ("max_logical_replication_workers", "20"),
    ("max_worker_processes", "40"),
    ("max_connections", "200"),
    ("shared_buffers", "32MB"),
    // In the data folder, so that a crash leaves nothing behind on the machine.
    ("dynamic_shared_memory_type", "mmap"),
    ("listen_addresses", "127.0.0.1"),
    ("log_line_prefix", "%m [%p] %q%u@%d %a "),
    ("log_timezone", "UTC"),
    ("timezone", "UTC"),
];

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// What errors call it; also part of its folder's name.
    pub name: String,
    /// Added to `postgresql.conf` after the defaults, so these win.
    pub settings: Vec<(String, String)>,
    /// Whether commits survive a crash of the machine (`fsync`, `full_page_writes`). Servers that a test kills
    /// should be durable, the others are faster without.
    pub durable: bool,
    /// How clients prove who they are.
    pub auth: Auth,
    /// More arguments for `initdb`, such as `--data-checksums`.
    pub initdb: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { name: "postgres".to_owned(), settings: Vec::new(), durable: true, auth: Auth::Trust, initdb: Vec::new() }
    }
}

impl ClusterOptions {
    /// The defaults, under a name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// One more setting.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// Faster, but what is committed may be lost when the machine crashes (not when only the server does).
    #[must_use]
    pub fn not_durable(mut self) -> Self {
        self.durable = false;
        self
    }

    /// The lines for `postgresql.conf`.
    pub(crate) fn conf(&self, port: u16, socket_dir: &Path) -> String {
        let durable = if self.durable { "on" } else { "off" };
        let own = [("port", port.to_string()), ("unix_socket_directories", socket_dir.display().to_string())];
        let safety = ["fsync", "full_page_writes"].map(|name| (name, durable.to_owned()));
        let fixed = SETTINGS.iter().map(|(name, value)| (*name, (*value).to_owned())).chain(own).chain(safety);
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        fixed.chain(given).map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect()
    }
}

/// How clients prove who they are.
#[derive(Clone, Default)]
pub enum Auth {
    /// They needn't.
    #[default]
    Trust,
    /// SCRAM-SHA-256 passwords.
    Scram {
        /// The password of the superuser `postgres`.
        password: String,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trust => "Trust",
            Self::Scram { .. } => "Scram(***)",
        })
    }
}
