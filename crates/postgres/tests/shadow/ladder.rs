//! The way of a table, stage by stage, and where its reads go on it.

use std::{future::poll_fn, time::Duration};

use tokio_postgres::{AsyncMessage, NoTls};

use crate::ground::{Ground, MAJORS, number, refused, run, server, text};

/// Salt, key and bucket, as published.
const VECTORS: &str = include_str!("../../../../docs/bucketing-vectors.csv");

const STAGE: &str = "SELECT cutover_stage || ' ' || read_percentage FROM cutover.traffic_routing_config";

/// A table that is the same in its shadow, and on its way with stages that last as many minutes.
async fn started(major: u32, database: &str, minutes: u32) -> Ground {
    let ground = Ground::moving(major, database, 50, "sync").await;
    ground.start(minutes).await;
    ground
}

/// C4, C5, C8, C9: the document's ladder, and the share of reads at each stage.
#[tokio::test]
async fn c4_c5_a_table_goes_stage_by_stage_and_its_reads_with_it() {
    for major in MAJORS {
        let ground = started(major, "stages", 0).await;
        let shares = "SELECT count(*) FILTER (WHERE cutover.should_route_to_shadow('projects')) AS chance,
            count(*) FILTER (WHERE cutover.should_route_to_shadow('projects', 'read', i::text)),
            count(*) FILTER (WHERE cutover.should_route_to_shadow('projects', 'write', i::text)) FROM generate_series(1, 10000) i";
        for (stage, percent) in
            [("dual_write 0.00", 0), ("test_1 1.00", 1), ("test_10 10.00", 10), ("half_50 50.00", 50), ("full_100 100.00", 100)]
        {
            assert_eq!(text(&ground.owner, STAGE).await, stage, "{major}");
            let told = text(&ground.owner, shares).await;
            let [chance, by_key, writes] = told.split('|').map(|count| count.parse::<i64>().unwrap()).collect::<Vec<_>>()[..] else {
                panic!("{told}")
            };
            // Three standard deviations of 10,000 draws.
            let wide = (3.0 * (10_000.0 * f64::from(percent) / 100.0 * (1.0 - f64::from(percent) / 100.0)).sqrt()).ceil() as i64;
            for share in [chance, by_key] {
                assert!((share - i64::from(percent) * 100).abs() <= wide, "{major} {stage}: {told}");
            }
            assert_eq!(writes, 0, "a write goes to the primary");
            if percent < 100 {
                ground.climb(1).await;
            }
        }
        let (state, words) = refused(&ground.owner, "SELECT cutover.advance_cutover_stage('projects')").await;
        assert!(state.code() == "SC002" && words.contains("only completion is left"), "{words}");
        let audit = "SELECT string_agg(action || ' ' || (detail ->> 'to'), ', ' ORDER BY seq) FROM cutover.audit_log WHERE detail ? 'to'";
        let told = "start_gradual_cutover dual_write, advance_cutover_stage test_1, advance_cutover_stage test_10, advance_cutover_stage half_50, advance_cutover_stage full_100";
        assert_eq!(text(&ground.owner, audit).await, told);
        assert_eq!(text(&ground.owner, "SELECT count(*) FROM cutover.verify_audit()").await, "0");
    }
}

/// C12, C13: by key it is the function that every other language has; who is in at 1 % is in at 10 % and at 50 %.
#[tokio::test]
async fn c13_a_key_stays_where_it_is_and_its_bucket_is_as_published() {
    for major in MAJORS {
        let ground = started(major, "buckets", 0).await;
        for line in VECTORS.lines().skip(1) {
            let (front, bucket) = line.rsplit_once(',').unwrap();
            let (salt, key) = front.split_once(',').unwrap();
            let told: i32 = ground
                .owner
                .query_one("SELECT cutover.bucket($1, $2)", &[&salt.trim_matches('"'), &key.trim_matches('"')])
                .await
                .unwrap()
                .get(0);
            assert_eq!(told.to_string(), bucket, "{major} {line}");
        }
        run(&ground.owner, "CREATE TEMP TABLE before (key int PRIMARY KEY)").await;
        for _ in 0..3 {
            ground.climb(1).await;
            let lost = "SELECT count(*) FROM before WHERE NOT cutover.should_route_to_shadow('projects', 'read', key::text)";
            assert_eq!(number(&ground.owner, lost).await, 0, "{major}");
            run(&ground.owner, "INSERT INTO before SELECT i FROM generate_series(1, 2000) i WHERE cutover.should_route_to_shadow('projects', 'read', i::text) ON CONFLICT DO NOTHING").await;
        }
        assert!(number(&ground.owner, "SELECT count(*) FROM before").await > 800, "{major}");
    }
}

/// C1, C7, C27, C34: what has to be there, has to have lasted, and has to be the same; and who may pass over that.
#[tokio::test]
async fn c7_c27_an_advance_that_should_not_be_is_refused_and_changes_nothing() {
    let ground = Ground::moving(15, "refusals", 50, "sync").await;
    let refuses = async |sql: &str, state: &str, part: &str| {
        let before =
            text(&ground.admin, "SELECT count(*), coalesce(max(epoch), 0) FROM cutover.audit_log, cutover.traffic_routing_config").await;
        let (told, words) = refused(&ground.owner, sql).await;
        assert!(told.code() == state && words.contains(part), "{sql}: {} {words}", told.code());
        assert_eq!(
            text(&ground.admin, "SELECT count(*), coalesce(max(epoch), 0) FROM cutover.audit_log, cutover.traffic_routing_config").await,
            before,
            "{sql}"
        );
    };
    let advance = "SELECT cutover.advance_cutover_stage('projects')";
    refuses(advance, "SC002", "was not started").await;
    refuses("SELECT cutover.emergency_rollback('nothing')", "SC001", "there is no table").await;
    refuses("SELECT cutover.start_gradual_cutover('projects', -1)", "SC002", "0 or more").await;
    refuses("SELECT cutover.start_gradual_cutover('nothing')", "SC001", "there is no table").await;
    run(&ground.owner, "SELECT cutover.disable_dual_write('projects')").await;
    refuses("SELECT cutover.start_gradual_cutover('projects')", "SC002", "enable_dual_write").await;
    run(&ground.owner, "SELECT cutover.enable_dual_write('projects'); SELECT cutover.start_gradual_cutover('projects')").await;
    refuses("SELECT cutover.start_gradual_cutover('projects')", "SC002", "is at dual_write already").await;
    refuses(advance, "SC002", "60 minutes are left").await;
    refuses("SELECT cutover.advance_cutover_stage('projects', true)", "SC003", "wants a reason").await;
    refuses("SELECT cutover.advance_cutover_stage('projects', true, ' ')", "SC003", "wants a reason").await;
    run(&ground.admin, "UPDATE cutover.traffic_routing_config SET next_stage_eligible_at = now()").await;
    refuses(advance, "SC005", "50 are missing").await;
    ground.settle().await;
    run(&ground.admin, "UPDATE projects_shadow SET cents = 0 WHERE id = 3").await;
    refuses(advance, "SC005", "1 rows differ").await;
    run(
        &ground.owner,
        "UPDATE projects SET price = price WHERE id = 3; SELECT cutover.mark_dirty('projects', ARRAY['[\"1\"]'::jsonb], 'x')",
    )
    .await;
    refuses(advance, "SC005", "1 keys are queued").await;
    run(&ground.owner, "SELECT cutover.drain('projects')").await;
    refuses(advance, "SC005", "1 of 100 statements were written twice").await;
    run(&ground.admin, "ALTER TABLE projects DISABLE TRIGGER cutover_dual_write_delete").await;
    refuses("SELECT cutover.advance_cutover_stage('projects', true, 'I know')", "SC002", "triggers are missing").await;
    run(&ground.admin, "ALTER TABLE projects ENABLE ALWAYS TRIGGER cutover_dual_write_delete").await;
    run(&ground.owner, "SELECT cutover.advance_cutover_stage('projects', true, 'I know')").await;
    let forced = "SELECT reason || ' ' || (detail ->> 'forced') || ' ' || actor FROM cutover.audit_log ORDER BY seq DESC LIMIT 1";
    assert_eq!(text(&ground.owner, forced).await, "I know true owner");
}

/// C11, C15, C22: back from every stage, at once; and a table that is not well is read at the primary whatever its stage.
#[tokio::test]
async fn c11_the_next_read_after_a_rollback_goes_to_the_primary_from_every_stage() {
    let ground = started(18, "back", 0).await;
    let reads = "SELECT count(*) FROM generate_series(1, 1000) i WHERE cutover.should_route_to_shadow('projects', 'read', i::text)";
    for steps in 0..=4 {
        ground.climb(steps).await;
        if steps == 4 {
            assert_eq!(number(&ground.owner, reads).await, 1000);
            run(&ground.admin, "UPDATE cutover.traffic_routing_config SET health_status = 'unhealthy'").await;
            assert_eq!(number(&ground.owner, reads).await, 0);
            run(&ground.admin, "UPDATE cutover.traffic_routing_config SET health_status = 'healthy'").await;
        }
        run(&ground.owner, &format!("SELECT cutover.emergency_rollback('projects', 'drill {steps}')")).await;
        assert_eq!((number(&ground.owner, reads).await, text(&ground.owner, STAGE).await.as_str()), (0, "disabled 0.00"));
        run(&ground.shop, "INSERT INTO projects (first, last) VALUES ('written', 'on')").await;
        assert_eq!(ground.different().await, 0, "what is written goes on to both");
        run(&ground.owner, "SELECT cutover.start_gradual_cutover('projects', 0)").await;
    }
    assert_eq!(
        text(&ground.owner, "SELECT * FROM cutover.emergency_stop_all_cutover('enough')").await,
        "projects|projects is read at the primary"
    );
    assert_eq!(text(&ground.owner, "SELECT count(*) FROM cutover.emergency_stop_all_cutover('enough')").await, "0");
}

/// Of two who decide at once, the second finds the table elsewhere; a way back is never refused for that.
#[tokio::test]
async fn of_two_who_advance_at_once_one_is_refused_and_a_rollback_goes_through() {
    let ground = started(15, "at_once", 0).await;
    let other = ground.another("owner").await;
    for (second, state, stage) in [
        ("SELECT cutover.advance_cutover_stage('projects')", Some("SC006"), "test_1 1.00"),
        ("SELECT cutover.emergency_rollback('projects', 'no')", None, "disabled 0.00"),
    ] {
        ground.feed().await;
        run(&ground.owner, "BEGIN; SELECT cutover.advance_cutover_stage('projects')").await;
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let (done, ()) = tokio::join!(other.batch_execute(second), async {
            cutover_testkit::eventually(Duration::from_secs(4), || async { number(&ground.admin, waiting).await > 0 }).await.unwrap();
            run(&ground.owner, "COMMIT").await;
        });
        assert_eq!(done.err().and_then(|error| error.code().map(|code| code.code().to_owned())).as_deref(), state, "{second}");
        assert_eq!(text(&ground.owner, STAGE).await, stage);
    }
}

/// Whoever listens hears of each change of the route, once it is committed.
#[tokio::test]
async fn each_change_of_the_route_is_told_to_whoever_listens() {
    let ground = started(15, "told", 0).await;
    let (client, mut connection) = tokio_postgres::connect(&server(15).await.url("owner", "told"), NoTls).await.unwrap();
    let (send, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(told) = message {
                send.send(told.payload().to_owned()).unwrap();
            }
        }
    });
    run(&client, "LISTEN cutover_route").await;
    ground.climb(1).await;
    let told = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap();
    assert_eq!(told.replace(' ', ""), r#"{"table":"projects","stage":"test_1","read_percentage":1.00,"epoch":2,"health":"unknown"}"#);
}

/// C4, C41: a ladder is rows of data; one that can't be climbed is refused.
#[tokio::test]
async fn c4_a_table_goes_by_a_ladder_of_its_own() {
    for major in MAJORS {
        let ground = Ground::moving(major, "own_ladder", 50, "sync").await;
        let ladder = |stages: &str| {
            format!(
                "SELECT cutover.set_ladder('quick', '[{{\"stage\": \"disabled\"}}, {{\"stage\": \"dual_write\", \"dwell\": \"2 hours\"}}, {stages}]')"
            )
        };
        let end = "{\"stage\": \"full_100\", \"share\": 100}, {\"stage\": \"completed\", \"share\": 100}";
        for stages in [
            "{\"stage\": \"completed\", \"share\": 100}",
            "{\"stage\": \"full_100\", \"share\": 99}, {\"stage\": \"completed\", \"share\": 100}",
            "{\"stage\": \"half_50\", \"share\": 50}, {\"stage\": \"full_100\", \"share\": 100}",
            &format!("{{\"stage\": \"half_50\", \"share\": 5}}, {{\"stage\": \"test_10\", \"share\": 10}}, {end}"),
            &format!("{{\"stage\": \"test_10\", \"share\": 50}}, {{\"stage\": \"half_50\", \"share\": 10}}, {end}"),
            &format!("{{\"stage\": \"test_10\", \"share\": 101}}, {end}"),
            &format!("{{\"stage\": \"test_10\", \"share\": 10, \"dwell\": \"long\"}}, {end}"),
            &format!("{{\"stage\": \"nothing\", \"share\": 10}}, {end}"),
        ] {
            assert_eq!(refused(&ground.owner, &ladder(stages)).await.0.code(), "SC002", "{major} {stages}");
        }
        let use_it = "SELECT cutover.configure_cutover('projects', '{\"ladder\": \"quick\", \"min_samples\": 1}')";
        assert_eq!(refused(&ground.owner, use_it).await.0.code(), "SC002", "there is none");
        let own = ladder(&format!("{{\"stage\": \"test_10\", \"share\": 12.5, \"dwell\": \"3 hours\"}}, {end}"));
        run(&ground.owner, &own).await;
        run(&ground.owner, use_it).await;
        ground.settle().await;
        run(&ground.owner, "SELECT cutover.start_gradual_cutover('projects', NULL)").await;
        let stands = "SELECT cutover_stage, read_percentage, round(extract(epoch FROM next_stage_eligible_at - stage_started_at) / 3600) FROM cutover.traffic_routing_config";
        for stage in ["dual_write|0.00|2", "test_10|12.50|3", "full_100|100.00|0"] {
            assert_eq!(text(&ground.owner, stands).await, stage, "{major}");
            if stage.starts_with("full") {
                break;
            }
            run(&ground.admin, "UPDATE cutover.traffic_routing_config SET next_stage_eligible_at = stage_started_at").await;
            ground.climb(1).await;
        }
        assert_eq!(refused(&ground.owner, &own).await.0.code(), "SC002", "a table is under way on it");
        assert_eq!(refused(&ground.owner, use_it).await.0.code(), "SC002", "nor is it changed under way");
        ground.feed().await;
        run(&ground.owner, "SELECT cutover.complete_cutover('projects', true)").await;
    }
}
