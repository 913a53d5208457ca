//! A TCP proxy on loopback that cuts, stalls and delays connections.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::{Error, Result, connection::url, eventually, ports::free_port};

/// How long it may take to get our port back after a cut.
const LIMIT: Duration = Duration::from_secs(20);

/// How often another port is tried when somebody took the one we found.
const PORTS_TRIED: usize = 10;

/// How many pieces may be under way in one direction.
const UNDER_WAY: usize = 256;

/// How big a piece is, in bytes.
const PIECE: usize = 16 * 1024;

/// A TCP proxy on 127.0.0.1 in front of one server. Connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    to: Mutex<Arc<str>>,
    port: u16,
    weather: watch::Sender<Weather>,
    service: Mutex<Option<Service>>,
}

impl Proxy {
    /// Starts one in front of `to`, such as `127.0.0.1:5432`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(to: impl Into<String>) -> Result<Self> {
        let to: Arc<str> = to.into().into();
        let listener = listen_anywhere().await?;
        let port = listener.local_addr().map_err(|source| Error::io("learn the proxy's port", source))?.port();
        let (weather, _) = watch::channel(Weather { passes: true, delay: Duration::ZERO });
        let service = Mutex::new(Some(Service::start(listener, to.clone(), &weather)));
        Ok(Self { to: Mutex::new(to), port, weather, service })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection URL through it.
    #[must_use]
    pub fn url(&self, user: &str, db: &str) -> String {
        url(user, None, self.port, db)
    }

    /// Breaks every connection off, and refuses new ones. All are gone when this returns.
    pub async fn cut(&self) {
        if let Some(service) = self.service.lock().await.take() {
            service.end().await;
        }
    }

    /// Keeps connections and takes new ones, but passes nothing in either direction: a partition, without a sign.
    ///
    /// # Errors
    /// After a cut, somebody else took the port.
    pub async fn stall(&self) -> Result<()> {
        self.weather.send_modify(|weather| weather.passes = false);
        self.serve().await
    }

    /// Passes everything again, also what was held back meanwhile, and takes new connections.
    ///
    /// # Errors
    /// After a cut, somebody else took the port.
    pub async fn restore(&self) -> Result<()> {
        self.weather.send_modify(|weather| weather.passes = true);
        self.serve().await
    }

    /// From now on it stands in front of another server. Connections to the one before are broken off.
    ///
    /// # Errors
    /// Somebody else took the port meanwhile.
    pub async fn lead_to(&self, to: impl Into<String>) -> Result<()> {
        self.cut().await;
        *self.to.lock().await = to.into().into();
        self.restore().await
    }

    /// From now on, whatever is sent arrives this much later, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    async fn serve(&self) -> Result<()> {
        let mut service = self.service.lock().await;
        if service.is_none() {
            let listener = eventually(LIMIT, || TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))).await?;
            *service = Some(Service::start(listener, self.to.lock().await.clone(), &self.weather));
        }
        Ok(())
    }
}

/// What happens to what is sent.
#[derive(Clone, Copy, Debug)]
struct Weather {
    passes: bool,
    delay: Duration,
}

/// The task that takes connections and owns them.
#[derive(Debug)]
struct Service {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Service {
    fn start(listener: TcpListener, to: Arc<str>, weather: &watch::Sender<Weather>) -> Self {
        let (end, ended) = oneshot::channel();
        let weather = weather.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            tokio::select! {
                () = take(&listener, &to, &weather, &mut connections) => {}
                // Also when the proxy is dropped.
                _ = ended => {}
            }
            drop(listener);
            connections.shutdown().await;
        });
        Self { end, task }
    }

    async fn end(self) {
        // Whichever way the task ended, its connections went with it.
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

async fn take(listener: &TcpListener, to: &Arc<str>, weather: &watch::Receiver<Weather>, connections: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let (to, weather) = (to.clone(), weather.clone());
                    // A connection that breaks is no news to a proxy: both ends hear of it.
                    connections.spawn(async move { let _ = connect(client, &to, weather).await; });
                }
                // The machine is short of something: wait until it is less so.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(client: TcpStream, to: &str, mut weather: watch::Receiver<Weather>) -> io::Result<()> {
    clear(&mut weather).await?;
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(pass(from_client, to_server, weather.clone()), pass(from_server, to_client, weather)).map(drop)
}

/// One direction: a delay holds every piece back equally long, so it costs time but no throughput.
async fn pass(from: OwnedReadHalf, to: OwnedWriteHalf, weather: watch::Receiver<Weather>) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    tokio::try_join!(read(from, sender, weather.clone()), write(to, receiver, weather)).map(drop)
}

async fn read(mut from: OwnedReadHalf, sender: mpsc::Sender<(Instant, Vec<u8>)>, mut weather: watch::Receiver<Weather>) -> io::Result<()> {
    loop {
        clear(&mut weather).await?;
        let mut piece = Vec::with_capacity(PIECE);
        if from.read_buf(&mut piece).await? == 0 {
            return Ok(());
        }
        let due = Instant::now() + weather.borrow().delay;
        sender.send((due, piece)).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
}

async fn write(
    mut to: OwnedWriteHalf,
    mut receiver: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    while let Some((due, piece)) = receiver.recv().await {
        tokio::time::sleep_until(due).await;
        clear(&mut weather).await?;
        to.write_all(&piece).await?;
    }
    to.shutdown().await
}

/// Waits until things pass.
async fn clear(weather: &mut watch::Receiver<Weather>) -> io::Result<()> {
    weather.wait_for(|weather| weather.passes).await.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

async fn listen_anywhere() -> Result<TcpListener> {
    let mut tried = 0;
    loop {
        tried += 1;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, free_port()?)).await {
            Err(_) if tried < PORTS_TRIED => {}
            listener => return listener.map_err(|source| Error::io("listen on 127.0.0.1", source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that sends everything back.
    async fn echo() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(b"x").await?;
        stream.read_exact(&mut [0]).await.map(drop)
    }

    #[tokio::test]
    async fn a_cut_breaks_connections_and_refuses_new_ones_until_restored() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream).await.unwrap();

        proxy.cut().await;
        let broken = tokio::time::timeout(SOON, async { ask(&mut stream).await.is_err() }).await.unwrap();
        assert!(broken);
        assert_eq!(TcpStream::connect(proxy.address()).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

        proxy.restore().await.unwrap();
        ask(&mut TcpStream::connect(proxy.address()).await.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn it_can_be_led_to_another_server() {
        let proxy = Proxy::start("127.0.0.1:1").await.unwrap();
        let mut nowhere = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(ask(&mut nowhere).await.is_err());
        proxy.lead_to(echo().await).await.unwrap();
        ask(&mut TcpStream::connect(proxy.address()).await.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_stall_passes_nothing_and_breaks_nothing() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut old).await.unwrap();

        proxy.stall().await.unwrap();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        for stream in [&mut old, &mut new] {
            assert!(tokio::time::timeout(Duration::from_millis(50), ask(stream)).await.is_err(), "something passed");
        }
        proxy.restore().await.unwrap();
        for stream in [&mut old, &mut new] {
            tokio::time::timeout(SOON, stream.read_exact(&mut [0])).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_delay_is_felt_in_both_directions() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream).await.unwrap();
        proxy.delay(Duration::from_millis(60));
        let began = Instant::now();
        ask(&mut stream).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(120), "{:?}", began.elapsed());
    }
}
