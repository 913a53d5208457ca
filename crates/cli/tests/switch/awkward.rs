//! A schema that tools trip over, through the whole switch and back. What both sides hold is compared by PostgreSQL's own
//! programs, which know nothing of us.

use std::{collections::BTreeMap, time::Duration};

use cutover_testkit::{
    Cluster,
    compare::{Contents, contents, definitions, script},
    schemas::{AWKWARD, CHANGE, EDGES, EVERYTHING, KINDS, OWN, OWN_ROWS, ROLES, SHAPES},
};

use crate::world::{DATABASE, World};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_awkward_schema_goes_there_back_and_there_again() {
    awkward(15, 15).await;
}

#[tokio::test]
async fn an_awkward_schema_goes_to_a_newer_major_back_and_there_again() {
    awkward(15, 18).await;
}

async fn awkward(source: u32, target: u32) {
    let world = World::of(source, target, "").await;
    for cluster in [&world.source, &world.target] {
        cluster.execute(DATABASE, ROLES).await.unwrap();
    }
    for sql in [EVERYTHING, OWN, KINDS, EDGES, OWN_ROWS, SHAPES, AWKWARD] {
        script(&world.source, DATABASE, sql).await.unwrap();
    }
    world.cutover(&["check"]).await.code(3);
    world.mend().await;
    // From 18 on the whole row identifies none where a part of it is generated: only a key does.
    let keys = "ALTER TABLE dropped ADD PRIMARY KEY (id); ALTER TABLE only_computed ADD id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY";
    let more = if target >= 18 { vec![keys] } else { Vec::new() };
    there_back_and_there_again(&world, &more, 55).await;
}

/// Under load. Each time at least so many tables are changed at the side in charge.
pub(crate) async fn there_back_and_there_again(world: &World, more: &[&str], tables: u32) {
    for sql in more {
        script(&world.source, DATABASE, sql).await.unwrap();
    }
    let across = world.source.install().major != world.target.install().major;
    world.cutover(&["check"]).await.code(0);
    let defined = definitions(&world.source, DATABASE, across).await.unwrap();
    assert!(defined.len() > tables as usize, "{}", defined.len());

    let load = world.load(5).await;
    world.ready().await;
    changed_and_equal(world, &world.source, tables).await;
    for (verb, there) in [
        (vec!["run"], &world.target),
        (vec!["rollback", "--reason", "to see what it carries back"], &world.source),
        (vec!["run"], &world.target),
    ] {
        world.cutover(&verb).await.code(0);
        changed_and_equal(world, there, tables).await;
        load.wait_acknowledged(50, SOON).await.unwrap();
    }
    let (history, _) = world.judge(load).await;
    assert_eq!(history.failed_requests(), 0, "{:?}", history.errors);
    assert_eq!(held(&world.source, |_| true).await, held(&world.target, |_| true).await, "the bank as well, now that it is quiet");
    for cluster in [&world.source, &world.target] {
        let now = definitions(cluster, DATABASE, across).await.unwrap();
        let new: Vec<_> = now.iter().filter(|one| !defined.contains(one)).collect();
        let gone: Vec<_> = defined.iter().filter(|one| !now.contains(one)).collect();
        assert!(new.is_empty() && gone.is_empty(), "at the {}: new {new:#?}, gone {gone:#?}", cluster.name());
    }
}

/// Changes rows of nearly every table at the side in charge, and sees them all at the other.
async fn changed_and_equal(world: &World, in_charge: &Cluster, tables: u32) {
    let changed = script(in_charge, DATABASE, &format!("{CHANGE}; SHOW schemas.changed;")).await.unwrap();
    assert!(changed.trim().parse::<u32>().unwrap() >= tables, "{changed} tables");
    let report = world.cutover(&["verify", "--output", "json"]).await.code(0).json();
    assert_eq!((report["differences_total"].as_u64(), report["unsettled_total"].as_u64()), (Some(0), Some(0)), "{report:#}");
    // The bank's own moves on meanwhile; its history is looked up in the end.
    let quiet = |table: &str| !table.starts_with("\"bank\".");
    let (source, target) = (held(&world.source, quiet).await, held(&world.target, quiet).await);
    let differing: Vec<_> = source.iter().filter(|(table, contents)| target.get(*table) != Some(*contents)).collect();
    assert!(differing.is_empty() && source.len() == target.len(), "{differing:?}");
}

async fn held(cluster: &Cluster, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Contents> {
    let mut held = contents(cluster, DATABASE).await.unwrap();
    held.retain(|table, _| wanted(table));
    held
}
