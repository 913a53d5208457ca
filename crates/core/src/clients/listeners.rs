//! Whether everybody has heard of an epoch, by the servers' reports.

use std::collections::BTreeMap;

use super::Report;

/// What one server has written down, as a driver reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which server.
    pub server: String,
    /// Changes each time that the server writes.
    pub beat: u64,
    /// No lease that the server gave under this beat or an earlier one lasts longer than this after it was written.
    /// Unit: milliseconds.
    pub lease_ms: u64,
    /// What it wrote.
    pub report: Report,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    beat: u64,
    since_ms: u64,
}

/// The servers that a driver knows of, and since when each has been silent. Its times are the driver's own, monotonic,
/// in milliseconds: how long a server has been silent is measured from when the driver first saw what it wrote last, so
/// no clock of anybody else's is asked.
#[derive(Clone, Debug, Default)]
pub struct Listeners(BTreeMap<String, Seen>);

/// Who is still to be waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Servers that are there.
    pub servers: u64,
    /// The sum of their clients. Who may still act on an older epoch is behind: servers that have not heard of it, clients
    /// that have not acknowledged it.
    pub report: Report,
}

impl Listeners {
    /// Looks at what the servers have written down.
    pub fn judge(&mut self, now_ms: u64, heard: &[Heard], epoch: u64) -> Verdict {
        self.0.retain(|server, _| heard.iter().any(|heard| heard.server == *server));
        let mut verdict = Verdict { servers: 0, report: Report { epoch, ..Report::default() } };
        for heard in heard {
            if self.is_dead(now_ms, heard) {
                continue;
            }
            verdict.servers += 1;
            verdict.report.add(&format!("server {}", heard.server), &heard.report);
        }
        verdict
    }

    /// Those that have been silent for longer than anything that they lent.
    pub fn dead<'a>(&mut self, now_ms: u64, heard: &'a [Heard]) -> Vec<&'a Heard> {
        self.0.retain(|server, _| heard.iter().any(|heard| heard.server == *server));
        heard.iter().filter(|heard| self.is_dead(now_ms, heard)).collect()
    }

    fn is_dead(&mut self, now_ms: u64, Heard { server, beat, lease_ms, .. }: &Heard) -> bool {
        let seen = self.0.entry(server.clone()).or_insert(Seen { beat: *beat, since_ms: now_ms });
        if seen.beat != *beat {
            *seen = Seen { beat: *beat, since_ms: now_ms };
        }
        now_ms.saturating_sub(seen.since_ms) > lease_ms + drift(*lease_ms)
    }
}

/// How much longer than a lease we wait for it to run out: no two clocks run equally fast.
fn drift(lease_ms: u64) -> u64 {
    lease_ms / 50 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(server: &str, beat: u64, report: Report) -> Heard {
        Heard { server: server.to_owned(), beat, lease_ms: 1_000, report }
    }

    fn report(epoch: u64, clients: u64, behind: u64) -> Report {
        Report { epoch, clients, behind, ..Report::default() }
    }

    #[test]
    fn a7_a_server_that_has_not_heard_and_a_client_that_has_not_acknowledged_are_waited_for() {
        let mut listeners = Listeners::default();
        let rows = [heard("a", 1, report(4, 7, 2)), heard("b", 1, report(3, 5, 0)), heard("c", 1, report(3, 0, 0))];
        let verdict = listeners.judge(0, &rows, 4);
        assert_eq!(
            (verdict.servers, verdict.report.clients, verdict.report.behind),
            (3, 12, 2 + 5 + 1),
            "one without clients may get some"
        );
        let rows = [heard("a", 2, report(4, 7, 0)), heard("b", 2, report(5, 5, 0)), heard("c", 2, report(4, 0, 0))];
        assert_eq!(listeners.judge(1, &rows, 4).report.behind, 0);
    }

    #[test]
    fn a_server_that_is_silent_for_longer_than_its_leases_is_waited_for_no_more() {
        let mut listeners = Listeners::default();
        let row = |beat| [heard("a", beat, report(3, 5, 0))];
        assert_eq!(listeners.judge(10_000, &row(8), 4).report.behind, 5, "since when it has been silent is not known");
        assert_eq!(listeners.judge(11_000, &row(8), 4).report.behind, 5);
        assert_eq!(listeners.judge(11_022, &row(8), 4).servers, 0);
        assert_eq!(listeners.judge(11_023, &row(9), 4).report.behind, 5, "it is back");
    }

    #[test]
    fn a_clock_that_is_set_back_gives_up_nobody() {
        let mut listeners = Listeners::default();
        let rows = [heard("a", 8, report(3, 5, 0))];
        listeners.judge(10_000, &rows, 4);
        assert_eq!(listeners.judge(2_000, &rows, 4).report.behind, 5);
    }
}
