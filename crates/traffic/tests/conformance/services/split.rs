//! Split.

use cutover_traffic::Severity;
use serde_json::{Value, json};

use super::{Rig, SOURCE, TARGET, serves, trouble};
use crate::{
    doubles::split::Definition,
    suite::{endpoints, look, soon},
};

const KEYS: &str = "kind = \"split\"\nworkspace = \"e0d1fd30\"\nenvironment = \"Production Default\"\n\
                    flag = \"database-writes-enabled\"\ntoken = \"hunter2\"\ntimeout = \"300ms\"";

async fn rig() -> Rig<Definition> {
    Rig::new(Definition::open_to(&[SOURCE, "blue", "pool:6432"]), KEYS).await
}

#[tokio::test]
async fn a6_split_conforms() {
    serves(rig().await).await;
}

#[tokio::test]
async fn a6_split_bears_trouble() {
    trouble::is_borne(rig().await).await;
}

/// Whatever else may serve `on` is found before the switch, and gone with the first pause.
#[tokio::test]
async fn a6_targeting_that_somebody_set_up_arms_nobody() {
    let half = json!([{ "treatment": "on", "size": 50 }, { "treatment": "off", "size": 50 }]);
    let usual = Definition::open_to(&[SOURCE]).0["rules"][0].clone();
    let negated = |mut rule: Value| {
        rule["condition"]["matchers"][0]["negate"] = json!(true);
        rule
    };
    let set_up: [(&str, Value, &str); 6] = [
        ("treatments", json!([{ "name": "on", "keys": ["admin"] }, { "name": "off" }]), "individual targets"),
        ("treatments", json!([{ "name": "on", "segments": ["staff"] }, { "name": "off" }]), "individual targets"),
        ("defaultRule", half, "a percentage"),
        ("trafficAllocation", json!(50), "a percentage"),
        ("rules", json!([usual, usual]), "2 rules of its own"),
        ("rules", json!([negated(usual.clone())]), "a rule of its own"),
    ];
    for (key, value, what) in set_up {
        let rig = rig().await;
        rig.double.change(|definition| definition.0[key] = value);
        assert_eq!(look(rig.adapter.as_ref(), &endpoints()).await.points_at, None, "{what}");
        let problems = rig.adapter.check(&endpoints()).await;
        assert!(problems.iter().any(|problem| problem.severity == Severity::Warning && problem.message.contains(what)), "{problems:?}");
        rig.adapter.hold(soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [""; 0], "{what}");
        rig.adapter.release(&endpoints()[1], soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [TARGET, "pool:6432"], "{what}");
    }
}

/// A flag that somebody killed serves its default treatment; the opening restores it, and keeps its configurations.
#[tokio::test]
async fn a_killed_flag_is_restored_by_the_opening() {
    let rig = rig().await;
    rig.double.change(|definition| definition.0["killed"] = json!(true));
    let seen = look(rig.adapter.as_ref(), &endpoints()).await;
    assert!(seen.held, "{seen:?}");
    rig.adapter.hold(soon()).await.unwrap();
    rig.adapter.release(&endpoints()[1], soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [TARGET, "pool:6432"]);
    assert_eq!(rig.double.state().0["treatments"][0]["configurations"], "{\"color\":1}");
}

#[tokio::test]
async fn a_flag_without_on_and_off_is_found_before_the_switch() {
    let rig = rig().await;
    rig.double.change(|definition| definition.0["treatments"] = json!([{ "name": "v1" }, { "name": "off" }]));
    let problems = rig.adapter.check(&endpoints()).await;
    assert!(matches!(&problems[..], [one] if one.severity == Severity::Error && one.message.contains("`on` and `off`")), "{problems:?}");
}
