//! The copy is broken off by force: by the driver's death, at the source, by the target's crash; each time it ends complete.

use std::time::{Duration, Instant};

use cutover_testkit::{Cluster, eventually, rounds};
use rand::{RngExt, seq::IndexedRandom};
use tokio::{process::Child, task::JoinHandle};
use tokio_postgres::Client;

use crate::world::{DATABASE, Said, World, admin_url};

const SOON: Duration = Duration::from_secs(90);

/// The longest that a copy is let run before the fault.
const LATEST: u64 = 600;

/// A table of some twenty parts.
const LARGE: &str = "CREATE TABLE public.large (id int PRIMARY KEY, v text); ALTER TABLE public.large OWNER TO app;
    INSERT INTO public.large SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 60000) i";

const IN_PARTS: &str = "[copy]\npart_size = \"1MB\"\njobs = 3";

/// Each row with the transaction that brought it, but those of the part at which the first copy stood.
const BROUGHT: &str =
    "SELECT md5(string_agg(id || ' ' || xmin::text, ',' ORDER BY id)) FROM public.large WHERE id < 25000 OR id BETWEEN 35000 AND 60000";

async fn large() -> World {
    let world = World::of(15, 15, IN_PARTS).await;
    world.source.execute(DATABASE, LARGE).await.unwrap();
    world
}

/// A copy of which one part stands, and the session that it waits for.
async fn standing() -> (World, Child, Client) {
    let world = large().await;
    for _ in ["install", "copy_schema"] {
        world.cutover_killed(&["run", "--until", "ready"], Some("after:prepared")).await.killed();
    }
    let holder = world.target.client(DATABASE).await.unwrap();
    let stand = "SELECT cutover.let_pass('test');
        CREATE FUNCTION public.stand() RETURNS boolean LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN true; END $$;
        ALTER TABLE public.large ADD CONSTRAINT stands CHECK (id <> 30000 OR public.stand()); SELECT pg_advisory_lock(42)";
    holder.batch_execute(stand).await.unwrap();
    let child = world.command(&["run", "--until", "ready"]).spawn().unwrap();
    let one_left = "SELECT count(*) > 20 AND count(*) FILTER (WHERE NOT done) = 1 FROM cutover.copy_task";
    eventually(SOON, || async { holder.query_one(one_left, &[]).await.is_ok_and(|row| row.get(0)) }).await.unwrap();
    (world, child, holder)
}

/// It ends complete, and no part that was done was done again.
async fn ends_complete(world: &World, brought: &str) {
    assert_eq!(world.ask(&world.target, BROUGHT).await, brought);
    assert_eq!(world.ask(&world.target, "SELECT count(*) FROM cutover.copy_task WHERE NOT done").await, "0");
    same_dumps(world).await;
    assert_eq!(world.ask(&world.source, KEEPERS).await, "0");
}

const KEEPERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cutover/bank/keeper'";

async fn ended(child: Child) -> Said {
    Said::of(tokio::time::timeout(2 * SOON, child.wait_with_output()).await.expect("it ends").unwrap())
}

/// B5: the process is gone, without a word to anybody; its snapshot is not.
#[tokio::test]
async fn b5_a_copy_whose_driver_was_killed_goes_on_with_what_is_left() {
    let (world, mut child, holder) = standing().await;
    let brought = world.ask(&world.target, BROUGHT).await;
    child.kill().await.unwrap();
    holder.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    assert_eq!(world.ask(&world.source, KEEPERS).await, "2");
    // What is written since is the stream's to bring.
    world.source.execute(DATABASE, "INSERT INTO public.large VALUES (30001000, 'later')").await.unwrap();
    world.cutover(&["run", "--until", "ready"]).await.code(0).says("goes on with the earlier copy");
    ends_complete(&world, &brought).await;
}

/// The driver itself goes on: nobody has to type anything.
#[tokio::test]
async fn b5_a_copy_whose_connections_end_at_the_source_goes_on_by_itself() {
    let (world, child, holder) = standing().await;
    let brought = world.ask(&world.target, BROUGHT).await;
    let end = "SELECT count(pg_terminate_backend(pid)) > 1 FROM pg_stat_activity WHERE application_name = 'cutover/bank/copy'";
    assert_eq!(world.ask(&world.source, end).await, "true");
    holder.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    ended(child).await.code(0).says("the copy goes on in").says("goes on with the earlier copy");
    ends_complete(&world, &brought).await;
}

#[tokio::test]
async fn b5_a_copy_whose_target_crashes_goes_on_by_itself() {
    let (world, child, _holder) = standing().await;
    let brought = world.ask(&world.target, BROUGHT).await;
    crash(&world.target).await;
    ended(child).await.code(0).says("the copy goes on in").says("goes on with the earlier copy");
    ends_complete(&world, &brought).await;
}

/// What happens to a copy that is under way.
#[derive(Clone, Copy, Debug)]
enum Fault {
    DriverKilled,
    ConnectionEndedAtSource,
    KeeperEnded,
    /// The server ends all its sessions then, and no snapshot outlives that.
    BackendKilledAtSource,
    TargetCrashed,
    DriverKilledAndTargetCrashed,
}

const FAULTS: [Fault; 6] = [
    Fault::DriverKilled,
    Fault::ConnectionEndedAtSource,
    Fault::KeeperEnded,
    Fault::BackendKilledAtSource,
    Fault::TargetCrashed,
    Fault::DriverKilledAndTargetCrashed,
];

/// B5, whatever happens to the copy whenever, and while clients write: in the end both sides hold the same.
#[tokio::test]
async fn campaign_of_faults_while_rows_are_copied_ends_complete_each_time() {
    let world = large().await;
    let mut rng = world.seed.derive(2).rng();
    for round in 0..rounds(4) {
        let writer = writer(&world).await;
        for _ in 0..rng.random_range(1..=3) {
            let (fault, after) = (*FAULTS.choose(&mut rng).unwrap(), Duration::from_millis(rng.random_range(0..LATEST)));
            println!("round {round}: {fault:?} after {after:?}");
            play(&world, fault, after).await;
        }
        writer.abort();
        drop(writer.await);
        world.cutover(&["run", "--until", "ready"]).await.code(0);
        same_dumps(&world).await;
        begin_again(&world).await;
    }
}

async fn play(world: &World, fault: Fault, after: Duration) {
    let mut child = world.command(&["run", "--until", "ready"]).spawn().unwrap();
    let copying = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cutover/bank/copy'";
    let begun = eventually(SOON, || {
        let over = child.try_wait().unwrap().is_some();
        async move { over || ask_again(world, copying).await != "0" }
    });
    begun.await.unwrap();
    let began = Instant::now();
    eventually(SOON, || async { began.elapsed() >= after }).await.unwrap();
    match fault {
        Fault::DriverKilled => drop(child.kill().await),
        Fault::ConnectionEndedAtSource => end(world, "copy").await,
        Fault::KeeperEnded => end(world, "keeper").await,
        Fault::BackendKilledAtSource => kill_backend(world).await,
        Fault::TargetCrashed => crash(&world.target).await,
        Fault::DriverKilledAndTargetCrashed => {
            drop(child.kill().await);
            crash(&world.target).await;
        }
    }
    // It may have ended well, or with what happened after the rows were copied.
    ended(child).await;
}

/// One value of a query at the source, which may be in recovery: then when it is back.
async fn ask_again(world: &World, sql: &str) -> String {
    let sql = format!("SELECT ({sql})::text");
    let answer = eventually(SOON, || async {
        let client = world.source.client(DATABASE).await.ok()?;
        let row = client.query_one(&sql, &[]).await.ok()?;
        Some(row.get::<_, Option<String>>(0).unwrap_or_default())
    });
    answer.await.unwrap()
}

/// One of our sessions at the source, if there is any.
fn one_of(purpose: &str) -> String {
    format!("SELECT pid FROM pg_stat_activity WHERE application_name = 'cutover/bank/{purpose}' ORDER BY random() LIMIT 1")
}

async fn end(world: &World, purpose: &str) {
    ask_again(world, &format!("SELECT pg_terminate_backend(({}))", one_of(purpose))).await;
}

/// Kills one of the source's processes, and waits until the server has noticed and is back.
async fn kill_backend(world: &World) {
    let pid = ask_again(world, &one_of("copy")).await;
    if pid.is_empty() {
        return;
    }
    tokio::process::Command::new("kill").args(["-9", &pid]).status().await.unwrap();
    let gone = format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})");
    eventually(SOON, || async { ask_again(world, &gone).await == "true" }).await.unwrap();
}

/// The server loses its power, and comes back.
async fn crash(cluster: &Cluster) {
    cluster.crash().await.unwrap();
    cluster.start_again().await.unwrap();
}

/// A client that changes rows, moves them, and comes again when it is thrown out.
async fn writer(world: &World) -> JoinHandle<()> {
    let url = admin_url(&world.source);
    tokio::spawn(async move {
        for n in 0_i32.. {
            let (client, connection) = eventually(SOON, || tokio_postgres::connect(&url, tokio_postgres::NoTls)).await.unwrap();
            let connection = tokio::spawn(connection);
            let change = format!(
                "UPDATE public.large SET v = repeat('u', {n} % 500) WHERE id % 997 = {n} % 997; DELETE FROM public.large WHERE id = {n} % 60000; \
                 INSERT INTO public.large VALUES (100000 + {n}, 'new') ON CONFLICT DO NOTHING"
            );
            drop(client.batch_execute(&change).await);
            drop(client);
            drop(connection.await);
        }
    })
}

/// What `pg_dump` says of both sides is the same, when the target has caught up.
async fn same_dumps(world: &World) {
    let same = eventually(SOON, || async {
        let (source, target) = tokio::join!(dump(&world.source), dump(&world.target));
        let first = source.iter().zip(&target).find(|(here, there)| here != there);
        if source == target && !source.is_empty() { Ok(()) } else { Err(format!("{} and {} lines, {first:?}", source.len(), target.len())) }
    });
    same.await.unwrap_or_else(|error| panic!("seed {:?}: {error}", world.seed));
}

/// All rows, sorted. Sequences are carried over in the switch.
async fn dump(cluster: &Cluster) -> Vec<String> {
    let program = cutover_testkit::newest_tools().unwrap().join("pg_dump");
    let output = tokio::process::Command::new(program)
        .args(["--data-only", "--exclude-schema=cutover", "--dbname", &admin_url(cluster)])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let skipped = ["\\restrict", "\\unrestrict", "SELECT pg_catalog.setval"];
    let mut lines: Vec<String> =
        text.lines().filter(|line| !skipped.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// The cutover is given up, and the target is empty again.
async fn begin_again(world: &World) {
    world.cutover(&["rollback", "--reason", "campaign", "--confirm", "bank"]).await.code(0);
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{DATABASE}'");
    world.target.execute("postgres", &end).await.unwrap();
    world.target.execute("postgres", &format!("DROP DATABASE {DATABASE} WITH (FORCE)")).await.unwrap();
    world.target.create_database(DATABASE).await.unwrap();
    std::fs::remove_dir_all(world.folder.path().join(".cutover")).unwrap();
    assert_eq!(world.ask(&world.source, KEEPERS).await, "0");
}
