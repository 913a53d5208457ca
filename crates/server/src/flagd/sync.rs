//! `flagd.sync`: flags as rules, for providers that evaluate them in the application's own process.
//!
//! Who has a rule may act on it until it runs out: it was lent a lease, as far as a driver is concerned, and it can't
//! acknowledge a newer rule. So it is taken down as acting on the oldest rule that has not run out ([`Pushed`]), and a
//! driver that closes writes waits for that.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cutover_core::clients::{Moment, Pushed, Renewal, Who};
use futures_util::{Stream, stream};
use prost_types::Struct;
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep},
};
use tonic::Status;

use super::{
    closing, rules,
    wire::{FetchAllFlagsResponse, GetMetadataResponse, Nothing, RulesRequest, SyncFlagsResponse},
};
use crate::{
    evaluate::{MOST_NAME, standing},
    front::{Front, Version, View, whole_ms},
};

/// With a shorter lease, rules whose end is a whole second can run out before the next are told.
const SHORT_LEASE: Duration = Duration::from_secs(3);

/// Tells the rules, and again whenever they change or last longer.
pub(super) fn flags(front: Front, asked: RulesRequest) -> Result<impl Stream<Item = Result<SyncFlagsResponse, Status>>, Status> {
    let listener = Listener::new(front, asked)?;
    if listener.front.lease < SHORT_LEASE {
        let lease_ms = whole_ms(listener.front.lease);
        tracing::warn!(lease_ms, "a flagd provider evaluates rules itself: with a lease under 3 s it refuses writes now and then");
    }
    Ok(stream::unfold(Some(listener), |listener| async move {
        let mut listener = listener?;
        match listener.next().await {
            Some(flag_configuration) => Some((Ok(SyncFlagsResponse { flag_configuration }), Some(listener))),
            None => Some((Err(closing()), None)),
        }
    }))
}

/// Tells the rules once. They hold as long as any.
pub(super) async fn all(front: Front, asked: RulesRequest) -> Result<FetchAllFlagsResponse, Status> {
    let flag_configuration = Listener::new(front, asked)?.rules().unwrap_or_default();
    Ok(FetchAllFlagsResponse { flag_configuration })
}

/// Nothing of ours belongs into the context of every evaluation.
pub(super) async fn metadata(_: Front, _: Nothing) -> Result<GetMetadataResponse, Status> {
    Ok(GetMetadataResponse { metadata: Some(Struct::default()) })
}

/// Who is told the rules.
struct Listener {
    front: Front,
    views: watch::Receiver<View>,
    closing: watch::Receiver<bool>,
    key: String,
    name: String,
    /// The database that all its instances are connected to, where it says so.
    database: Option<String>,
    pushed: Pushed,
    told: Option<Told>,
}

/// What tells one configuration from another.
#[derive(Clone, Copy)]
struct Told {
    version: Version,
    fresh: bool,
    until_s: u64,
}

impl Listener {
    fn new(front: Front, asked: RulesRequest) -> Result<Self, Status> {
        let database = match asked.selector.split_once('=') {
            _ if asked.selector.is_empty() => None,
            Some(("database", name)) if !name.is_empty() => Some(name.to_owned()),
            _ => return Err(Status::invalid_argument("the selector has to be `database=NAME`, or none")),
        };
        let who =
            [asked.provider_id.as_str(), database.as_deref().unwrap_or_default(), "unnamed"].into_iter().find(|name| !name.is_empty());
        let name: String = who.unwrap_or_default().chars().filter(|c| !c.is_control()).take(MOST_NAME).collect();
        Ok(Self {
            views: front.subscribe(),
            closing: front.closing.clone(),
            key: format!("flagd {}", hex::encode(rand::random::<[u8; 16]>())),
            name: format!("{name} (flagd in-process)"),
            database,
            pushed: Pushed::default(),
            told: None,
            front,
        })
    }

    /// The next configuration; none when everything ends.
    async fn next(&mut self) -> Option<String> {
        while !*self.closing.borrow() {
            self.views.mark_unchanged();
            if let Some(rules) = self.rules() {
                return Some(rules);
            }
            // When a rule has run out, a driver may be waiting for that.
            let over = self.pushed.left(self.moment().0).unwrap_or(Duration::MAX);
            let rest = over.min(self.front.lease / 8).max(Duration::from_millis(1));
            tokio::select! {
                changed = self.views.changed() => changed.ok()?,
                () = sleep(rest) => {}
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
        }
        None
    }

    /// Renews the lease, and says by which rules to act from now on, unless these were told already.
    fn rules(&mut self) -> Option<String> {
        let (moment, arrived) = self.moment();
        let now = self.front.now();
        // Who may act on no rule any more is behind nothing.
        let acknowledged = Some(self.pushed.acts_on(moment).unwrap_or(now.route.epoch));
        let who = match &self.database {
            Some(database) => Who::Keeps { place: now.places.find(database), acknowledged },
            None => Who::Rules { acknowledged },
        };
        let renewal = Renewal { key: &self.key, name: &self.name, who, until_ms: 0 };
        let (lease, view) = self.front.lend(&renewal, arrived).ok()?;
        let flags = self.front.flags(&view);
        let until_s = if flags.fresh { (moment.wall_ms + whole_ms(lease)) / 1_000 } else { 0 };
        let told = Told { version: view.version(), fresh: flags.fresh, until_s };
        if self.told.is_some_and(|before| !told.is_news_after(before)) {
            return None;
        }
        if flags.is_open() {
            self.pushed.tell(view.route.epoch, moment, until_s);
        }
        self.told = Some(told);
        Some(rules::configuration(&flags, until_s, standing(&flags, &view)))
    }

    /// The wall clock is asked first: a lease counts from later than what is said of when it ends.
    fn moment(&self) -> (Moment, Instant) {
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, whole_ms);
        let now = Instant::now();
        (Moment { wall_ms, steady_ms: self.front.ms(now) }, now)
    }
}

impl Told {
    /// Rounded to whole seconds, the same end may come out earlier: that is no news.
    fn is_news_after(self, before: Self) -> bool {
        (self.version, self.fresh) != (before.version, before.fresh) || self.until_s > before.until_s
    }
}

impl Drop for Listener {
    /// Who is gone acts on the rules that it was told until the last has run out. Then it is forgotten, and who waits for that is
    /// told at once.
    fn drop(&mut self) {
        let left = self.pushed.ends_in(self.moment().0).min(self.front.lease);
        let (front, key) = (self.front.clone(), std::mem::take(&mut self.key));
        if left.is_zero() {
            return front.forget(&key);
        }
        // Without a runtime everything ends, and the lease runs out like any other.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                sleep(left).await;
                front.forget(&key);
            });
        }
    }
}
