//! What each step would do, word for word, for `cutover plan`. The statements come from where they are executed.

use std::{borrow::Cow, time::Duration};

use cutover_core::{
    Action, Hook, Identity, Phase, PlanRef, Preparation, Side, State, Step, Stream,
    plan::{Check, Expect, Filter, InPause, LargeObjects},
};
use cutover_postgres::{
    coverage::LeftOut,
    gate, large_objects,
    preflight::{Finding, Fix, Severity},
    stream,
};
use cutover_traffic::Problem;
use serde::{Deserialize, Serialize};

use crate::{Cutover, EngineResult};

/// What a cutover would do, as a person can read it beforehand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Described {
    /// The plan's name.
    pub plan: String,
    /// Every step, in order.
    pub steps: Vec<StepPlan>,
    /// The plan's own checks.
    pub checks: Vec<CheckPlan>,
    /// Which tables are covered.
    pub tables: Filter,
    /// What stays at the source, the largest first; none where the source can't be asked.
    pub left_out: Option<Vec<LeftOut>>,
    /// Why the source can't be asked. A database's own words: they stay in this process.
    #[serde(skip)]
    pub left_out_unknown: Option<String>,
}

/// One check of the plan's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckPlan {
    /// Its name.
    pub name: String,
    /// The query.
    pub sql: String,
    /// What both sides must answer: `equal`, `empty` or `value`.
    pub expect: Cow<'static, str>,
    /// The value; none where another answer is expected.
    pub value: Option<String>,
    /// How long it may take. Unit: milliseconds.
    pub timeout_ms: u64,
}

/// One step, as a person can read it beforehand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepPlan {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it establishes.
    pub establishes: Cow<'static, str>,
    /// What it does, in order.
    pub does: Vec<Call>,
    /// What undoes it, in order.
    pub undo: Vec<Call>,
    /// Its time-out in milliseconds; none where it takes as long as the data is large, or runs inside the pause.
    pub timeout_ms: Option<u64>,
    /// Whether it runs inside the pause, against what is left of its budget.
    pub in_pause: bool,
}

/// One statement, command or wait.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Where: `source`, `target`, `traffic`, `journal` or `shell`.
    pub place: String,
    /// What, word for word where it is a statement or a command.
    pub text: String,
}

impl Cutover {
    /// What the cutover would do: every step in order, with the exact statements and calls. Executes nothing; asks the source what is
    /// left out, where the plan leaves out anything.
    ///
    /// # Errors
    /// If the journal can't be read. That the source can't be asked is part of the answer.
    pub async fn describe(&self) -> EngineResult<Described> {
        let steps = steps(self, self.state().await?.as_ref());
        let (left_out, left_out_unknown) = match self.left_out().await {
            Ok(left_out) => (Some(left_out), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let plan = &self.plan;
        let checks = plan.checks.iter().map(CheckPlan::of).collect();
        Ok(Described { plan: plan.name.clone(), steps, checks, tables: plan.tables.filter.clone(), left_out, left_out_unknown })
    }
}

impl CheckPlan {
    fn of(check: &Check) -> Self {
        let value = match &check.expect {
            Expect::Value(value) => Some(value.clone()),
            Expect::Equal | Expect::Empty => None,
        };
        let (name, sql, timeout_ms) = (check.name.clone(), check.sql.clone(), whole_ms(check.timeout));
        Self { name, sql, expect: check.expect.name().into(), value, timeout_ms }
    }
}

fn whole_ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Every step from where the cutover stands; of one that has not begun, all.
fn steps(cutover: &Cutover, state: Option<&State>) -> Vec<StepPlan> {
    let imagined;
    let state = match state {
        Some(state) => state,
        None => {
            imagined = imagine(cutover);
            &imagined
        }
    };
    Step::all(state).into_iter().map(|step| describe(cutover, state, step)).collect()
}

/// A cutover that has not begun, as its plan describes it.
fn imagine(cutover: &Cutover) -> State {
    let identity = |side: Side| {
        let url = &cutover.plan.database(side).url;
        Identity { system_identifier: String::new(), database: url.database.clone(), timeline: 0, major: 0, address: url.address() }
    };
    State {
        plan: PlanRef { ..cutover.plan_ref() },
        shape: cutover.shape(),
        source: identity(Side::Source),
        target: identity(Side::Target),
        filter: cutover.plan.tables.filter.clone(),
        epoch: 1,
        authority: Side::Source,
        phase: Phase::Preparing { step: Preparation::Install },
        trial: None,
        snapshot: None,
        pauses: Vec::new(),
    }
}

fn describe(cutover: &Cutover, state: &State, step: Step) -> StepPlan {
    let spec = step.spec(state.shape.reverse);
    let calls = |actions: &[Action]| actions.iter().flat_map(|action| calls(cutover, state.epoch, *action)).collect();
    StepPlan {
        name: spec.name.into(),
        establishes: spec.establishes.into(),
        does: calls(&spec.does),
        undo: calls(&spec.undo),
        timeout_ms: spec.timeout.map(whole_ms),
        in_pause: spec.in_pause,
    }
}

/// An action in a line, for whoever waits for it.
pub(crate) fn line(cutover: &Cutover, epoch: u64, action: Action) -> String {
    const SHOWN: usize = 120;
    let calls = calls(cutover, epoch, action);
    let Some(first) = calls.first() else { return format!("{action:?}") };
    let text: String = first.text.chars().take(SHOWN).collect();
    let more = if text.len() < first.text.len() || calls.len() > 1 { " …" } else { "" };
    format!("{}: {text}{more}", first.place)
}

fn calls(cutover: &Cutover, epoch: u64, action: Action) -> Vec<Call> {
    let names = &cutover.names;
    let at = |side: Side, text: String| vec![Call { place: side.to_string(), text }];
    let carried = cutover.plan.copy.large_objects == LargeObjects::Copy;
    let gates = |side: Side, gate: String, more: &str| {
        let texts = std::iter::once(gate).chain(carried.then(|| more.to_owned()));
        texts.map(|text| Call { place: side.to_string(), text }).collect()
    };
    let shell = |text: String| vec![Call { place: "shell".to_owned(), text }];
    let traffic = |texts: Vec<String>| texts.into_iter().map(|text| Call { place: "traffic".to_owned(), text }).collect();
    match action {
        Action::InstallGate(side) => {
            at(side, "install the schema `cutover`: gate, marker, guard; docs/postgresql-objects.md says what is in it".to_owned())
        }
        Action::CloseGate(side) => gates(side, gate::move_sql(epoch, false), large_objects::FENCE_SQL),
        Action::OpenGate(side) => gates(side, gate::move_sql(epoch, true), large_objects::LIFT_SQL),
        Action::Isolate(side) => {
            at(side, format!("REVOKE CONNECT ON DATABASE \"{}\" FROM everyone who has it but us", cutover.plan.database(side).url.database))
        }
        Action::Admit(side) => {
            at(side, format!("GRANT CONNECT ON DATABASE \"{}\" TO everyone who had it", cutover.plan.database(side).url.database))
        }
        Action::CopySchema => shell("pg_dump --schema-only, section pre-data, into the target in one transaction".to_owned()),
        Action::Arm(side) => at(side, format!("for each table without a gate: {}", gate::arm_sql("…"))),
        Action::Disarm(side) => at(side, "for each table: DROP TRIGGER cutover_gate ON …".to_owned()),
        Action::Publish(it) => at(it.origin(), format!("CREATE PUBLICATION {} FOR TABLE …, cutover.marker", names.publication(it))),
        Action::CopyRows => vec![
            Call {
                place: Side::Source.to_string(),
                text: format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput EXPORT_SNAPSHOT", names.slot(Stream::Forward)),
            },
            Call {
                place: Side::Target.to_string(),
                text: format!(
                    "for each table, {} at a time: COPY … FROM the source's COPY … TO STDOUT in that snapshot{}",
                    cutover.plan.copy.jobs,
                    match cutover.plan.copy.large_objects {
                        LargeObjects::Refuse | LargeObjects::Copy => "",
                        LargeObjects::Ignore => "; large objects stay behind, as the plan says",
                    }
                ),
            },
        ],
        Action::BuildIndexes => at(
            Side::Target,
            "section post-data of the dump: indexes and constraints in parallel; REFRESH MATERIALIZED VIEW; ANALYZE".to_owned(),
        ),
        Action::RunHook(hook) => match hook {
            Hook::Migrate => shell(cutover.plan.hooks.migrate.clone().unwrap_or_default()),
            Hook::Smoke => shell(cutover.plan.hooks.smoke.clone().unwrap_or_default()),
        },
        Action::CreateSlot(it) => at(it.origin(), stream::sql_create_slot(names, it)),
        Action::Subscribe(it) => at(it.destination(), stream::sql_subscribe(names, it, "…")),
        Action::EnableStream(it) => at(it.destination(), stream::sql_enable(names, it)),
        Action::DisableStream(it) => at(it.destination(), format!("{}; see its worker gone", stream::sql_disable(names, it))),
        Action::AdvanceStream(it) => at(it.origin(), stream::sql_advance(names, it)),
        Action::DropSlot(it) => at(it.origin(), stream::sql_drop_slot(names, it)),
        Action::CatchUp(it) => {
            at(it.destination(), format!("wait until the {it} stream is at most {} bytes behind", cutover.plan.pause.lag_bytes))
        }
        Action::Verify => at(Side::Target, "compare every row with the source, while both move".to_owned()),
        Action::WatchChanges(_) | Action::VerifyChanges(_) | Action::CompareChanges(_) if cutover.plan.verify.in_pause == InPause::Off => {
            vec![]
        }
        Action::WatchChanges(it) => at(it.origin(), format!("{}; read which rows change", cutover_postgres::verify::sql_watch(names, it))),
        Action::VerifyChanges(it) => {
            at(it.destination(), format!("compare the rows that changed at the {}, until few are left", it.origin()))
        }
        Action::CompareChanges(it) => {
            at(it.destination(), format!("compare the rows that changed last at the {}, up to the marker, by their keys", it.origin()))
        }
        Action::BringLargeObjects(_) | Action::BringLastLargeObjects(_) if !carried => vec![],
        Action::BringLargeObjects(it) => at(
            it.destination(),
            format!("make the large objects what they are at the {}: those that either side changed since the last look", it.origin()),
        ),
        Action::BringLastLargeObjects(it) => {
            at(it.destination(), format!("the same, a last time: nobody writes any at the {}", it.origin()))
        }
        Action::CheckStream(it) => {
            at(it.origin(), format!("see that the {it} stream carries every table, is close behind, and that nothing is prepared"))
        }
        Action::HoldTraffic => traffic(cutover.fleet.adapters().iter().flat_map(|adapter| adapter.hold_calls()).collect()),
        Action::ReleaseTraffic(side) => {
            let endpoint = cutover.endpoint(side);
            traffic(cutover.fleet.adapters().iter().flat_map(|adapter| adapter.release_calls(&endpoint)).collect())
        }
        Action::AwaitClients(side) => traffic(cutover.fleet.flags().map(|flags| flags.gather_calls(side)).unwrap_or_default()),
        Action::Try(_) => cutover.plan.hooks.trial.clone().map(shell).unwrap_or_default(),
        Action::WriteMarker(side) => {
            at(side, format!("{}; SELECT pg_current_wal_insert_lsn()", gate::marker_sql(&format!("{side}/{epoch}"))))
        }
        Action::AwaitMarker(it) => at(it.destination(), "wait until the marker is applied".to_owned()),
        Action::Flush(side) => at(side, format!("{}; COMMIT, synchronously", gate::FLUSH_SQL)),
        Action::SetSequences(side) => {
            at(side, format!("setval(…) for every sequence, {} steps ahead of the other side", cutover.plan.switch.sequence_headroom))
        }
        Action::CheckFence(side) => {
            at(side, "see that gate, timeline and server are as the journal says; then journal `committed`".to_owned())
        }
        Action::DropStream(it) => at(
            it.destination(),
            format!("DROP SUBSCRIPTION {0}; at the {1}: drop slot and publication {0}", names.subscription(it), it.origin()),
        ),
        Action::RemoveGate(side) => at(side, "DROP SCHEMA cutover CASCADE".to_owned()),
    }
}

/// An adapter's problem as one of preflight's findings.
pub(crate) fn traffic_finding(adapter: &str, problem: Problem) -> Finding {
    let severity = match problem.severity {
        cutover_traffic::Severity::Info => Severity::Info,
        cutover_traffic::Severity::Warning => Severity::Warning,
        cutover_traffic::Severity::Error => Severity::Error,
    };
    Finding {
        check: "traffic".into(),
        severity,
        side: None,
        message: format!("{adapter}: {}", problem.message),
        evidence: Vec::new(),
        fix: (!problem.fix.is_empty()).then_some(Fix::Advice(problem.fix)),
    }
}
