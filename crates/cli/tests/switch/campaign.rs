//! Faults at random moments, again and again, under load. A seed repeats which; the moments are the machine's own.

use std::time::{Duration, Instant};

use cutover_testkit::{Cluster, eventually, rounds};
use rand::{RngExt, seq::IndexedRandom};

use crate::world::World;

const SOON: Duration = Duration::from_secs(60);

/// The longest that a switch is let run before the fault.
const LATEST: u64 = 1_500;

/// What happens to a switch that is under way.
#[derive(Clone, Copy, Debug)]
enum Fault {
    DriverKilled,
    SourceCrashed,
    TargetCrashed,
    DriverKilledAndSourceCrashed,
    DriverKilledAndTargetCrashed,
    Interrupted,
}

const FAULTS: [Fault; 6] = [
    Fault::DriverKilled,
    Fault::SourceCrashed,
    Fault::TargetCrashed,
    Fault::DriverKilledAndSourceCrashed,
    Fault::DriverKilledAndTargetCrashed,
    Fault::Interrupted,
];

/// Invariants 1, 2, 4 and 8, whatever happens whenever: one side takes writes, clients go on, nothing acknowledged is
/// lost.
#[tokio::test]
async fn faults_at_random_moments_leave_one_writer_and_lose_nothing() {
    let world = World::new().await;
    let load = world.load(6).await;
    world.ready().await;
    let mut rng = world.seed.derive(1).rng();
    for round in 0..rounds(6) {
        let back = world.authority().await == "target";
        let verb: &[&str] = if back { &["rollback", "--reason", "campaign"] } else { &["run"] };
        let (fault, after) = (*FAULTS.choose(&mut rng).unwrap(), Duration::from_millis(rng.random_range(0..LATEST)));
        println!("round {round}: {verb:?}, {fault:?} after {after:?}");
        play(&world, verb, fault, after).await;
        // Whoever comes next finishes or undoes.
        world.cutover(&["run", "--until", "ready"]).await.code(0);
        world.authority().await;
        load.wait_acknowledged(20, SOON).await.unwrap();
    }
    world.judge(load).await;
    world.cutover(&["audit", "--verify"]).await.code(0);
}

async fn play(world: &World, verb: &[&str], fault: Fault, after: Duration) {
    let mut child = world.command(verb).spawn().unwrap();
    let began = Instant::now();
    eventually(SOON, || async { began.elapsed() >= after }).await.unwrap();
    match fault {
        Fault::DriverKilled => child.kill().await.unwrap(),
        Fault::SourceCrashed => crash(&world.source).await,
        Fault::TargetCrashed => crash(&world.target).await,
        Fault::DriverKilledAndSourceCrashed => {
            child.kill().await.unwrap();
            crash(&world.source).await;
        }
        Fault::DriverKilledAndTargetCrashed => {
            child.kill().await.unwrap();
            crash(&world.target).await;
        }
        Fault::Interrupted => {
            if let Some(pid) = child.id() {
                tokio::process::Command::new("kill").args(["-INT", &pid.to_string()]).status().await.unwrap();
            }
        }
    }
    tokio::time::timeout(2 * SOON, child.wait_with_output()).await.expect("it ends").unwrap();
}

/// The server loses its power, and comes back.
async fn crash(cluster: &Cluster) {
    cluster.crash().await.unwrap();
    cluster.start_again().await.unwrap();
}
