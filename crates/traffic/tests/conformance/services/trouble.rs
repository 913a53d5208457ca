//! What services do on a bad day, and what then becomes of a hold and a release.

use std::time::Duration;

use cutover_traffic::{ServiceFault, Severity, TrafficError};
use tokio::time::Instant;

use super::{Rig, SOURCE, TARGET, ago};
use crate::{
    doubles::{Api, Fault, TOKEN},
    suite::{endpoints, soon},
};

/// Long enough for a call on a busy machine, and for what is tried again.
const BUDGET: Duration = Duration::from_secs(3);

/// At least as many as any service takes for one of them.
const CALLS: usize = 5;

/// The suite, on a service whose flag is open to the source's clients and whose calls may take 300 ms.
pub(crate) async fn is_borne<S: Api>(rig: Rig<S>) {
    passing_trouble_is_waited_out(&rig).await;
    what_is_refused_fails_at_once(&rig).await;
    a_stale_read_is_not_believed(&rig).await;
    somebody_elses_change_is_not_left(&rig).await;
    trouble_that_stays_ends_at_the_deadline(&rig).await;
    nothing_is_called_while_the_journal_is_out_of_reach(&rig).await;
}

async fn passing_trouble_is_waited_out<S: Api>(rig: &Rig<S>) {
    let [source, target] = endpoints();
    let passing = [
        Fault::Status(429, Some(0)),
        Fault::Status(429, None),
        Fault::Status(409, None),
        Fault::Status(500, None),
        Fault::Status(503, Some(0)),
        Fault::Hangs,
        Fault::Lost,
    ];
    for fault in passing {
        // Each call of a hold and of a release meets it once.
        for passes in 0..CALLS {
            rig.double.fail(std::iter::repeat_n(Fault::Passes, passes).chain([fault.clone()]));
            rig.adapter.hold(soon()).await.unwrap_or_else(|error| panic!("{fault:?}: {}", error.report()));
            assert_eq!(rig.lets_write(), [""; 0], "{fault:?}");
            rig.double.fail(std::iter::repeat_n(Fault::Passes, passes).chain([fault.clone()]));
            rig.adapter.release(&target, soon()).await.unwrap_or_else(|error| panic!("{fault:?}: {}", error.report()));
            assert_eq!(rig.lets_write(), [TARGET, "pool:6432"], "{fault:?}");
        }
    }
    rig.double.fail([]);
    rig.was_never_open_to_both();
    rig.adapter.release(&source, soon()).await.unwrap();
}

async fn what_is_refused_fails_at_once<S: Api>(rig: &Rig<S>) {
    for (status, hint) in [(401, "token"), (403, "right"), (404, "correct its name"), (302, "url"), (400, "")] {
        rig.double.fail_always(Some(Fault::Status(status, None)));
        rig.double.take_requests();
        let begun = Instant::now();
        let error = rig.adapter.hold(soon()).await.unwrap_err();
        let asked = rig.double.take_requests().len();
        assert!(asked <= 2 && begun.elapsed() < BUDGET, "{status}: asked {asked} times in {} ms", ago(begun));
        let TrafficError::Service { source: ServiceFault::Status { status: told, .. }, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*told, status);
        assert!(error.hint().unwrap_or_default().contains(hint), "{status}: {:?}", error.hint());
        assert!(!error.report().contains(TOKEN) && !format!("{error:?}").contains(TOKEN), "{}", error.report());
        let problems = rig.adapter.check(&endpoints()).await;
        assert!(problems.iter().any(|problem| problem.severity == Severity::Error), "{status}: {problems:?}");
        assert!(!format!("{problems:?}").contains(TOKEN), "{problems:?}");
    }
    rig.double.fail_always(Some(Fault::NoJson));
    let error = rig.adapter.hold(soon()).await.unwrap_err();
    assert!(matches!(&error, TrafficError::Service { source: ServiceFault::Unreadable(_), .. }), "{error:?}");
    rig.double.fail_always(None);
    assert_eq!(rig.lets_write(), [SOURCE, "blue", "pool:6432"], "nothing was done");
}

async fn a_stale_read_is_not_believed<S: Api>(rig: &Rig<S>) {
    let [source, _] = endpoints();
    rig.double.take_requests();
    rig.adapter.hold(soon()).await.unwrap();
    let usual = rig.double.take_requests().len();
    rig.adapter.release(&source, soon()).await.unwrap();
    rig.double.take_requests();
    rig.double.fail(std::iter::repeat_n(Fault::Stale, usual + 3));
    rig.adapter.hold(soon()).await.unwrap();
    assert!(rig.double.take_requests().len() > usual, "it looked on until it was shown");
    assert_eq!(rig.lets_write(), [""; 0]);
    rig.double.fail([]);
    rig.adapter.release(&source, soon()).await.unwrap();

    // A replica that never hears of it: the hold fails in time, and says what it saw.
    rig.double.fail_always(Some(Fault::Stale));
    let begun = Instant::now();
    let error = rig.adapter.hold(begun + Duration::from_millis(800)).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(1_050), "{} ms", ago(begun));
    assert!(error.is_time_out(), "{}", error.report());
    rig.double.fail_always(None);
    rig.adapter.release(&source, soon()).await.unwrap();
    rig.double.take_history();
}

async fn somebody_elses_change_is_not_left<S: Api>(rig: &Rig<S>) {
    let [source, _] = endpoints();
    rig.double.take_requests();
    rig.adapter.hold(soon()).await.unwrap();
    let calls = rig.double.take_requests().len();
    // The last call saw that it is held; what comes after that, nobody waits for.
    for passes in 0..calls - 1 {
        rig.adapter.release(&source, soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [SOURCE, "blue", "pool:6432"]);
        rig.double.fail(std::iter::repeat_n(Fault::Passes, passes).chain([Fault::Meddled]));
        rig.adapter.hold(soon()).await.unwrap();
        assert_eq!(rig.lets_write(), [""; 0], "opened by hand after call {passes}");
    }
    rig.adapter.release(&source, soon()).await.unwrap();
    rig.double.take_history();
}

async fn trouble_that_stays_ends_at_the_deadline<S: Api>(rig: &Rig<S>) {
    for fault in [Fault::Hangs, Fault::Status(503, None), Fault::Status(429, Some(60))] {
        rig.double.fail_always(Some(fault.clone()));
        let begun = Instant::now();
        let error = rig.adapter.hold(begun + Duration::from_millis(500)).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_millis(750), "{fault:?}: {} ms", ago(begun));
        assert!(matches!(error, TrafficError::Unserved { .. }) && error.is_time_out(), "{fault:?}: {error:?}");
        let begun = Instant::now();
        let error = rig.adapter.release(&endpoints()[1], begun + Duration::from_millis(500)).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_millis(750) && error.is_time_out(), "{fault:?}: {error:?}");
    }
    rig.double.fail_always(None);
    assert_eq!(rig.lets_write(), [SOURCE, "blue", "pool:6432"], "nothing was done");

    // It is written, and never shown: that is no hold, and whoever undoes it opens what was closed.
    rig.double.fail_once_changed(Fault::Status(503, None));
    let error = rig.adapter.hold(Instant::now() + Duration::from_millis(500)).await.unwrap_err();
    assert!(error.is_time_out() && rig.lets_write().is_empty(), "{error:?}");
    rig.double.fail_always(None);
    rig.adapter.release(&endpoints()[0], soon()).await.unwrap();
    assert_eq!(rig.lets_write(), [SOURCE, "blue", "pool:6432"]);
}

async fn nothing_is_called_while_the_journal_is_out_of_reach<S: Api>(rig: &Rig<S>) {
    rig.double.take_requests();
    rig.journal.is_out_of_reach();
    let error = rig.adapter.hold(soon()).await.unwrap_err();
    assert!(error.report().contains("connection refused"), "{}", error.report());
    rig.adapter.release(&endpoints()[1], soon()).await.unwrap_err();
    assert!(rig.double.take_requests().is_empty());
}
