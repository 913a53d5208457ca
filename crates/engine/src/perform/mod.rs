//! Does the core's actions. One arm each; what an action is, is written where its effect is.

mod changed;
mod clients;
mod compatibility;
mod copy_rows;
mod large_objects;
mod prepare;
mod trial;

use std::time::Duration;

use cutover_core::{Action, Fence, Hook, Phase, Side, Stream};
use cutover_postgres::{
    coverage::{Coverage, left_out},
    follow, gate,
    identity::identity,
    sequences, stream,
};
use cutover_traffic::{Endpoint, run_hook};
use tokio::time::Instant;

pub(crate) use self::{
    changed::Watched,
    large_objects::Carrying,
    prepare::{PROGRESS_INTERVAL, judge, sides, user_check, verify, verify_progress},
};
use crate::{Cutover, EngineError, EngineResult, Notice, driver::Driver};

impl Driver<'_> {
    /// Does one action. It watches `deadline` itself.
    pub(crate) async fn act(&mut self, action: Action, deadline: Instant) -> EngineResult<()> {
        let epoch = self.state()?.epoch;
        let names = &self.cutover.names;
        match action {
            Action::InstallGate(side) => self.install_gate(side, epoch).await,
            Action::CloseGate(side) => self.close_gate(side, epoch, deadline).await,
            Action::OpenGate(side) => {
                let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
                gate::open(client, epoch).await.map_err(EngineError::database(side))?;
                self.lift_large_objects(side, epoch).await?;
                self.observed.opened_after_ms = self.pause_ms();
                Ok(())
            }
            Action::Isolate(side) => self.isolate(side, epoch).await,
            Action::Admit(side) => {
                let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
                gate::admit(client, epoch).await.map_err(EngineError::database(side))
            }
            Action::CopySchema => self.copy_schema(epoch).await,
            Action::Arm(side) => {
                let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
                self.observed.tables = gate::arm(client, epoch, deadline).await.map_err(EngineError::database(side))?;
                Ok(())
            }
            Action::Disarm(side) => {
                let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
                if gate::owner(client).await?.is_none() {
                    return Ok(());
                }
                gate::disarm(client, epoch, deadline).await.map_err(EngineError::database(side))
            }
            Action::Publish(stream) => {
                let (origin, destination) = self.sides.both(stream.origin()).await.map_err(EngineError::database(stream))?;
                stream::publish(origin, destination, names, stream, epoch).await.map_err(EngineError::database(stream.origin()))?;
                Ok(())
            }
            Action::CopyRows => self.copy_rows(epoch).await,
            Action::BuildIndexes => self.build_indexes(epoch).await,
            Action::RunHook(hook) => self.run_hook(hook, epoch).await,
            Action::CreateSlot(stream) => {
                let client = self.sides.client(stream.origin()).await.map_err(EngineError::database(stream.origin()))?;
                stream::create_slot(client, names, stream, epoch, deadline).await.map_err(EngineError::database(stream.origin()))?;
                Ok(())
            }
            Action::Subscribe(stream) => {
                let conninfo = self.cutover.plan.database(stream.origin()).peer_url.conninfo();
                let (origin, destination) = self.sides.both(stream.origin()).await.map_err(EngineError::database(stream))?;
                stream::subscribe(origin, destination, names, stream, &conninfo, epoch).await.map_err(EngineError::database(stream))
            }
            Action::EnableStream(stream) => {
                let (origin, destination) = self.sides.both(stream.origin()).await.map_err(EngineError::database(stream))?;
                stream::enable(origin, destination, names, stream, epoch, deadline).await.map_err(EngineError::database(stream))?;
                Ok(())
            }
            Action::DisableStream(stream) => {
                let client = self.sides.client(stream.destination()).await.map_err(EngineError::database(stream.destination()))?;
                stream::disable(client, names, stream, epoch, deadline).await.map_err(EngineError::database(stream.destination()))?;
                Ok(())
            }
            Action::AdvanceStream(stream) => {
                let (origin, destination) = self.sides.both(stream.origin()).await.map_err(EngineError::database(stream))?;
                stream::advance(origin, destination, names, stream, epoch, deadline).await.map_err(EngineError::database(stream))?;
                Ok(())
            }
            Action::DropSlot(stream) => self.drop_slot(stream, epoch).await,
            Action::DropStream(stream) => {
                let (origin, destination) = self.sides.both(stream.origin()).await.map_err(EngineError::database(stream))?;
                stream::drop_stream(origin, destination, names, stream, epoch, deadline).await.map_err(EngineError::database(stream))?;
                Ok(())
            }
            Action::CatchUp(stream) => self.catch_up(stream, deadline).await,
            Action::Verify => self.verify().await,
            Action::WatchChanges(stream) => self.watch_changes(stream).await,
            Action::VerifyChanges(stream) => self.verify_changes(stream, deadline).await,
            Action::CompareChanges(stream) => self.compare_changes(stream, deadline).await,
            Action::BringLargeObjects(stream) => self.bring_large_objects(stream, deadline).await,
            Action::BringLastLargeObjects(stream) => self.bring_last_large_objects(stream, deadline).await,
            Action::CheckStream(stream) => self.check_stream(stream, deadline).await,
            Action::HoldTraffic => self.hold_traffic(epoch, deadline).await,
            Action::ReleaseTraffic(side) => {
                self.still_driving(side, epoch).await?;
                Ok(self.cutover.fleet.release(&self.cutover.endpoint(side), deadline).await?)
            }
            Action::AwaitClients(side) => self.await_clients(side, epoch).await,
            Action::Try(side) => Box::pin(self.try_write(side, epoch)).await,
            Action::WriteMarker(side) => self.write_marker(side, epoch).await,
            Action::AwaitMarker(stream) => {
                let marker = self.fence()?.marker;
                let side = stream.destination();
                let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
                gate::await_marker(client, &marker, deadline).await.map_err(EngineError::database(side))
            }
            Action::Flush(side) => {
                let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
                gate::flush(client, epoch).await.map_err(EngineError::database(side))
            }
            Action::SetSequences(side) => {
                let (headroom, all) = (self.cutover.plan.switch.sequence_headroom, side == Side::Target);
                let (to, from) = self.sides.both(side).await.map_err(EngineError::database(side))?;
                self.observed.sequences =
                    sequences::carry_over(from, to, epoch, headroom, all).await.map_err(EngineError::database(side))?;
                Ok(())
            }
            Action::CheckFence(side) => self.check_fence(side, epoch).await,
            Action::RemoveGate(side) => {
                self.lift_large_objects(side, epoch).await?;
                let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
                gate::remove(client, names.plan(), epoch).await.map_err(EngineError::database(side))
            }
        }
    }

    /// From here on both databases know what the cutover covers; the journal names what it leaves out.
    async fn install_gate(&mut self, side: Side, epoch: u64) -> EngineResult<()> {
        let filter = self.state()?.filter.clone();
        let names = &self.cutover.names;
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        gate::install(client, names.plan(), side, epoch).await.map_err(EngineError::database(side))?;
        gate::cover(client, epoch, &filter).await.map_err(EngineError::database(side))?;
        if side == Side::Source && !filter.is_all() {
            let left_out = left_out(client, &Coverage::of(&filter)).await.map_err(EngineError::database(side))?;
            let named: Vec<String> = left_out.iter().map(|relation| relation.name.to_string()).collect();
            self.observed.facts = [("relations_left_out".to_owned(), named.len().into()), ("left_out".to_owned(), named.into())].into();
        }
        Ok(())
    }

    /// Traffic and hooks know no epoch; so a database is asked for them whether it has seen a newer driver.
    async fn still_driving(&mut self, side: Side, epoch: u64) -> EngineResult<()> {
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        gate::guard(client, epoch).await.map_err(EngineError::database(side))
    }

    fn fence(&self) -> EngineResult<Fence> {
        match &self.state()?.phase {
            Phase::Fenced(_, fence) | Phase::Drained(_, fence) => Ok(fence.clone()),
            phase => Err(EngineError::Mismatch {
                what: format!("there is no fence while the cutover is {}", phase.describe()),
                hint: "report this as a bug".to_owned(),
            }),
        }
    }

    /// Closes the gate, and sees that no table was made meanwhile that has none, or that is not carried over.
    async fn close_gate(&mut self, side: Side, epoch: u64, deadline: Instant) -> EngineResult<()> {
        let in_switch = self.state()?.switch().is_some();
        let names = &self.cutover.names;
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        gate::close(client, epoch, deadline).await.map_err(EngineError::database(side))?;
        self.fence_large_objects(side, epoch, deadline).await?;
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        let mut made = Vec::new();
        if in_switch {
            made = stream::unpublished(client, names, Stream::from_side(side)).await.map_err(EngineError::database(side))?;
            made = self.left_behind(side, made).await?;
            let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
            made.extend(gate::unarmed(client).await.map_err(EngineError::database(side))?);
        }
        self.observed.closed_after_ms = self.pause_ms();
        if made.is_empty() {
            return Ok(());
        }
        Err(EngineError::Mismatch {
            what: format!("made at the {side} since its tables were armed, and so not carried over: {}", made.join(", ")),
            hint: "let no migrations run during the switch, and try again: `cutover status` says what to do about them".to_owned(),
        })
    }

    /// Of tables, quoted, that only one side has: those that must not stay behind when it hands over. On the way there
    /// the application would miss each; on the way back only rows count, and what the plan's own migration made at the
    /// target has nowhere to go.
    async fn left_behind(&mut self, side: Side, tables: Vec<String>) -> EngineResult<Vec<String>> {
        let state = self.state()?;
        match side {
            Side::Source => Ok(tables),
            Side::Target if state.shape.migrate || !state.shape.reverse => Ok(Vec::new()),
            Side::Target => {
                let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
                stream::holding_rows(client, tables).await.map_err(EngineError::database(side))
            }
        }
    }

    /// Runs a hook with the target's address in its environment; its identity was checked when we connected.
    async fn run_hook(&mut self, hook: Hook, epoch: u64) -> EngineResult<()> {
        let hooks = &self.cutover.plan.hooks;
        let (command, side, name) = match hook {
            Hook::Migrate => (&hooks.migrate, Side::Target, "migrate"),
            Hook::Smoke => (&hooks.smoke, self.state()?.authority, "smoke"),
        };
        let Some(command) = command else { return Ok(()) };
        let endpoint = self.endpoint_for_hook(side, epoch).await?;
        let role = endpoint.url.user.clone();
        if hook == Hook::Migrate {
            let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
            gate::let_role_pass(client, epoch, &role, name, Some(hooks.timeout)).await.map_err(EngineError::database(side))?;
        }
        let environment = hook_environment(self.cutover, name, side);
        let ran = run_hook(command, &endpoint, &environment, hooks.timeout, &self.cutover.folder).await;
        if hook == Hook::Migrate {
            let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
            gate::let_role_pass(client, epoch, &role, name, None).await.map_err(EngineError::database(side))?;
        }
        ran.map_err(|error| EngineError::Hook(format!("the {name} hook failed: {}", error.report())))?;
        if hook == Hook::Migrate {
            self.tell_what_clients_miss(Side::Source).await;
        }
        Ok(())
    }

    /// The database that a hook is to be run against, once it was seen to be the one that is meant.
    async fn endpoint_for_hook(&mut self, side: Side, epoch: u64) -> EngineResult<Endpoint> {
        let endpoint = self.cutover.endpoint(side);
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        let expected = self.log.begun()?.identity(side);
        let found = identity(client, &endpoint.url).await.map_err(EngineError::database(side))?;
        if !found.same_database(expected) {
            return Err(EngineError::Mismatch {
                what: format!("{} is not the {side} of this cutover", endpoint.url.address()),
                hint: "the hook was not run".to_owned(),
            });
        }
        gate::guard(client, epoch).await.map_err(EngineError::database(side))?;
        Ok(endpoint)
    }

    /// A slot that nobody reads keeps log for ever. That it could not be dropped is no reason to stop after a commit.
    async fn drop_slot(&mut self, stream: Stream, epoch: u64) -> EngineResult<()> {
        let side = stream.origin();
        let dropped = match self.sides.client(side).await {
            Ok(client) => stream::drop_slot(client, &self.cutover.names, stream, epoch).await,
            Err(error) => Err(error),
        };
        if let Err(error) = dropped {
            let slot = self.cutover.names.slot(stream);
            self.note(Notice::Warning(format!(
                "the {side} still has the slot {slot}, which keeps its log from being removed: {error}; drop it with \
                 SELECT pg_drop_replication_slot('{slot}')"
            )));
        }
        Ok(())
    }

    /// A8: no pause begins while the other side is behind, or misses a table.
    async fn check_stream(&mut self, stream: Stream, deadline: Instant) -> EngineResult<()> {
        let names = &self.cutover.names;
        let (origin, destination) = self.sides.both(stream.origin()).await.map_err(EngineError::database(stream))?;
        let mut problems = stream::check(origin, destination, names, stream).await.map_err(EngineError::database(stream))?;
        if !problems.is_empty() {
            // A worker that stands still is the commonest of them, and knows why.
            let cause = follow::cause(origin, destination, names, stream).await.ok().flatten();
            problems.extend(cause.map(|cause| cause.to_string()));
        }
        let missing = stream::missing(origin, destination).await.map_err(EngineError::database(stream))?;
        let missing = self.left_behind(stream.origin(), missing).await?;
        problems.extend(missing.iter().map(|table| {
            format!("{table} is at the {} only, and its rows would stay behind: move them by hand and drop it", stream.origin())
        }));
        let origin = self.sides.client(stream.origin()).await.map_err(EngineError::database(stream))?;
        if !problems.is_empty() {
            return Err(EngineError::Mismatch {
                what: format!("the {stream} stream does not carry everything: {}", problems.join("; ")),
                hint: "mend it as each says; `cutover status` shows the stream".to_owned(),
            });
        }
        gate::refuse_prepared(origin).await.map_err(EngineError::database(stream.origin()))?;
        if self.cutover.plan.switch.reverse {
            stream::await_launcher(origin, deadline).await.map_err(EngineError::database(stream.origin()))?;
        }
        let until = deadline.min(Instant::now() + Duration::from_secs(30));
        self.catch_up(stream, until).await?;
        self.meet_servers(deadline).await
    }

    async fn write_marker(&mut self, side: Side, epoch: u64) -> EngineResult<()> {
        let marker = format!("{side}/{epoch}");
        let url = &self.cutover.plan.database(side).url;
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        gate::write_marker(client, epoch, &marker).await.map_err(EngineError::database(side))?;
        let lsn = cutover_postgres::catalogue::insert_lsn(client).await.map_err(EngineError::database(side))?;
        let timeline = identity(client, url).await.map_err(EngineError::database(side))?.timeline;
        self.observed.fence = Some(Fence { lsn, marker, timeline });
        Ok(())
    }

    /// The last look before the commit point: the gate is closed at our epoch, on the server and timeline of the fence.
    async fn check_fence(&mut self, side: Side, epoch: u64) -> EngineResult<()> {
        let fence = self.fence()?;
        let expected = self.state()?.identity(side).clone();
        let url = &self.cutover.plan.database(side).url;
        self.check_large_object_fence(side).await?;
        let client = self.sides.client(side).await.map_err(EngineError::database(side))?;
        let gate = gate::state(client).await.map_err(EngineError::database(side))?;
        let found = identity(client, url).await.map_err(EngineError::database(side))?;
        let broken =
            |what: String| EngineError::Mismatch { what, hint: "the switch is undone; try again when the server is steady".to_owned() };
        if gate.open || gate.epoch != epoch {
            return Err(broken(format!(
                "the {side}'s gate is {} at epoch {}, ours is {epoch}",
                if gate.open { "open" } else { "closed" },
                gate.epoch
            )));
        }
        if !found.same_database(&expected) || found.timeline != fence.timeline {
            return Err(broken(format!(
                "the {side} failed over while it was fenced: timeline {} of server {}, the fence stood on timeline {} of {}",
                found.timeline, found.system_identifier, fence.timeline, expected.system_identifier
            )));
        }
        Ok(())
    }
}

/// What a hook may want to know, besides the address.
fn hook_environment(cutover: &Cutover, action: &str, side: Side) -> Vec<(String, String)> {
    let pairs = [("CUTOVER_PLAN", cutover.plan.name.clone()), ("CUTOVER_ACTION", action.to_owned()), ("CUTOVER_SIDE", side.to_string())];
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}
