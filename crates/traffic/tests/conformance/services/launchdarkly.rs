//! LaunchDarkly.

use cutover_traffic::{ServiceFault, Severity, TrafficError};
use serde_json::{Value, json};

use super::{Rig, SOURCE, TARGET, serves, trouble};
use crate::{
    doubles::launchdarkly::Flag,
    suite::{endpoints, look, soon},
};

const KEYS: &str = "kind = \"launchdarkly\"\nenvironment = \"production\"\nflag = \"database-writes-enabled\"\ntoken = \"hunter2\"\n\
                    timeout = \"300ms\"";

async fn rig() -> Rig<Flag> {
    Rig::new(Flag::open_to(&[SOURCE, "blue", "pool:6432"]), KEYS).await
}

#[tokio::test]
async fn a6_launchdarkly_conforms() {
    serves(rig().await).await;
}

#[tokio::test]
async fn a6_launchdarkly_bears_trouble() {
    trouble::is_borne(rig().await).await;
}

/// Whatever else may serve `true` is found before the switch, and gone with the first pause.
#[tokio::test]
async fn a6_targeting_that_somebody_set_up_arms_nobody() {
    let another = json!({ "variation": 0, "clauses": [{ "contextKind": "user", "attribute": "plan", "op": "in", "values": ["a"] }] });
    let two = json!([another, { "variation": 0, "clauses": [] }]);
    let negated = |rules: &Value| {
        let mut rules = rules.clone();
        rules[0]["clauses"][0]["negate"] = json!(true);
        rules
    };
    let usual = Flag::open_to(&[SOURCE]).production["rules"].clone();
    let set_up: [(&str, Value, &str); 7] = [
        ("targets", json!([{ "variation": 0, "values": ["admin"] }]), "1 targets of its own"),
        ("contextTargets", json!([{ "variation": 0, "contextKind": "user", "values": ["admin"] }]), "1 targets of its own"),
        ("prerequisites", json!([{ "key": "other", "variation": 0 }]), "1 prerequisites of its own"),
        ("rules", two, "2 rules of its own"),
        ("rules", json!([another]), "a rule of its own"),
        ("rules", negated(&usual), "a rule of its own"),
        ("fallthrough", json!({ "rollout": { "variations": [{ "variation": 0, "weight": 50_000 }] } }), "a rollout by percentage"),
    ];
    for (key, value, what) in set_up {
        let rig = rig().await;
        rig.double.change(|flag| flag.production[key] = value);
        assert_eq!(look(rig.adapter.as_ref(), &endpoints()).await.points_at, None, "{what}");
        let problems = rig.adapter.check(&endpoints()).await;
        assert!(problems.iter().any(|problem| problem.severity == Severity::Warning && problem.message.contains(what)), "{problems:?}");
        rig.adapter.hold(soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [""; 0], "{what}");
        rig.adapter.release(&endpoints()[1], soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [TARGET, "pool:6432"], "{what}");
    }
}

/// A flag that is off serves its off variation, and that may be `true`.
#[tokio::test]
async fn a6_off_is_not_closed_until_it_serves_false() {
    let rig = rig().await;
    rig.double.change(|flag| {
        flag.production["on"] = json!(false);
        flag.production["offVariation"] = json!(0);
    });
    let seen = look(rig.adapter.as_ref(), &endpoints()).await;
    assert!(!seen.held && seen.detail.contains("while it is off"), "{seen:?}");
    rig.adapter.hold(soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [""; 0]);
}

#[tokio::test]
async fn a_flag_or_environment_of_another_kind_is_found_before_the_switch() {
    let rig = rig().await;
    rig.double.change(|flag| flag.kind = "multivariate");
    let problems = rig.adapter.check(&endpoints()).await;
    assert!(matches!(&problems[..], [one] if one.severity == Severity::Error && one.message.contains("boolean flag")), "{problems:?}");
    let error = rig.adapter.hold(soon()).await.unwrap_err();
    assert!(matches!(error, TrafficError::Service { source: ServiceFault::Lacks(_), .. }), "{error:?}");
}
