//! A proxy that decides what becomes of the next COMMIT, and of its answer.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What becomes of a COMMIT. In each case the client's connection breaks and it learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It never reaches the server.
    Lost,
    /// The server commits, and the answer is lost.
    Unanswered,
    /// It reaches the server only when [`CommitProxy::release`] is called.
    Late,
}

pub(crate) struct CommitProxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    next: Mutex<Option<Fate>>,
    release: Notify,
}

impl CommitProxy {
    pub(crate) async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        tokio::spawn(accept(listener, server_port, Arc::clone(&shared)));
        Self { port, shared }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Chooses for the next COMMIT; those after it pass.
    pub(crate) fn next(&self, fate: Fate) {
        *self.shared.next.lock().unwrap() = Some(fate);
    }

    /// Lets the late COMMIT go on.
    pub(crate) fn release(&self) {
        self.shared.release.notify_one();
    }
}

impl Shared {
    fn take(&self) -> Option<Fate> {
        self.next.lock().unwrap().take()
    }
}

async fn accept(listener: TcpListener, server_port: u16, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
        tokio::spawn(pass(client, server, Arc::clone(&shared)));
    }
}

/// Passes everything on, until one side ends or a COMMIT meets its fate.
async fn pass(mut client: TcpStream, mut server: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let bytes = &asked[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                if contains(bytes, b"COMMIT\0") && let Some(fate) = shared.take() {
                    drop(client);
                    return meet(fate, bytes, server, &shared).await;
                }
                server.write_all(bytes).await?;
            }
            read = server.read(&mut answered) => {
                let bytes = &answered[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                client.write_all(bytes).await?;
            }
        }
    }
}

async fn meet(fate: Fate, commit: &[u8], mut server: TcpStream, shared: &Shared) -> std::io::Result<()> {
    match fate {
        Fate::Lost => return Ok(()),
        Fate::Unanswered => {}
        Fate::Late => shared.release.notified().await,
    }
    server.write_all(commit).await?;
    // Its answer, so that it isn't cut off before it is done.
    server.read(&mut [0; 1024]).await.map(drop)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
