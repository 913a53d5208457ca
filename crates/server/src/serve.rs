//! The server: it follows the journal, and tells the drivers what its clients have heard.

use std::{
    net::SocketAddr,
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::extract::FromRef;
use cutover_api::Code;
use cutover_core::clients::{Places, Report};
use cutover_engine::{Cutover, EngineResult, shadow::ShadowTables};
use tokio::time::Instant;

use crate::{
    ServerError,
    drive::Wheel,
    front::Front,
    heir,
    house::{Door, House, Options},
    openapi,
    problem::Refusal,
    shadow::{self, Tell, Tells},
    story::{REST, Story},
    verify::Bench,
};

/// A server that listens.
pub struct Server {
    house: House,
    app: App,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.house.address()
    }

    /// Takes no new request, has what is driven undone or finished, lets requests under way end, and returns when they have,
    /// or their time is over.
    ///
    /// # Errors
    /// If it had ended before, of itself.
    pub async fn close(self) -> Result<(), ServerError> {
        self.house.closing();
        tokio::join!(self.app.wheel.rest(), self.app.bench.wheel.rest());
        let ended = self.house.close().await;
        // Else a driver waits until the last lease is over.
        if self.app.front.report().clients == 0 {
            self.app.cutover.forget_server(&self.app.name).await?;
        } else {
            self.app.report().await?;
        }
        ended
    }

    /// Returns when it has ended.
    ///
    /// # Errors
    /// What ended it.
    pub async fn ended(&mut self) -> Result<(), ServerError> {
        self.house.ended().await
    }
}

/// What all requests share.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) front: Front,
    pub(crate) cutover: Cutover,
    pub(crate) story: Story,
    pub(crate) wheel: Wheel,
    pub(crate) bench: Bench,
    /// How a status is told to a person.
    pub(crate) tell: Tell,
    /// Where archives are written to.
    pub(crate) archives: PathBuf,
    /// What the roster knows this server by.
    pub(crate) name: String,
    beat: AtomicU64,
}

impl Inner {
    /// What is begun now would be broken off.
    pub(crate) fn refuse_when_closing(&self) -> Result<(), Refusal> {
        let closing = *self.front.closing.borrow();
        let refusal = || Refusal::new(Code::Unavailable, "the server is closing").hint("ask another one, or this one once it is back");
        if closing { Err(refusal()) } else { Ok(()) }
    }

    /// Writes down what we and our clients have heard, and what we drive.
    pub(crate) async fn report(&self) -> EngineResult<()> {
        let report = Report { driving: self.wheel.driving(), ..self.front.report() };
        let (asked_at, beat) = (Instant::now(), self.beat.fetch_add(1, Ordering::Relaxed));
        self.cutover.report(&self.name, beat, self.front.lease, &report).await?;
        self.front.reported(asked_at);
        Ok(())
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl FromRef<App> for Front {
    fn from_ref(app: &App) -> Self {
        app.front.clone()
    }
}

/// Starts a server. `places` are the names under which instances know the databases; `archives` is the folder that archives are
/// written to, made when there is one; `tell` is how a status is told to a person; `tables` are those with a shadow, if it is to
/// tell of any.
///
/// # Errors
/// See [`ServerError`].
pub async fn serve(
    cutover: Cutover,
    places: Places,
    archives: PathBuf,
    tell: Tell,
    mut tables: Option<ShadowTables>,
    options: Options,
) -> Result<Server, ServerError> {
    let (door, manners) = Door::open(&options).await?;
    // First: a report that waits for it would be an old one.
    let asked = match &mut tables {
        Some(tables) => shadow::ask(tables).await.inspect_err(|error| tracing::warn!(%error, "no shadow table is known yet")).ok(),
        None => None,
    };
    let name = format!("{} {}", door.address()?, hex::encode(rand::random::<[u8; 4]>()));
    let started = Instant::now();
    // Before the journal is read: see `Cutover::report`.
    cutover.report(&name, 0, options.lease, &Report::default()).await?;
    let (story, follower, view) = Story::open(&cutover, places).await?;
    let front = Front::of_server(view, started, manners);
    let beat = AtomicU64::new(1);
    let app = App(Arc::new(Inner {
        front: front.clone(),
        cutover,
        story,
        wheel: Wheel::default(),
        bench: Bench::default(),
        archives,
        tell,
        name,
        beat,
    }));
    let told = app.clone();
    let tells: Tells = Box::new(move |table| told.story.tell("shadow_table", serde_json::to_value(table).unwrap_or_default()));
    if let Some(tables) = &tables {
        app.front.board.open(tables, app.front.lease, tell);
        asked.into_iter().for_each(|asked| shadow::take(&app.front, asked, Some(&tells)));
    }
    let mut house = door.welcome(&front, openapi::of_server(&app))?;
    house.tasks.spawn({
        let app = app.clone();
        async move {
            app.story.follow(&app.cutover, &app.front, follower, app.front.lease / 8).await;
            Ok(())
        }
    });
    if let Some(tables) = tables {
        shadow::attend(&mut house, &app.front, tables, Some(tells));
    }
    house.tasks.spawn(tell_drivers(app.clone()));
    house.tasks.spawn(heir::wait(app.clone()));
    Ok(Server { house, app })
}

/// Writes down what we and our clients have heard: often enough for the leases, and at once when a driver may wait for it.
async fn tell_drivers(app: App) -> Result<(), ServerError> {
    let front: &Front = &app.front;
    let mut views = front.subscribe();
    let mut tick = tokio::time::interval(front.lease / 8);
    let mut epoch = views.borrow().route.epoch;
    loop {
        if let Err(error) = app.report().await {
            tracing::warn!(%error, "what the clients have heard can't be written down");
            tokio::time::sleep(REST).await;
        }
        tokio::select! {
            _ = tick.tick() => {}
            () = front.news.notified() => {}
            view = views.wait_for(|view| view.route.epoch != epoch) => epoch = view.map_or(epoch, |view| view.route.epoch),
        }
    }
}
