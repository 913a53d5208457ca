//! Large objects go along: under writes, there and back, and through what goes wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use cutover_testkit::{Cluster, eventually};
use tokio::{process::Child, task::JoinHandle};
use tokio_postgres::{Client, NoTls};

use crate::world::{DATABASE, PASSWORD, Said, World};

const SOON: Duration = Duration::from_secs(30);

const COPIED: &str = "[copy]\nlarge_objects = \"copy\"";

/// 77 is written all the time. The others: with rights and a comment, empty, of several chunks, with a hole, ending with a page.
const THERE: &str = "CREATE TABLE bank.files (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, content oid);
    ALTER TABLE bank.files OWNER TO app_owner; GRANT SELECT, INSERT, UPDATE, DELETE ON bank.files TO app;
    SELECT lo_from_bytea(77, int8send(0)); ALTER LARGE OBJECT 77 OWNER TO app;
    SELECT lo_from_bytea(78, 'described'); ALTER LARGE OBJECT 78 OWNER TO app_owner; COMMENT ON LARGE OBJECT 78 IS 'it''s one';
    GRANT SELECT ON LARGE OBJECT 78 TO PUBLIC; GRANT ALL ON LARGE OBJECT 78 TO app WITH GRANT OPTION;
    SELECT lo_create(79);
    SELECT lo_from_bytea(80, (SELECT string_agg(decode(md5(i::text), 'hex'), '') FROM generate_series(1, 200000) i));
    SELECT lo_create(81), lo_put(81, 0, 'begin'), lo_put(81, 5000000, 'end');
    SELECT lo_from_bytea(82, convert_to(repeat('x', 4 * 2048), 'UTF8'));
    SELECT lo_from_bytea(i::oid, convert_to(repeat(md5(i::text), i % 90), 'UTF8')) FROM generate_series(1000, 1600) i";

const DIGEST: &str =
    "SELECT count(*) || ' ' || md5(string_agg(concat_ws(':', oid, pg_get_userbyid(lomowner), lomacl::text, md5(lo_get(oid)),
    obj_description(oid, 'pg_largeobject')), ',' ORDER BY oid)) FROM pg_largeobject_metadata";

/// Who could call the functions, before anything was fenced.
const RIGHTS: &str = "SELECT string_agg(p.oid::regprocedure || ' ' || x.grantee || ' ' || x.is_grantable, ',' ORDER BY 1::text, p.oid, x.grantee)
    FROM pg_proc p CROSS JOIN aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) x WHERE p.proname ~ '^lo' AND p.pronamespace = 'pg_catalog'::regnamespace";

async fn world(source: u32, target: u32) -> World {
    let world = World::of(source, target, COPIED).await;
    world.source.execute(DATABASE, THERE).await.unwrap();
    world
}

/// What a client was told is written.
struct Writer {
    last: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    /// One that counts up in large object 77 and nothing else: it meets no table, and so no gate. It begins again where it
    /// is refused, and goes on with what it was told last.
    fn counting(url: String) -> Self {
        Self::start(url, |n| format!("SELECT lo_put(77, 0, int8send({n}))"))
    }

    /// One that makes a large object with each row, and changes and removes others, as applications do.
    fn filing(url: String) -> Self {
        Self::start(url, |n| {
            format!(
                "BEGIN; INSERT INTO bank.files (content) VALUES (lo_from_bytea(0, '{n}')); \
                 SELECT lo_put(content, 3000, 'later {n}') FROM bank.files WHERE id = {n} - 3; \
                 WITH gone AS (DELETE FROM bank.files WHERE id = {n} - 20 RETURNING content) SELECT lo_unlink(content) FROM gone; COMMIT"
            )
        })
    }

    fn start(url: String, statement: impl Fn(i64) -> String + Send + 'static) -> Self {
        let (last, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let (told, stopped) = (Arc::clone(&last), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            while !stopped.load(SeqCst) {
                let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else { continue };
                let connection = tokio::spawn(connection);
                while !stopped.load(SeqCst) {
                    let next = told.load(SeqCst) + 1;
                    if client.batch_execute(&statement(next)).await.is_err() {
                        break;
                    }
                    told.store(next, SeqCst);
                }
                drop(client);
                drop(connection.await);
            }
        });
        Self { last, stop, task }
    }

    /// Waits until so many more are acknowledged.
    async fn more(&self, count: i64) {
        let from = self.last.load(SeqCst);
        eventually(SOON, || async { self.last.load(SeqCst) >= from + count }).await.unwrap();
    }

    /// The last that was acknowledged.
    async fn end(self) -> i64 {
        self.stop.store(true, SeqCst);
        self.task.await.unwrap();
        self.last.load(SeqCst)
    }
}

fn direct(cluster: &Cluster) -> String {
    cluster.url_with_password("app", PASSWORD, DATABASE)
}

async fn app(cluster: &Cluster) -> Client {
    let (client, connection) = tokio_postgres::connect(&direct(cluster), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn counted(world: &World, cluster: &Cluster) -> i64 {
    world.ask(cluster, "SELECT ('x' || encode(lo_get(77, 0, 8), 'hex'))::bit(64)::bigint").await.parse().unwrap()
}

/// Nobody but a superuser writes large objects there, whichever way; reading goes on.
async fn is_fenced(cluster: &Cluster) {
    // Before a switch clients can't even connect to the target.
    let client = cluster.client(DATABASE).await.unwrap();
    client.batch_execute("SET ROLE app").await.unwrap();
    for write in [
        "SELECT lo_put(77, 0, 'x')",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_unlink(77)",
        "SELECT lowrite(lo_open(77, 131072), 'x')",
        "SELECT lo_truncate(lo_open(77, 131072), 1)",
        "SELECT lo_truncate64(lo_open(77, 131072), 1)",
        "GRANT ALL ON LARGE OBJECT 77 TO PUBLIC",
    ] {
        let error = client.batch_execute(write).await.unwrap_err();
        assert!(["42501", "25006"].contains(&error.code().unwrap().code()), "{write}: {error:?}");
    }
    client.batch_execute("SELECT lo_get(77), loread(lo_open(77, 262144), 8)").await.unwrap();
}

/// B17: what writes only large objects meets no gate. Not one acknowledged write of it stays behind, there and back.
#[tokio::test]
async fn b17_large_objects_go_along_there_and_back_under_writes() {
    let world = world(15, 17).await;
    let rights = [world.ask(&world.source, RIGHTS).await, world.ask(&world.target, RIGHTS).await];
    let counting = Writer::counting(direct(&world.source));
    let filing = Writer::filing(world.bouncer.url("app", DATABASE));
    counting.more(5).await;
    filing.more(5).await;
    world.ready().await;
    world
        .source
        .execute(DATABASE, "SELECT lo_unlink(1500), lo_truncate(lo_open(82, 131072), 2 * 2048), lo_put(80, 2000000, 'new')")
        .await
        .unwrap();
    counting.more(5).await;
    world.cutover(&["plan"]).await.code(0).says("SELECT cutover.fence_large_objects()");
    world.cutover(&["run"]).await.code(0).says("compared inside the pause");
    let last = counting.end().await;
    assert_eq!(counted(&world, &world.target).await, last, "the last that was acknowledged");
    is_fenced(&world.source).await;
    assert_eq!(world.ask(&world.target, RIGHTS).await, rights[1]);

    let counting = Writer::counting(direct(&world.target));
    counting.more(5).await;
    filing.more(30).await;
    world
        .target
        .execute(DATABASE, "SELECT lo_unlink(1400), lo_put(80, 1000000, 'newer'); ALTER LARGE OBJECT 78 OWNER TO app")
        .await
        .unwrap();
    world.cutover(&["rollback", "--reason", "try it"]).await.code(0);
    let last = counting.end().await;
    assert_eq!(counted(&world, &world.source).await, last, "the last that was acknowledged");
    is_fenced(&world.target).await;
    assert_eq!(world.ask(&world.source, RIGHTS).await, rights[0]);

    filing.more(5).await;
    world.cutover(&["run"]).await.code(0);
    let filed = filing.end().await;
    assert!(filed > 40);
    let missing = "SELECT count(*) FROM bank.files f WHERE NOT EXISTS (SELECT FROM pg_largeobject_metadata m WHERE m.oid = f.content)";
    assert_eq!(world.ask(&world.target, missing).await, "0");
    world.cutover(&["rollback", "--reason", "and again"]).await.code(0);
    assert_eq!(world.ask(&world.source, DIGEST).await, world.ask(&world.target, DIGEST).await);
    world.cutover(&["rollback", "--reason", "enough", "--confirm", "bank"]).await.code(0);
    assert_eq!([world.ask(&world.source, RIGHTS).await, world.ask(&world.target, RIGHTS).await], rights);
}

/// A driver that has made large objects at the target and waits before it fills them, and whom it waits for.
async fn standing(world: &World) -> (Child, Client) {
    let holder = world.target.client(DATABASE).await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE pg_largeobject IN SHARE MODE").await.unwrap();
    let child = world.command(&["run", "--until", "ready"]).spawn().unwrap();
    let waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'pg_largeobject'::regclass";
    eventually(SOON, || async { world.ask(&world.target, waits).await == "true" }).await.unwrap();
    (child, holder)
}

async fn killed_while_they_are_copied(world: &World) {
    let (mut child, holder) = standing(world).await;
    child.kill().await.unwrap();
    drop(holder);
    assert_ne!(world.ask(&world.target, "SELECT count(*) FROM pg_largeobject_metadata").await, "0");
    assert_ne!(world.ask(&world.source, DIGEST).await, world.ask(&world.target, DIGEST).await);
}

#[tokio::test]
async fn large_objects_that_somebody_wrote_at_the_target_undo_the_switch_and_a_dead_driver_leaves_no_fence() {
    let world = world(16, 18).await;
    for _ in ["install", "copy_schema"] {
        world.cutover_killed(&["run", "--until", "ready"], Some("after:prepared")).await.killed();
    }
    killed_while_they_are_copied(&world).await;
    // Then its connections end at the source, and it goes on by itself.
    let (child, holder) = standing(&world).await;
    let end = "SELECT count(pg_terminate_backend(pid)) > 1 FROM pg_stat_activity WHERE application_name = 'cutover/bank/large objects'";
    assert_eq!(world.ask(&world.source, end).await, "true");
    drop(holder);
    let said = Said::of(tokio::time::timeout(2 * SOON, child.wait_with_output()).await.expect("it ends").unwrap());
    said.code(0).says("large objects are brought over again in");
    assert_eq!(world.ask(&world.source, DIGEST).await, world.ask(&world.target, DIGEST).await);
    is_fenced(&world.target).await;

    // Found before the pause, they are made equal; found inside it, nobody can say whose they are.
    world.target.execute(DATABASE, "SELECT lo_put(78, 0, 'D')").await.unwrap();
    let driver = world.cutover_stopped(&["run"], "fencing_started").await;
    assert_eq!(world.ask(&world.target, "SELECT encode(lo_get(78), 'escape')").await, "described");
    world.target.execute(DATABASE, "SELECT lo_put(80, 1500000, 'planted'), lo_truncate(lo_open(82, 131072), 1)").await.unwrap();
    driver.resume().await.code(3).says("large object 80: its content differs").says("large object 82");
    assert_eq!((world.authority().await.as_str(), world.phase().await.as_str()), ("source", "following"));
    app(&world.source).await.batch_execute("SELECT lo_put(77, 0, int8send(5))").await.unwrap();

    // One that is not ours is never removed, and never taken for ours.
    let made = world.ask(&world.target, "SELECT lo_from_bytea(4711, 'mine')").await;
    world.cutover(&["run"]).await.code(1).says("made or altered there by somebody else").says(&made);
    assert_eq!(world.ask(&world.target, "SELECT lo_get(4711)").await, r"\x6d696e65");
    world.ask(&world.target, "SELECT lo_unlink(4711)").await;

    // A look that does not come to its end in the pause.
    world.write_plan(&format!("{COPIED}\n[pause]\nbudget = \"1s\"\nattempts = 1"));
    let driver = world.cutover_stopped(&["run"], "fencing_started").await;
    let holder = world.target.client(DATABASE).await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE pg_largeobject").await.unwrap();
    driver.resume().await.code(5).says("looking at large objects took longer than");
    drop(holder);
    assert_eq!(world.authority().await, "source");
    world.write_plan(COPIED);

    for entry in ["after:fencing_started", "before:fenced", "after:fenced", "after:drained"] {
        world.cutover_killed(&["run"], Some(entry)).await.killed();
        world.cutover(&["run", "--until", "ready"]).await.code(0);
        assert_eq!(world.authority().await, "source", "{entry}");
        app(&world.source).await.batch_execute("SELECT lo_put(77, 0, int8send(6))").await.unwrap();
    }
    // A transaction that only wrote large objects, and idles.
    let idle = app(&world.source).await;
    idle.batch_execute("BEGIN; SELECT lo_put(77, 0, int8send(7))").await.unwrap();
    world.cutover(&["run"]).await.code(0);
    assert!(idle.batch_execute("COMMIT").await.is_err(), "it had been told nothing");
    assert_eq!(counted(&world, &world.target).await, 6);

    // The way back: the same with the sides swapped.
    let driver = world.cutover_stopped(&["rollback", "--reason", "back"], "fencing_started").await;
    world.source.execute(DATABASE, "SELECT lo_unlink(1100)").await.unwrap();
    driver.resume().await.code(3).says("large object 1100: missing at the follower");
    assert_eq!(world.authority().await, "target");
    app(&world.target).await.batch_execute("SELECT lo_put(77, 0, int8send(8))").await.unwrap();
    world.cutover_killed(&["rollback", "--reason", "back"], Some("after:committed")).await.killed();
    world.cutover(&["run", "--until", "ready"]).await.code(0);
    assert_eq!((world.authority().await.as_str(), counted(&world, &world.source).await), ("source", 8));
    app(&world.source).await.batch_execute("SELECT lo_put(77, 0, int8send(9)), lo_put(77, 0, int8send(8))").await.unwrap();
    assert_eq!(world.ask(&world.source, DIGEST).await, world.ask(&world.target, DIGEST).await);
}
