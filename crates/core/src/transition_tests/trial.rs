//! One write on trial.

use super::*;

/// A11: leave for one write is there between the commit point and the opening, for one client, and ends with its driver.
#[test]
fn a11_one_write_is_tried_between_the_commit_point_and_the_opening_by_one_client_only() {
    let offer = || Command::OfferTrial { digest: "d".to_owned() };
    let grant = |claim: &str| Command::GrantTrial { claim: claim.to_owned(), instance: "pod".to_owned() };
    let mut cutover = Cutover::new(true, false);
    cutover.run();
    assert!(matches!(cutover.say(offer()), Err(Refusal::NotNow { .. })));
    cutover.say(Command::Switch { to: Side::Target }).unwrap();
    while !matches!(cutover.state().phase, Phase::Opening(_)) {
        assert!(matches!(cutover.say(offer()), Err(Refusal::NotNow { .. })), "{:?}", cutover.state().phase);
        let step = next(cutover.state()).unwrap();
        cutover.say(report(step)).unwrap();
    }
    assert!(matches!(cutover.say(grant("one")), Err(Refusal::NotNow { .. })), "none was offered");
    cutover.say(offer()).unwrap();
    let (epoch, route) = (cutover.state().epoch, cutover.state().route());
    cutover.say(grant("one")).unwrap();
    assert!(matches!(cutover.say(grant("two")), Err(Refusal::NotNow { .. })), "a second write");
    assert_eq!((cutover.state().epoch, cutover.state().route()), (epoch, route), "everybody else is told the same as before");
    cutover.say(Command::EndTrial { passed: true }).unwrap();
    assert!(matches!(cutover.say(grant("two")), Err(Refusal::NotNow { .. })), "it has ended");
    cutover.say(Command::EndTrial { passed: true }).unwrap();
    cutover.say(offer()).unwrap();
    cutover.say(Command::TakeOver { driver: "another".to_owned() }).unwrap();
    assert!(matches!(cutover.say(grant("two")), Err(Refusal::NotNow { .. })), "whoever offered it is gone");
    cutover.say(offer()).unwrap();
    cutover.run();
    assert_eq!((cutover.state().trial.clone(), cutover.state().phase.clone()), (None, Phase::Following));
    cutover.say(Command::Switch { to: Side::Source }).unwrap();
    while !matches!(cutover.state().phase, Phase::Opening(_)) {
        let step = next(cutover.state()).unwrap();
        cutover.say(report(step)).unwrap();
    }
    assert!(matches!(cutover.say(offer()), Err(Refusal::NotNow { .. })), "the way back waits for nobody");
    assert_eq!(replay(&cutover.1).unwrap(), cutover.0);
}
