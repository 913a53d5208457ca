//! A server of its own for each test.

use std::{ops::Deref, path::Path, process::Stdio};

use cutover_testkit::{Certificates, eventually};
use tokio::process::Command;

pub(crate) use crate::server::{LIMIT, answer};

/// Databases that are nowhere: the server talks to neither.
const PLAN: &str = "name = \"shop\"\nkind = \"switch\"\n[source]\nurl = \"postgres://a:hunter2@old.example/shop\"\n\
     [target]\nurl = \"postgres://a:hunter2@new.example:5433/shop\"\n";

/// A server, and the folder with its plan.
pub(crate) struct Server {
    pub(crate) server: crate::server::Server,
    pub(crate) folder: tempfile::TempDir,
}

impl Deref for Server {
    type Target = crate::server::Server;

    fn deref(&self) -> &Self::Target {
        &self.server
    }
}

impl Server {
    pub(crate) async fn start(more: &[&str]) -> Self {
        Self::start_in(folder(), more, None).await
    }

    /// One that clients trust by `root`, where it speaks TLS.
    pub(crate) async fn start_in(folder: tempfile::TempDir, more: &[&str], root: Option<&Path>) -> Self {
        let listen: &[&str] = if more.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let arguments = [&["--output", "json", "serve"], listen, more].concat();
        let server = crate::server::Server::spawn(command(folder.path(), &arguments), root).await;
        Self { server, folder }
    }
}

/// An agent of a server.
pub(crate) async fn agent(upstream: &str, more: &[&str]) -> crate::server::Server {
    trusted_agent(upstream, more, None).await
}

/// One that clients trust by `root`, where it speaks TLS.
async fn trusted_agent(upstream: &str, more: &[&str], root: Option<&Path>) -> crate::server::Server {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--output", "json", "agent", "--server", upstream, "--name", "node-1", "--listen", "127.0.0.1:0"];
    crate::server::Server::spawn(command(folder.path(), &[&arguments, more].concat()), root).await
}

/// Whoever can be asked: a server, and an agent of it.
pub(crate) struct Houses {
    pub(crate) server: Server,
    pub(crate) agent: crate::server::Server,
}

impl Houses {
    pub(crate) async fn open(more: &[&str]) -> Self {
        let server = Server::start(more).await;
        let agent = agent(&server.address, &[]).await;
        Self { server, agent }.ready().await
    }

    /// Both want a token of the folder, of which `bearer` is one, and speak TLS where there are certificates for it.
    pub(crate) async fn guarded(folder: tempfile::TempDir, bearer: &str, tls: Option<&Certificates>, more: &[&str]) -> Self {
        let (file, tokens) = (folder.path().join("token"), folder.path().join(".cutover/tokens.json"));
        std::fs::write(&file, bearer).unwrap();
        let mut door = more.to_vec();
        let mut upstream = vec!["--token-file", text(&file), "--tokens", text(&tokens)];
        if let Some(files) = tls {
            door.extend(["--tls-certificate", text(&files.certificate), "--tls-key", text(&files.key)]);
            upstream.extend(["--ca", text(&files.root)]);
        }
        let root = tls.map(|files| files.root.as_path());
        let mut server = Server::start_in(folder, &door, root).await;
        // That is whom the certificate is for.
        server.server.address = server.address.replace("127.0.0.1", "localhost");
        let mut agent = trusted_agent(&server.address, &[upstream, door].concat(), root).await;
        agent.address = agent.address.replace("127.0.0.1", "localhost");
        Self { server, agent }.ready().await
    }

    async fn ready(self) -> Self {
        eventually(LIMIT, || async { self.agent.get("/readyz").send().await.unwrap().status() == 200 }).await.unwrap();
        self
    }

    pub(crate) fn addresses(&self) -> [(&'static str, &str); 2] {
        [("server", &self.server.address), ("agent", &self.agent.address)]
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a plan.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cutover.toml"), PLAN).unwrap();
    folder
}

pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.args(arguments).current_dir(folder).env_remove("CUTOVER_PLAN").stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the command to its end: exit code, standard output, standard error.
pub(crate) async fn call(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = tokio::time::timeout(LIMIT, command(folder, arguments).output()).await.expect("it did not end").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A token of this role.
pub(crate) async fn token(folder: &Path, name: &str, role: &str) -> String {
    let (code, out, err) = call(folder, &["token", "create", name, "--role", role]).await;
    assert_eq!(code, 0, "{err}");
    out.trim().to_owned()
}
