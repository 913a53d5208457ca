//! Makes clients.

use std::{sync::Arc, time::Duration};

use cutover_wire::{Token, Wire};
use tokio::{runtime::Handle, sync::watch, time::timeout};

use crate::{
    Client, Error, chance,
    guard::Shared,
    operations,
    settings::{Ca, Settings},
    task::{Failure, MOST_BODY, Task},
};

/// How long [`Builder::connect`] waits for the first answer, if it is not told otherwise.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// What a client needs to know. What the code says goes before what the environment says ([`Builder::from_env`]).
#[derive(Debug, Default)]
pub struct Builder {
    code: Settings,
    environment: Settings,
    connect_within: Option<Duration>,
    /// What went wrong with the environment is told when it is connected.
    wrong: Option<Error>,
}

impl Builder {
    /// The server or agent: `http://127.0.0.1:7700`, `https://cutover.example`. In the environment: `CUTOVER_SERVER`.
    #[must_use]
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.code.server = Some(url.into());
        self
    }

    /// What the server knows this client by. In the environment: `CUTOVER_TOKEN`.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.code.token = Some(Token::from(token.into()));
        self
    }

    /// Who this is, for a person: a pod's name. Otherwise the host's name and the process' number. In the environment:
    /// `CUTOVER_INSTANCE`.
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.code.instance = Some(name.into());
        self
    }

    /// The database that this process writes to: the URL that it connects with, or `host:port/database`. Only host, port
    /// and database leave the process. Without it no write is allowed: leave to write is for one database. In the
    /// environment: `CUTOVER_DATABASE`.
    #[must_use]
    pub fn database(mut self, url_or_address: impl Into<String>) -> Self {
        self.code.database = Some(url_or_address.into());
        self
    }

    /// The certificates of those who vouch for the server, in PEM form. Otherwise those count that the system trusts. In
    /// the environment: `CUTOVER_CA`, the path of a file.
    #[must_use]
    pub fn ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.code.ca = Some(Ca::Pem(pem.into()));
        self
    }

    /// How long [`Builder::connect`] waits for the first answer. Otherwise five seconds.
    #[must_use]
    pub fn connect_within(mut self, limit: Duration) -> Self {
        self.connect_within = Some(limit);
        self
    }

    /// Takes what the code leaves open from `CUTOVER_SERVER`, `CUTOVER_TOKEN`, `CUTOVER_INSTANCE`, `CUTOVER_DATABASE` and
    /// `CUTOVER_CA`.
    #[must_use]
    pub fn from_env(mut self) -> Self {
        match crate::environment::settings() {
            Ok(settings) => self.environment = settings,
            Err(error) => self.wrong = Some(error),
        }
        self
    }

    /// Begins to keep a lease, and waits for the first answer ([`Builder::connect_within`]).
    ///
    /// # Errors
    /// A setting is wrong, the server refuses this client ([`Error::Rejected`]) or does not answer ([`Error::NoAnswer`]).
    pub async fn connect(self) -> Result<Client, Error> {
        let within = self.connect_within.unwrap_or(CONNECT_WITHIN);
        let client = self.connect_lazily()?;
        let mut views = client.shared.view.subscribe();
        let rejected = |failure: &Arc<Failure>| failure.is_rejection();
        let answered = views.wait_for(|view| view.route.is_some() || view.failure.as_ref().is_some_and(rejected));
        let done = timeout(within, answered).await.ok().and_then(Result::ok).map(|view| view.route.is_some());
        let why = || client.shared.view.borrow().failure.as_ref().map(ToString::to_string);
        match done {
            Some(true) => Ok(client),
            Some(false) => Err(Error::Rejected { why: why().unwrap_or_default() }),
            None => Err(Error::NoAnswer { within, why: why() }),
        }
    }

    /// Begins to keep a lease, and does not wait: writes are refused until there is an answer, and
    /// [`Client::route`] knows nothing.
    ///
    /// The first client of a process takes some milliseconds to measure the processor's clock.
    ///
    /// # Errors
    /// A setting is wrong, or this is no tokio runtime.
    pub fn connect_lazily(self) -> Result<Client, Error> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        let settings = self.code.or(self.environment).check()?;
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let wire = Wire::new(&settings.reach, concat!("cutover-client/", env!("CARGO_PKG_VERSION")), MOST_BODY)?;
        let shared = Arc::new(Shared::new());
        let (end, ending) = watch::channel(false);
        let (alive, gone) = watch::channel(());
        let incarnation = format!("{:016x}{:016x}", chance::number(), chance::number());
        let task = Task::new(shared.clone(), wire.clone(), settings, incarnation.clone(), ending.clone());
        let operations = shared.clone();
        runtime.spawn(async move {
            tokio::join!(task.run(), operations::tell(&operations.counted, &wire, incarnation, ending));
            drop(alive);
        });
        Ok(Client::new(shared, end, gone))
    }
}
