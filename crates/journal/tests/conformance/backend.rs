//! The backends under test, each on a store of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cutover_journal::{Draft, Journal, open_postgres, open_sqlite};
use cutover_testkit::{Cluster, ClusterOptions, installs};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// A fresh store.
pub(crate) enum Backend {
    Sqlite { folder: TempDir },
    Postgres { cluster: &'static Cluster, database: String },
}

impl Backend {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn postgres() -> Self {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let cluster = cluster().await;
        let database = format!("journal_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        cluster.create_database(&database).await.unwrap();
        Self::Postgres { cluster, database }
    }

    /// The journal of a plan, by a way of its own to the store.
    pub(crate) async fn open(&self, plan: &str) -> Arc<dyn Journal> {
        open(&self.place(), plan).await
    }

    /// The store, for another process.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Sqlite { folder } => path_in(folder).display().to_string(),
            Self::Postgres { cluster, database } => cluster.url("postgres", database),
        }
    }

    /// Executes statements behind the journal's back. `{entry}`, `{head}` and `{server}` stand for its tables.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), String> {
        match self {
            Self::Sqlite { folder } => {
                let connection = rusqlite::Connection::open(path_in(folder)).unwrap();
                connection.execute_batch(&tables(sql, "")).map_err(|error| error.to_string())
            }
            Self::Postgres { cluster, database } => {
                let client = cluster.client(database).await.unwrap();
                let done = client.batch_execute(&tables(sql, "cutover_journal.")).await;
                done.map_err(|error| error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned()))
            }
        }
    }

    /// Makes the store say that it has another format.
    pub(crate) async fn set_format(&self, version: i64) {
        let set = match self {
            Self::Sqlite { .. } => format!("PRAGMA user_version = {version}"),
            Self::Postgres { .. } => format!("UPDATE cutover_journal.format SET version = {version}"),
        };
        self.execute(&set).await.unwrap();
    }

    /// The same, by somebody who has put the triggers out of the way.
    pub(crate) async fn tamper(&self, sql: &str) {
        let unguard = match self {
            Self::Sqlite { .. } => {
                "DROP TRIGGER entry_is_never_changed; DROP TRIGGER entry_is_never_removed; DROP TRIGGER entry_has_no_gap;
                 DROP TRIGGER head_moves_on; DROP TRIGGER head_is_never_removed;"
            }
            Self::Postgres { .. } => "ALTER TABLE {entry} DISABLE TRIGGER USER; ALTER TABLE {head} DISABLE TRIGGER USER;",
        };
        self.execute(&format!("{unguard} {sql}")).await.unwrap();
    }

    /// Makes the store itself fail at entries of a kind.
    pub(crate) async fn refuse_kind(&self, kind: &str) {
        let refusal = match self {
            Self::Sqlite { .. } => {
                format!("CREATE TRIGGER no BEFORE INSERT ON entry WHEN NEW.kind = '{kind}' BEGIN SELECT RAISE(ABORT, 'no'); END")
            }
            Self::Postgres { .. } => format!("ALTER TABLE {{entry}} ADD CHECK (kind <> '{kind}')"),
        };
        self.execute(&refusal).await.unwrap();
    }
}

/// Opens the journal at a place that [`Backend::place`] gave.
pub(crate) async fn open(place: &str, plan: &str) -> Arc<dyn Journal> {
    if place.starts_with("postgres") {
        Arc::new(open_postgres(place, None, plan).await.unwrap())
    } else {
        Arc::new(open_sqlite(Path::new(place), plan).await.unwrap())
    }
}

/// One server for all tests of this process; it ends with the process.
pub(crate) async fn cluster() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    let start = || async {
        let install = installs().into_iter().next().expect("no PostgreSQL is installed");
        Cluster::start(&install, ClusterOptions::named("journal").not_durable()).await.unwrap()
    };
    CLUSTER.get_or_init(start).await
}

/// A draft that says little.
pub(crate) fn draft(epoch: u64, n: u64) -> Draft {
    Draft {
        epoch,
        at_ms: 1_700_000_000_000 + i64::try_from(n).unwrap(),
        actor: "anna".to_owned(),
        reason: format!("because of {n}"),
        kind: "counted".to_owned(),
        body: json!({ "n": n }),
    }
}

pub(crate) fn path_in(folder: &TempDir) -> PathBuf {
    folder.path().join("journal.db")
}

fn tables(sql: &str, schema: &str) -> String {
    sql.replace("{entry}", &format!("{schema}entry"))
        .replace("{head}", &format!("{schema}head"))
        .replace("{server}", &format!("{schema}server"))
}
