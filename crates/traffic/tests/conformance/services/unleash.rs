//! Unleash.

use cutover_traffic::Severity;
use serde_json::{Value, json};

use super::{Rig, SOURCE, TARGET, serves, trouble};
use crate::{
    doubles::unleash::Feature,
    suite::{endpoints, look, soon},
};

const KEYS: &str = "kind = \"unleash\"\nenvironment = \"production\"\nflag = \"database-writes-enabled\"\ntoken = \"hunter2\"\n\
                    timeout = \"300ms\"";

async fn rig() -> Rig<Feature> {
    Rig::new(Feature::open_to(&[SOURCE, "blue", "pool:6432"]), KEYS).await
}

#[tokio::test]
async fn a6_unleash_conforms() {
    serves(rig().await).await;
}

#[tokio::test]
async fn a6_unleash_bears_trouble() {
    trouble::is_borne(rig().await).await;
}

/// Strategies add up, so each that is not ours has to go before the flag is on.
#[tokio::test]
async fn a6_strategies_that_somebody_set_up_arm_nobody() {
    let usual = Feature::open_to(&[SOURCE]).strategies[0].clone();
    let with = |key: &str, value: Value| {
        let mut strategy = usual.clone();
        strategy[key] = value;
        strategy
    };
    let second = json!({ "id": "second", "name": "default", "constraints": [], "parameters": {}, "segments": [] });
    let inverted = json!([{ "contextName": "database", "operator": "IN", "values": ["a"], "inverted": true }]);
    let set_up: [(Vec<Value>, &str); 6] = [
        (vec![], "open to everybody"),
        (vec![second.clone(), usual.clone(), with("id", json!("third"))], "3 strategies of its own"),
        (vec![with("segments", json!([4]))], "a strategy of its own"),
        (vec![with("parameters", json!({ "rollout": "50" }))], "a strategy of its own"),
        (vec![with("constraints", inverted)], "a constraint of its own"),
        (vec![with("disabled", json!(true))], "0 strategies of its own"),
    ];
    for (strategies, what) in set_up {
        let rig = rig().await;
        rig.double.change(|feature| feature.strategies = strategies);
        assert_eq!(look(rig.adapter.as_ref(), &endpoints()).await.points_at, None, "{what}");
        let problems = rig.adapter.check(&endpoints()).await;
        assert!(problems.iter().any(|problem| problem.severity == Severity::Warning && problem.message.contains(what)), "{problems:?}");
        rig.adapter.hold(soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [""; 0], "{what}");
        rig.double.take_history();
        rig.adapter.release(&endpoints()[1], soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [TARGET, "pool:6432"], "{what}");
        rig.was_never_open_to_both();
        assert_eq!(rig.double.state().strategies.len(), 1, "{what}");
    }
}

/// What is deleted by somebody else at the same time is gone all the same.
#[tokio::test]
async fn a_strategy_that_is_gone_already_does_not_keep_the_flag_from_opening() {
    let rig = rig().await;
    rig.adapter.hold(soon()).await.unwrap();
    rig.double.change(|feature| feature.strategies.push(json!({ "id": "second", "name": "default", "constraints": [] })));
    // The answer to the deletion is lost, so it is made twice.
    rig.double.fail([crate::doubles::Fault::Passes, crate::doubles::Fault::Passes, crate::doubles::Fault::Lost]);
    rig.adapter.release(&endpoints()[0], soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [SOURCE, "blue", "pool:6432"]);

    // So is a strategy that is made twice because the answer to the first was lost.
    rig.adapter.hold(soon()).await.unwrap();
    rig.double.change(|feature| feature.strategies.clear());
    rig.double.fail([crate::doubles::Fault::Passes, crate::doubles::Fault::Lost]);
    rig.adapter.release(&endpoints()[0], soon()).await.unwrap();
    assert_eq!((rig.lets_write(), rig.double.state().strategies.len()), (vec![SOURCE, "blue", "pool:6432"], 1));
}
