//! The bank: its load through real poolers and real faults, and a checker that must find what is planted.

#![cfg(test)]

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use cutover_testkit::{
    Cluster, ClusterOptions, Db, PgBouncer, PgBouncerOptions, Proxy, Seed,
    bank::{self, BankOptions, History, Load, LoadOptions, OpKind, Verdict, check_history},
    install, installs, pgbouncers,
};

const SOON: Duration = Duration::from_secs(30);

async fn bank_on(cluster: &Cluster, db: &str, seed: Seed) {
    cluster.create_database(db).await.unwrap();
    bank::install(&cluster.url("postgres", db), &BankOptions { seed, ..BankOptions::default() }).await.unwrap();
}

async fn cluster(options: ClusterOptions) -> Cluster {
    Cluster::start(&install(15).unwrap(), options).await.unwrap()
}

async fn worked(url: String, writes: u64, seed: Seed) -> History {
    let load = Load::start(LoadOptions { seed, ..LoadOptions::new(url) }).await.unwrap();
    load.wait_acknowledged(writes, SOON).await.unwrap();
    load.stop().await
}

#[tokio::test]
async fn every_server_here_starts_beside_the_others_and_can_hold_the_bank() {
    let starts = installs().into_iter().map(|install| async move {
        let cluster = Cluster::start(&install, ClusterOptions::named("bank").not_durable()).await.unwrap();
        bank_on(&cluster, "bank", Seed::new(3)).await;
        let verdict = check_history(&cluster.url("app", "bank"), None, &History::default()).await.unwrap();
        assert!(verdict.is_clean(), "{}: {verdict:?}", install.version);

        let client = cluster.client("bank").await.unwrap();
        let sql = "SELECT (SELECT count(*) FROM bank.accounts), current_setting('server_version_num')::int / 10000, system_identifier FROM pg_control_system()";
        let row = client.query_one(sql, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1)), (1_000, i32::try_from(install.major).unwrap()));
        for forbidden in ["TRUNCATE bank.events", "ALTER TABLE bank.events DISABLE TRIGGER ALL", "SELECT setval('bank.order_numbers', 1)"] {
            assert!(client.batch_execute(&format!("SET ROLE app; {forbidden}")).await.is_err(), "the application may {forbidden}");
        }
        (cluster, row.get::<_, i64>(2))
    });
    let clusters = futures_util::future::join_all(starts).await;
    let identities: BTreeSet<_> = clusters.iter().map(|(_, identity)| identity).collect();
    assert_eq!(identities.len(), clusters.len(), "no two servers are copies of each other");
}

#[tokio::test]
async fn the_same_seed_makes_the_same_bank() {
    let cluster = cluster(ClusterOptions::named("seeds").not_durable()).await;
    let mut sums = Vec::new();
    for (db, seed) in [("one", 5), ("two", 5), ("three", 6)] {
        bank_on(&cluster, db, Seed::new(seed)).await;
        let sql =
            "SELECT md5(string_agg(a::text, '' ORDER BY id)) FROM (SELECT id, holder, balance, version, profile FROM bank.accounts) a";
        sums.push(cluster.client(db).await.unwrap().query_one(sql, &[]).await.unwrap().get::<_, String>(0));
    }
    assert_eq!(sums[0], sums[1]);
    assert_ne!(sums[0], sums[2]);
}

#[tokio::test]
async fn a_load_through_pgbouncer_has_no_failure_even_over_a_pause() {
    let seed = Seed::from_env_or_random();
    let cluster = cluster(ClusterOptions::named("pooled").not_durable()).await;
    let bouncers = pgbouncers();
    assert!(!bouncers.is_empty(), "no PgBouncer is installed here");
    for install in bouncers {
        let db = format!("bank_{}", install.version.1);
        bank_on(&cluster, &db, seed).await;
        // Fewer server connections than clients, so that they do share.
        let options = PgBouncerOptions { pool_size: 4, ..PgBouncerOptions::new(vec![Db::on(&cluster, &db)]) };
        let bouncer = PgBouncer::start(&install, options).await.unwrap();
        let load = Load::start(LoadOptions { seed, ..LoadOptions::new(bouncer.url("app", &db)) }).await.unwrap();
        load.wait_acknowledged(200, SOON).await.unwrap();

        let before = Instant::now();
        bouncer.admin(&format!("PAUSE {db}")).await.unwrap();
        let paused = Instant::now();
        let standstill = load.acknowledged();
        assert!(load.wait_acknowledged(1, Duration::from_millis(200)).await.is_err(), "a write passed a pause");
        assert_eq!(load.acknowledged(), standstill);
        bouncer.admin(&format!("RESUME {db}")).await.unwrap();
        let resumed = Instant::now();
        load.wait_acknowledged(200, SOON).await.unwrap();
        let pause = load.pause_between(before, Instant::now());
        assert!(pause >= resumed - paused && pause < SOON, "{pause:?}");

        let history = load.stop().await;
        assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
        assert!(history.requests > 400 && history.latency(0.5).unwrap() > Duration::ZERO);
        assert!(history.pause_between(before, resumed) >= resumed - paused);
        for kind in [OpKind::Transfer, OpKind::Order, OpKind::Event, OpKind::Tag] {
            assert!(history.acknowledged.iter().any(|op| op.kind == kind), "no {kind:?} in the load");
        }
        let verdict = check_history(&bouncer.url("app", &db), Some(&cluster.url("postgres", &db)), &history).await.unwrap();
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(verdict.acknowledged_writes, history.acknowledged.len() as u64);
    }
}

#[tokio::test]
async fn a_pgbouncer_can_be_stopped_killed_and_started_again() {
    let cluster = cluster(ClusterOptions::named("bounced").not_durable()).await;
    for install in pgbouncers() {
        let bouncer = PgBouncer::start(&install, PgBouncerOptions::new(vec![Db::on(&cluster, "postgres")])).await.unwrap();
        let works = async || tokio_postgres::connect(&bouncer.url("app_owner", "postgres"), tokio_postgres::NoTls).await.is_ok();
        cluster.execute("postgres", "DROP ROLE IF EXISTS app_owner; CREATE ROLE app_owner LOGIN").await.unwrap();
        assert!(works().await);
        let (config, pid) = (bouncer.config_file(), bouncer.pid().unwrap());
        let lines = std::fs::read_to_string(&config).unwrap();
        assert!(lines.contains(&format!("\npostgres = host=127.0.0.1 port={} dbname=postgres\n", cluster.port())), "{lines}");
        bouncer.stop().await.unwrap();
        assert!(!works().await && bouncer.pid().is_none());
        bouncer.start_again().await.unwrap();
        assert!(works().await);
        bouncer.crash().await.unwrap();
        bouncer.start_again().await.unwrap();
        assert!(works().await && bouncer.pid().unwrap() != pid);
        drop(bouncer);
        assert!(!config.exists());
    }
}

#[tokio::test]
async fn crashes_and_cuts_leave_unknown_writes_but_no_false_word() {
    let seed = Seed::from_env_or_random();
    let cluster = cluster(ClusterOptions::named("crashing")).await;
    bank_on(&cluster, "bank", seed).await;
    let proxy = Proxy::start(format!("127.0.0.1:{}", cluster.port())).await.unwrap();
    let options = LoadOptions { seed, request_timeout: Duration::from_secs(2), ..LoadOptions::new(proxy.url("app", "bank")) };
    let load = Load::start(options).await.unwrap();
    for _ in 0..3 {
        load.wait_acknowledged(100, SOON).await.unwrap();
        proxy.cut().await;
        proxy.restore().await.unwrap();
        load.wait_acknowledged(100, SOON).await.unwrap();
        cluster.crash().await.unwrap();
        cluster.start_again().await.unwrap();
    }
    load.wait_acknowledged(100, SOON).await.unwrap();
    assert!(load.failed() > 0 && !load.last_errors().is_empty());

    // Clients that are sent elsewhere go there by themselves.
    load.repoint(cluster.url("app", "bank"));
    load.wait_acknowledged(100, SOON).await.unwrap();
    proxy.cut().await;
    let failed = load.failed();
    load.wait_acknowledged(500, SOON).await.unwrap();
    // At most one request per client was still under way at the proxy.
    assert!(load.failed() <= failed + 8);

    let history = load.stop().await;
    let verdict = check_history(&cluster.url("postgres", "bank"), None, &history).await.unwrap();
    assert!(verdict.is_clean(), "{verdict:?}");
}

#[tokio::test]
async fn a_rate_is_kept_to() {
    let cluster = cluster(ClusterOptions::named("paced").not_durable()).await;
    bank_on(&cluster, "bank", Seed::new(1)).await;
    let options = LoadOptions { rate: Some(100), slow_share: 0.0, read_share: 0.0, ..LoadOptions::new(cluster.url("app", "bank")) };
    let load = Load::start(options).await.unwrap();
    let began = Instant::now();
    load.wait_acknowledged(100, SOON).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    load.stop().await;

    for bad in [LoadOptions { clients: 0, ..LoadOptions::new("") }, LoadOptions { slow_share: 1.5, ..LoadOptions::new("") }] {
        assert!(Load::start(bad).await.is_err());
    }
}

/// One bank with a history, copied for each thing that is done to it.
struct Tampering {
    cluster: Cluster,
    history: History,
    copies: u32,
}

impl Tampering {
    async fn new() -> Self {
        let seed = Seed::from_env_or_random();
        let cluster = cluster(ClusterOptions::named("tampered").not_durable()).await;
        cluster.create_database("bank").await.unwrap();
        bank::install(&cluster.url("postgres", "bank"), &BankOptions { seed, scale: 0.0, ..BankOptions::default() }).await.unwrap();
        let history = worked(cluster.url("app", "bank"), 300, seed).await;
        assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
        Self { cluster, history, copies: 0 }
    }

    /// Does something to a copy at the authority, to one at the other side, or both, and lets the checker look.
    async fn verdict(&mut self, at_authority: &str, at_other: &str, history: &History) -> Verdict {
        self.copies += 1;
        let mut urls = Vec::new();
        for (side, sql) in [("authority", at_authority), ("other", at_other)] {
            if sql.is_empty() {
                urls.push(self.cluster.url("postgres", "bank"));
                continue;
            }
            let db = format!("{side}_{}", self.copies);
            self.cluster.execute("postgres", &format!("CREATE DATABASE {db} TEMPLATE bank")).await.unwrap();
            self.cluster.execute(&db, &format!("SET session_replication_role = replica; {sql}")).await.unwrap();
            urls.push(self.cluster.url("postgres", &db));
        }
        check_history(&urls[0], Some(&urls[1]), history).await.unwrap()
    }

    /// An acknowledged write of this kind, and where its rows are.
    fn one(&self, kind: OpKind) -> (bank::Op, String) {
        let op = self.history.acknowledged.iter().rfind(|op| op.kind == kind).unwrap();
        (*op, format!("(client, op) = ({}, {})", op.client, op.op))
    }
}

#[tokio::test]
async fn the_checker_finds_whatever_is_wrong() {
    let mut bank = Tampering::new().await;
    let history = bank.history.clone();
    let verdict = bank.verdict("", "", &history).await;
    assert!(verdict.is_clean(), "{verdict:?}");

    let (order_op, order) = bank.one(OpKind::Order);
    let (transfer_op, transfer) = bank.one(OpKind::Transfer);
    let (_, event) = bank.one(OpKind::Event);
    let (_, tag) = bank.one(OpKind::Tag);

    // Lost: gone on both sides.
    let delete = format!("DELETE FROM bank.orders WHERE {order}");
    let verdict = bank.verdict(&delete, &delete, &history).await;
    assert_eq!((verdict.lost_writes, verdict.misplaced_writes, verdict.inconsistencies), (1, 0, 1), "{verdict:?}");
    assert!(verdict.details[0].contains(&format!("op {} of client {}", order_op.op, order_op.client)), "{verdict:?}");

    // Lost in part.
    let half = format!("DELETE FROM bank.ledger WHERE amount > 0 AND {transfer}");
    let verdict = bank.verdict(&half, &half, &history).await;
    assert_eq!((verdict.lost_writes, verdict.duplicated_writes), (1, 0), "{verdict:?}");
    assert!(verdict.balance_delta_cents > 0 && verdict.inconsistencies > 0, "{verdict:?}");

    // Misplaced: still at the other side, or only ever there.
    let delete = format!("DELETE FROM bank.events WHERE {event}");
    let verdict = bank.verdict(&delete, "", &history).await;
    assert_eq!((verdict.lost_writes, verdict.misplaced_writes, verdict.inconsistencies), (1, 1, 0), "{verdict:?}");
    let plant = format!("INSERT INTO bank.events (client, op, kind) SELECT client, 987654, kind FROM bank.events WHERE {event}");
    let verdict = bank.verdict("", &plant, &history).await;
    assert_eq!((verdict.lost_writes, verdict.misplaced_writes), (0, 1), "{verdict:?}");

    // Duplicated, in a table that allows it.
    for (table, columns, which) in [
        ("ledger", "region, client, op, account_id, amount", &transfer),
        ("orders", "client, op, account_id, items, price", &order),
        ("events", "client, op, kind", &event),
    ] {
        let again = format!("INSERT INTO bank.{table} ({columns}) SELECT {columns} FROM bank.{table} WHERE {which} LIMIT 1");
        let verdict = bank.verdict(&again, "", &history).await;
        assert_eq!((verdict.duplicated_writes, verdict.lost_writes), (1, 0), "{table}: {verdict:?}");
    }

    // The books.
    let verdict = bank.verdict("UPDATE bank.accounts SET balance = balance + 0.01 WHERE id = 7", "", &history).await;
    assert_eq!((verdict.balance_delta_cents, verdict.inconsistencies, verdict.lost_writes), (2, 1, 0), "{verdict:?}");
    let verdict = bank.verdict("UPDATE bank.accounts SET version = version + 1 WHERE id = 7", "", &history).await;
    assert_eq!((verdict.balance_delta_cents, verdict.inconsistencies), (0, 1), "an update done twice: {verdict:?}");
    let verdict = bank.verdict(&format!("DELETE FROM bank.\"Tags\" WHERE {tag}"), "", &history).await;
    assert_eq!(verdict.inconsistencies, 1, "{verdict:?}");
    let verdict = bank.verdict("DELETE FROM bank.accounts WHERE id = 7", "", &history).await;
    assert!(verdict.inconsistencies > 0 && verdict.balance_delta_cents > 0, "{verdict:?}");

    // What is said to have failed must not be there; what is unknown must be whole.
    let (mut liar, mut unsure) = (history.clone(), history.clone());
    liar.acknowledged.retain(|op| *op != order_op);
    liar.failed.push(order_op);
    let verdict = bank.verdict("", "", &liar).await;
    assert_eq!((verdict.phantom_writes, verdict.lost_writes), (1, 0), "{verdict:?}");
    unsure.acknowledged.retain(|op| *op != transfer_op);
    unsure.unknown.push(transfer_op);
    assert!(bank.verdict("", "", &unsure).await.is_clean(), "an unknown write may be there");
    let verdict = bank.verdict(&half, &half, &unsure).await;
    assert_eq!((verdict.torn_writes, verdict.lost_writes), (1, 0), "{verdict:?}");
    let gone = format!(
        "DELETE FROM bank.orders WHERE {order}; UPDATE bank.positions SET filled = filled - 1 WHERE (account_id, currency) = (SELECT account_id, min(currency) FROM bank.positions GROUP BY 1 LIMIT 1)"
    );
    let mut unsure = history.clone();
    unsure.acknowledged.retain(|op| *op != order_op);
    unsure.unknown.push(order_op);
    let verdict = bank.verdict(&gone, &gone, &unsure).await;
    assert!(verdict.is_clean(), "an unknown write may be absent: {verdict:?}");
}
