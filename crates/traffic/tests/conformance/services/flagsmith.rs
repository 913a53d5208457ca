//! Flagsmith.

use cutover_core::Side;
use cutover_traffic::{ServiceFault, Severity, TrafficError};
use serde_json::{Value, json};

use super::{Rig, SOURCE, TARGET, serves, trouble};
use crate::{
    doubles::flagsmith::Feature,
    suite::{endpoints, look, soon},
};

const KEYS: &str = "kind = \"flagsmith\"\nenvironment = \"B62qaMZNwfiqT76p38ggrQ\"\nflag = \"database-writes-enabled\"\n\
                    source_segment = 101\ntarget_segment = 202\ntoken = \"hunter2\"\ntimeout = \"300ms\"";

async fn rig() -> Rig<Feature> {
    let segments: [(u64, &[&str]); 2] = [(101, &[SOURCE, "blue", "pool:6432"]), (202, &["pool:6432", TARGET])];
    Rig::new(Feature::open_to_first(segments), KEYS).await
}

#[tokio::test]
async fn a6_flagsmith_conforms() {
    serves(rig().await).await;
}

#[tokio::test]
async fn a6_flagsmith_bears_trouble() {
    trouble::is_borne(rig().await).await;
}

#[tokio::test]
async fn a6_the_features_value_says_all_of_the_route_and_an_older_epoch_writes_nothing() {
    let rig = rig().await;
    rig.journal.moves_to(Side::Target);
    rig.adapter.release(&endpoints()[1], soon()).await.unwrap();
    let databases = [TARGET, "pool:6432"];
    let open = json!({"cutover": "bank", "enabled": true, "epoch": 8, "authority": "target", "writes": "open", "databases": databases});
    assert_eq!(rig.double.state().document(), open);
    let newer = open.to_string().replace('8', "9");
    rig.double.change(|feature| feature.state["environment_default"]["value"]["value"] = json!(newer));
    let error = rig.adapter.hold(soon()).await.unwrap_err();
    assert!(matches!(error, TrafficError::Service { source: ServiceFault::Newer { epoch: 9 }, .. }), "{error:?}");
}

/// A segment decides whom the flag is open to, so one that has other members is found before the switch.
#[tokio::test]
async fn a6_a_segment_of_others_is_found_before_the_switch() {
    let condition = |operator: &str, property: &str, value: &str| json!({ "operator": operator, "property": property, "value": value });
    let rule = |kind: &str, conditions: Value| json!([{ "type": "ALL", "conditions": [], "rules": [{ "type": kind, "rules": [], "conditions": conditions }] }]);
    let whole = format!("{TARGET},pool:6432");
    let wrong = [
        rule("ANY", json!([condition("IN", "database", &format!("{whole},{SOURCE}"))])),
        rule("ANY", json!([condition("IN", "database", TARGET)])),
        rule("ANY", json!([condition("IN", "plan", &whole)])),
        rule("ANY", json!([condition("NOT_CONTAINS", "database", &whole)])),
        rule("NONE", json!([condition("IN", "database", &whole)])),
        rule("ANY", json!([condition("IN", "database", &whole), condition("EQUAL", "plan", "a")])),
        json!([]),
    ];
    for rules in wrong {
        let rig = rig().await;
        rig.double.change(|feature| feature.segments.get_mut(&202).unwrap()["rules"] = rules.clone());
        let problems = rig.adapter.check(&endpoints()).await;
        let [problem] = &problems[..] else { panic!("{rules}: {problems:?}") };
        assert!(
            problem.severity == Severity::Error && problem.message.contains("segment 202") && problem.fix.contains(&whole),
            "{problem:?}"
        );
    }
    let rig = rig().await;
    let right = rule("ANY", json!([condition("EQUAL", "database", TARGET), condition("EQUAL", "database", "pool:6432")]));
    rig.double.change(|feature| feature.segments.get_mut(&202).unwrap()["rules"] = right);
    assert!(rig.adapter.check(&endpoints()).await.iter().all(|problem| problem.severity == Severity::Info));
    rig.double.change(|feature| drop(feature.segments.remove(&202)));
    assert!(rig.adapter.check(&endpoints()).await.iter().any(|problem| problem.severity == Severity::Error));
}

/// Whatever other segments the flag is open to is found before the switch, and gone with the first pause.
#[tokio::test]
async fn a6_overrides_that_somebody_set_up_arm_nobody() {
    let on = |id: u64| json!({ "segment": { "id": id }, "priority": 0, "enabled": true });
    for (overrides, what) in [(json!([on(101), on(202)]), "2 overrides of its own"), (json!([on(303)]), "overrides of its own")] {
        let rig = rig().await;
        rig.double.change(|feature| {
            let other = feature.segments[&202].clone();
            feature.segments.insert(303, other);
            feature.state["segment_overrides"] = overrides;
        });
        assert_eq!(look(rig.adapter.as_ref(), &endpoints()).await.points_at, None, "{what}");
        let problems = rig.adapter.check(&endpoints()).await;
        assert!(problems.iter().any(|problem| problem.severity == Severity::Warning && problem.message.contains(what)), "{problems:?}");
        rig.adapter.hold(soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [""; 0], "{what}");
        rig.adapter.release(&endpoints()[1], soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [TARGET, "pool:6432"], "{what}");
    }
}

#[tokio::test]
async fn a_feature_of_another_name_or_kind_is_found_before_the_switch() {
    let rig = rig().await;
    let other = super::adapter(&rig.double.url, &KEYS.replace("database-writes", "writes"), &rig.journal);
    let problems = other.check(&endpoints()).await;
    assert!(matches!(&problems[..], [one] if one.message.contains("there is no feature writes-enabled")), "{problems:?}");
    rig.double.change(|feature| feature.state["environment_default"]["variants"] = json!([{ "key": "a", "weight": 50 }]));
    let problems = rig.adapter.check(&endpoints()).await;
    assert!(matches!(&problems[..], [one] if one.severity == Severity::Error && one.message.contains("multivariate")), "{problems:?}");
}
