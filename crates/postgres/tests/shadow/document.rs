//! C37, C39: the document's usage examples, as they stand.

use std::process::Stdio;

use cutover_postgres::shadow;
use cutover_testkit::install;

use crate::ground::{Ground, MAJORS, run, server};

const SCRIPT: &str = include_str!("document.sql");

#[tokio::test]
async fn c37_c39_every_usage_example_runs_word_for_word_and_comes_to_what_it_has_to() {
    for major in MAJORS {
        let mut ground = Ground::empty(major, "document").await;
        shadow::install(&mut ground.admin, "cutover", true).await.unwrap();
        run(&ground.admin, "GRANT cutover_operator TO owner; GRANT CREATE, USAGE ON SCHEMA public TO owner").await;
        let psql = install(major).unwrap().tools.unwrap().join("psql");
        let url = server(major).await.url("owner", "document");
        let mut child = tokio::process::Command::new(psql)
            .args(["-X", "-d", &url, "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stdin, SCRIPT.as_bytes()).await.unwrap();
        drop(stdin);
        let done = child.wait_with_output().await.unwrap();
        let (out, told) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success() && out.ends_with("every example came to what it has to\n"), "{major}:\n{out}\n{told}");
    }
}
