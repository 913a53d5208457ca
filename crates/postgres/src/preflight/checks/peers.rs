//! Each server reaches the other.
//!
//! The streams are connections from server to server, which can't be tried from here before a subscription exists. What
//! can be told is whether an address only means something on another machine.

use cutover_core::{
    Stream,
    plan::{DatabaseUrl, SslMode},
};

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
};

pub(crate) const CHECK: Check = Check {
    name: "peers",
    about: "a stream is a connection from one server to the other, by an address that has to mean the same there as here",
    probe: Probe::Facts(judge),
};

fn judge(context: &Context<'_>) -> Verdict {
    let draft = |stream: Stream| {
        let peer = &context.plan.database(stream.origin()).peer_url;
        let subscriber = &context.plan.database(stream.destination()).url;
        verdict(stream, peer, subscriber)
    };
    Ok(context.streams().into_iter().map(draft).collect())
}

fn verdict(stream: Stream, peer: &DatabaseUrl, subscriber: &DatabaseUrl) -> Draft {
    let (origin, destination) = (stream.origin(), stream.destination());
    if is_local(&peer.host) && !is_local(&subscriber.host) {
        let message = format!(
            "the {stream} stream is a connection from {} to {}, which is an address of that machine itself",
            subscriber.host,
            peer.address()
        );
        let advice = format!("set peer_url in [{origin}] to an address by which the {destination}'s server reaches the {origin}");
        return Draft::warning(destination, message).fix(Fix::advice(advice));
    }
    let message = format!("whether the {destination}'s server reaches the {origin} at {} can't be told from here", peer.address());
    Draft::info(destination, message)
        .evidence([format!("run the command on the {destination}'s machine")])
        .fix(Fix::Command(try_command(peer)))
}

/// Without the password: psql asks for it.
fn try_command(peer: &DatabaseUrl) -> String {
    let tls = if peer.ssl_mode == SslMode::Prefer { String::new() } else { format!(" sslmode={}", peer.ssl_mode.name()) };
    format!(
        "psql \"host={} port={} user={} dbname={}{tls} replication=database\" -c IDENTIFY_SYSTEM",
        peer.host, peer.port, peer.user, peer.database
    )
}

/// Whether an address means the machine that it is used on.
fn is_local(host: &str) -> bool {
    host.starts_with('/') || host == "localhost" || host == "::1" || host.starts_with("127.")
}

#[cfg(test)]
mod tests {
    use super::{super::super::Severity, *};

    fn severity(peer: &str, subscriber: &str) -> Severity {
        let url = |host: &str| DatabaseUrl::parse(&format!("postgres://u:hunter2@{host}/d")).unwrap();
        let finding = verdict(Stream::Forward, &url(peer), &url(subscriber)).finish("c");
        assert!(!format!("{finding:?}").contains("hunter2"));
        finding.severity
    }

    #[test]
    fn a_loopback_address_means_another_machine_over_there() {
        assert_eq!(severity("127.0.0.1:1", "127.0.0.1:2"), Severity::Info);
        assert_eq!(severity("db1.example", "db2.example"), Severity::Info);
        assert_eq!(severity("db1.example", "localhost"), Severity::Info);
        assert_eq!(severity("localhost", "db2.example"), Severity::Warning);
    }
}
