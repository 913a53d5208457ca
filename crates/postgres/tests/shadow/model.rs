//! The functions in the database against the pure core: whatever is called in whatever order, both come to the same state, or refuse alike.

use std::{collections::BTreeSet, time::Duration};

use cutover_core::{
    operations::Durations,
    shift::{ALL, Compared, Decision, Evidence, Health, Judgement, Limits, Measured, Reads, Rungs, Salt, Way, judge},
};
use cutover_testkit::{Seed, rounds};
use rand::{RngExt, rngs::StdRng};

use crate::ground::{Ground, MAJORS, run, text};

/// Rows of the table.
const ROWS: u64 = 20;

const LIMITS: fn() -> Limits = || Limits { min_samples: 10, ..Limits::default() };

/// What an application has done and what was planted, as the core would be told of it.
struct World {
    way: Way,
    /// Reads at the target and at the source in this epoch: how long, and how many failed.
    target: (Durations, u64),
    source: Durations,
    baseline_ms: Option<u64>,
    /// Second writes since the stage began, and how many of them failed.
    writes: (u64, u64),
    /// Something was measured since the last check.
    fresh: bool,
    backfilled: bool,
    /// The shadow refuses what is written to it.
    refuses: bool,
    different: BTreeSet<u64>,
    dirty: BTreeSet<u64>,
}

impl World {
    fn new() -> Self {
        let way = Way::new(Rungs::SHADOW_TABLES).decide(&Decision::Mirror(true), 0).unwrap();
        Self {
            way,
            target: Default::default(),
            source: Durations::default(),
            baseline_ms: None,
            writes: (5, 0),
            fresh: true,
            backfilled: true,
            refuses: false,
            different: BTreeSet::new(),
            dirty: BTreeSet::new(),
        }
    }

    fn compared(&self) -> Compared {
        if self.dirty.is_empty() { Compared::Rows { all: ROWS, different: self.different.len() as u64 } } else { Compared::Inconclusive }
    }

    fn measured(&self, compared: Compared) -> Measured {
        let p95 = |durations: &Durations| durations.at_most(950).unwrap_or_default();
        let now = (self.source.count() >= LIMITS().min_samples).then(|| p95(&self.source));
        Measured {
            target: Reads { count: self.target.0.count(), failed: self.target.1, p95_ms: p95(&self.target.0) },
            baseline_ms: now.or(self.baseline_ms),
            writes: self.writes,
            writes_since_stage: self.writes,
            compared,
        }
    }

    fn judgement(&self, compared: Compared) -> Judgement {
        judge(self.way.watch(), &self.measured(compared), &LIMITS())
    }

    /// A statement changes some rows.
    fn write(&mut self, rows: impl Iterator<Item = u64>) {
        for row in rows {
            if !self.way.mirror || self.refuses {
                self.different.insert(row);
            } else {
                self.different.remove(&row);
            }
            if self.way.mirror && self.refuses {
                self.dirty.insert(row);
            }
        }
        if self.way.mirror {
            self.writes.0 += 1;
            self.writes.1 += u64::from(self.refuses);
            self.fresh = true;
        }
    }

    /// Somebody decides: the way, or the SQLSTATE of the refusal.
    fn decide(&mut self, decision: &Decision) -> String {
        let was = self.way.epoch;
        match self.way.decide(decision, 0) {
            Err(refusal) => return refusal.sql_state().to_owned(),
            Ok(way) => self.way = way,
        }
        match decision {
            Decision::Start(_) => self.baseline_ms = None,
            Decision::Advance(_) => self.baseline_ms = self.measured(Compared::Inconclusive).baseline_ms,
            Decision::Reset(_) => self.baseline_ms = None,
            _ => {}
        }
        if self.way.epoch != was {
            self.target = Default::default();
            self.source = Durations::default();
            self.writes = (0, 0);
            self.fresh = false;
        }
        "done".to_owned()
    }

    fn check(&mut self) -> String {
        let compared = if self.backfilled { self.compared() } else { Compared::Inconclusive };
        let judgement = self.judgement(compared);
        let far = matches!(compared, Compared::Rows { all, different } if different * 1_000_000 > LIMITS().back.differences * all);
        self.way = self.way.checked(&judgement, self.fresh || far, &LIMITS());
        let Way { health, row, .. } = self.way;
        let ready = health == Health::Healthy && judgement.is_ready();
        self.baseline_ms = self.measured(compared).baseline_ms;
        self.fresh = false;
        let health = match health {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Unhealthy => "unhealthy",
            Health::Unknown => "inconclusive",
        };
        format!("{health}|{}|{row}", if ready { "t" } else { "f" })
    }

    /// The state, as the database tells it.
    fn state(&self) -> String {
        let Way { epoch, mirror, stopped, row, .. } = self.way;
        let flag = |on| if on { "t" } else { "f" };
        let share = format!("{:.2}", f64::from(self.way.rung().target_reads) / 100.0);
        format!("{}|{share}|{epoch}|{row}|{}|{}", self.way.rung().stage, flag(mirror), flag(stopped))
    }
}

const STATE: &str = "SELECT r.cutover_stage, r.read_percentage, r.epoch, r.consecutive_failures, r.write_shadow_enabled, c.emergency_stop
    FROM cutover.traffic_routing_config r JOIN cutover.dual_write_config c USING (table_name)";

/// What a call ends with: `done`, or the SQLSTATE.
async fn called(ground: &Ground, sql: &str) -> String {
    match ground.owner.batch_execute(sql).await {
        Ok(()) => "done".to_owned(),
        Err(error) => error.code().unwrap_or_else(|| panic!("{sql}: {error}")).code().to_owned(),
    }
}

/// One random thing happens to both; returns what it was, and what each said of it.
async fn happens(ground: &Ground, world: &mut World, random: &mut StdRng) -> (String, String, String) {
    let row = random.random_range(1..=ROWS);
    let reason = if random.random_bool(0.1) { " " } else { "why" };
    let decided = |sql: String, decision: Decision, world: &mut World| (sql, world.decide(&decision));
    let (sql, expected) = match random.random_range(0..34) {
        0..2 => {
            let minutes = if random.random_bool(0.9) { 0 } else { 60 };
            let dwell = Some(Duration::from_secs(minutes * 60));
            decided(format!("SELECT cutover.start_gradual_cutover('projects', {minutes})"), Decision::Start(dwell), world)
        }
        2..9 => {
            // What an advance judges by: the comparison of all rows stands for the score.
            let evidence = Evidence { compared: world.compared(), judgement: world.judgement(Compared::Rows { all: ROWS, different: 0 }) };
            decided("SELECT cutover.advance_cutover_stage('projects')".to_owned(), Decision::Advance(evidence), world)
        }
        9..11 => decided(
            format!("SELECT cutover.advance_cutover_stage('projects', true, '{reason}')"),
            Decision::Force(reason.to_owned()),
            world,
        ),
        11 => decided(format!("SELECT cutover.emergency_rollback('projects', '{reason}')"), Decision::Rollback(reason.to_owned()), world),
        12 => decided("SELECT cutover.emergency_stop_all_cutover('why')".to_owned(), Decision::Stop("why".to_owned()), world),
        13 => {
            let confirmed = random.random_bool(0.7);
            let told = world.decide(&Decision::Reset(confirmed));
            let sql = format!("SELECT cutover.reset_cutover_state('projects', {confirmed})");
            // Settings are forgotten as well.
            let again = "SELECT cutover.configure_cutover('projects', '{\"min_samples\": 10}')";
            (if told == "done" { format!("{sql}; {again}") } else { sql }, told)
        }
        14 if random.random_bool(0.5) => {
            world.backfilled &= false;
            decided("SELECT cutover.disable_dual_write('projects', 'why')".to_owned(), Decision::Mirror(false), world)
        }
        14..17 => decided("SELECT cutover.enable_dual_write('projects')".to_owned(), Decision::Mirror(true), world),
        17..21 => {
            let (count, ms) = (random.random_range(1..12), random.random_range(95..115));
            let failed = if random.random_bool(0.2) { random.random_range(0..2) } else { 0 };
            world.target.0.add(ms, count);
            world.target.1 += failed.min(count);
            world.fresh = true;
            (
                format!(
                    "SELECT cutover.record_cutover_operation('projects', 'read', {ms}, i > {failed}, true) FROM generate_series(1, {count}) i"
                ),
                "done".to_owned(),
            )
        }
        21..24 => {
            let (count, ms) = (random.random_range(1..12), random.random_range(95..105));
            world.source.add(ms, count);
            (
                format!("SELECT cutover.record_cutover_operation('projects', 'read', {ms}) FROM generate_series(1, {count}) i"),
                "done".to_owned(),
            )
        }
        24..28 => {
            let times = random.random_range(1..8);
            (0..times).for_each(|_| world.write(std::iter::once(row)));
            (format!("UPDATE projects SET last = last || 'x' WHERE id = {row};").repeat(times), "done".to_owned())
        }
        28 if !world.refuses => {
            world.different.insert(row);
            (format!("UPDATE projects_shadow SET cents = coalesce(cents, 0) - 1 WHERE id = {row}"), "done".to_owned())
        }
        29 => {
            world.refuses = !world.refuses;
            let sql =
                if world.refuses { "ADD CONSTRAINT refuses CHECK (full_name = 'never') NOT VALID" } else { "DROP CONSTRAINT refuses" };
            (format!("ALTER TABLE projects_shadow {sql}"), "done".to_owned())
        }
        30..33 if !world.refuses && world.way.mirror => {
            let queued = std::mem::take(&mut world.dirty);
            world.different.retain(|row| !queued.contains(row));
            if !world.backfilled {
                world.different.clear();
                world.backfilled = true;
            }
            (
                "SELECT cutover.drain('projects'), cutover.backfill_step('projects'), cutover.backfill_step('projects')".to_owned(),
                "done".to_owned(),
            )
        }
        _ => {
            let expected = world.check();
            let told = text(
                &ground.owner,
                "SELECT overall_health, ready_to_advance, consecutive_failures FROM cutover.perform_cutover_health_check('projects')",
            )
            .await;
            return ("check".to_owned(), told, expected);
        }
    };
    let told = called(ground, &sql).await;
    (sql, told, expected)
}

#[tokio::test]
async fn the_functions_and_the_core_agree_on_every_state_and_every_refusal() {
    let seed = Seed::from_env_or_random();
    for major in MAJORS {
        for round in 0..rounds(3) {
            let ground = Ground::moving(major, &format!("model_{round}"), ROWS as u32, "sync").await;
            ground.settle().await;
            run(
                &ground.owner,
                "UPDATE projects SET last = 'first' WHERE id = 1; SELECT cutover.configure_cutover('projects', '{\"min_samples\": 10}')",
            )
            .await;
            run(&ground.admin, "TRUNCATE cutover.dual_write_stats").await;
            run(&ground.owner, &"UPDATE projects SET last = last WHERE id = 1;".repeat(5)).await;
            let (mut world, mut random) = (World::new(), seed.derive(u64::from(major * 1_000 + round)).rng());
            let mut story = Vec::new();
            for _ in 0..120 {
                let (what, told, expected) = happens(&ground, &mut world, &mut random).await;
                story.push(format!("{what} -> {told}"));
                assert_eq!(told, expected, "{major}:\n{}", story.join("\n"));
                assert_eq!(text(&ground.owner, STATE).await, world.state(), "{major}:\n{}", story.join("\n"));
                let share =
                    "SELECT count(*) FROM generate_series(1, 100) i WHERE cutover.should_route_to_shadow('projects', 'read', i::text)";
                let salt = Salt::of(&format!("model_{round}"), "projects");
                let covered = (1..=100).filter(|key: &u32| salt.covers(&key.to_string(), world.way.target_reads())).count();
                assert_eq!(text(&ground.owner, share).await, covered.to_string(), "{major}:\n{}", story.join("\n"));
            }
            let broken = text(&ground.owner, "SELECT * FROM cutover.verify_audit()").await;
            assert_eq!(broken, "", "{major}");
        }
    }
}

/// C13: on 100,000 keys, of every kind of text.
#[tokio::test]
async fn c13_a_hundred_thousand_keys_have_the_bucket_that_rust_gives_them() {
    let mut random = Seed::from_env_or_random().rng();
    for major in MAJORS {
        let ground = Ground::new(major, "many_keys").await;
        let keys: Vec<String> = (0..100_000_u32)
            .map(|number| match number % 4 {
                0 => number.to_string(),
                1 => format!("user-{:x}", random.random::<u64>()),
                2 => (0..random.random_range(0..40)).map(|_| random.random_range('\u{1}'..='\u{10ffff}')).collect(),
                _ => format!("Größe 漢字 {number}\n\t'\"\\"),
            })
            .collect();
        let salt: String = format!("shop ü {}", random.random::<u32>());
        let sql = "SELECT array_agg(cutover.bucket($1, k.key) ORDER BY k.place) FROM unnest($2::text[]) WITH ORDINALITY AS k (key, place)";
        let told: Vec<i32> = ground.owner.query_one(sql, &[&salt, &keys]).await.unwrap().get(0);
        let salt = Salt::new(&salt);
        for (key, told) in keys.iter().zip(told) {
            let bucket = salt.bucket(key);
            assert!(bucket < ALL && i32::from(bucket) == told, "{major}: {key:?} is in {bucket}, and in {told}");
        }
    }
}
