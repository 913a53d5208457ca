//! The adapter for one variable of a file.

use std::{fs, path::Path, time::Duration};

use cutover_core::plan::{Format, Traffic};
use cutover_traffic::{Adapter, TrafficError};
use nix::{sys::stat::Mode, unistd::mkfifo};
use tokio::time::Instant;

use crate::suite::{adapter, conforms, endpoints, soon};

fn plan(path: &str, format: Format, variable: &str) -> Traffic {
    let value = "{host}:{port}/{database}?side={side}".to_owned();
    Traffic::File { path: path.into(), format, variable: variable.to_owned(), value }
}

/// Each format, with a file that points at the source.
const FILES: [(Format, &str, &str); 4] = [
    (Format::Env, "DB_WRITE_ENDPOINT", "DB_READ_ENDPOINT='replica'\nexport DB_WRITE_ENDPOINT=\"VALUE\" # writes\n"),
    (Format::Json, "db.write", "{\"db\": {\"read\": \"replica\", \"write\" : \"VALUE\"}}"),
    (Format::Yaml, "db.write", "db:\n  read: replica\n  write: VALUE   # writes\nlist:\n- write: x\n"),
    (Format::Toml, "db.write", "[db]\nread = 'replica'\nwrite = 'VALUE' # writes\n"),
];

const AT_SOURCE: &str = "blue.example:5432/orders?side=source";

fn written(folder: &Path, (format, variable, text): (Format, &str, &str)) -> (Box<dyn Adapter>, std::path::PathBuf) {
    let path = folder.join("app.conf");
    fs::write(&path, text.replace("VALUE", AT_SOURCE)).unwrap();
    (adapter(plan("app.conf", format, variable), folder), path)
}

#[tokio::test]
async fn every_format_conforms() {
    for file in FILES {
        let folder = tempfile::tempdir().unwrap();
        let (adapter, _) = written(folder.path(), file);
        conforms(adapter.as_ref(), &endpoints()).await;
    }
}

#[tokio::test]
async fn a9_b12_the_diff_is_one_variable_and_the_earlier_revision_is_kept() {
    for file in FILES {
        let folder = tempfile::tempdir().unwrap();
        let (adapter, path) = written(folder.path(), file);
        let [source, target] = endpoints();
        let before = fs::read_to_string(&path).unwrap();

        adapter.release(&target, soon()).await.unwrap();
        let after = fs::read_to_string(&path).unwrap();
        assert_eq!(after, before.replace(AT_SOURCE, "green.example:6000/orders2?side=target"));
        assert_eq!(fs::read_to_string(path.with_file_name("app.conf.cutover-1")).unwrap(), before);

        adapter.release(&source, soon()).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), before, "the way back restores every byte");
    }
}

#[tokio::test]
async fn two_variables_of_one_file_change_at_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("app.env"), "A=old\nB=old\n").unwrap();
    let [_, target] = endpoints();
    let adapters = ["A", "B"].map(|variable| adapter(plan("app.env", Format::Env, variable), folder.path()));
    let (a, b) = tokio::join!(adapters[0].release(&target, soon()), adapters[1].release(&target, soon()));
    a.and(b).unwrap();
    let value = "green.example:6000/orders2?side=target";
    assert_eq!(fs::read_to_string(folder.path().join("app.env")).unwrap(), format!("A={value}\nB={value}\n"));
}

#[tokio::test]
async fn a_file_that_does_not_answer_runs_into_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.env");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let adapter = adapter(plan("app.env", Format::Env, "A"), folder.path());
    let begun = Instant::now();
    let error = adapter.release(&endpoints()[1], begun + Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, TrafficError::TimedOut { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Lets the reader see the end of the file, and its thread go.
    drop(fs::OpenOptions::new().write(true).open(&path).unwrap());
}
