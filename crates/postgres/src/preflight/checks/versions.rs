//! Versions: what is supported, and in which direction a move goes.
//!
//! A dump of a newer server may not load into an older one, and features that the older one lacks are lost on the way.

use cutover_core::Side;

use super::super::{
    Check, Context, Probe, Verdict,
    finding::{Draft, Fix},
};

/// Majors that the whole protocol was tried with.
const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;

pub(crate) const CHECK: Check = Check {
    name: "versions",
    about: "the protocol was tried with PostgreSQL 13 to 18, and a dump of a newer server may not load into an older one",
    probe: Probe::Facts(judge),
};

fn judge(context: &Context<'_>) -> Verdict {
    let mut drafts = Vec::new();
    for side in context.sides() {
        if !SUPPORTED.contains(&side.facts.major) {
            let message = format!("PostgreSQL {} is not supported; {} to {} are", side.facts.version, SUPPORTED.start(), SUPPORTED.end());
            let advice = if side.facts.major < *SUPPORTED.start() {
                "upgrade within the old machine first, e.g. with pg_upgrade"
            } else {
                "use a release of cutover that knows this version"
            };
            drafts.push(Draft::error(side.side, message).fix(Fix::advice(advice)));
        }
    }
    drafts.extend(downgrade(context.source.facts.major, context.target.facts.major, context.plan.switch.allow_downgrade));
    Ok(drafts)
}

fn downgrade(source: u32, target: u32, allowed: bool) -> Option<Draft> {
    if target >= source {
        return None;
    }
    let message = format!("the target runs PostgreSQL {target}, older than the source's {source}");
    Some(if allowed {
        Draft::warning(Side::Target, format!("{message}; the plan allows it, and the schema may still not load"))
    } else {
        Draft::error(Side::Target, message)
            .fix(Fix::advice(format!("choose a target of {source} or newer, or set allow_downgrade = true in [switch] of the plan")))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::super::Severity, *};

    #[test]
    fn only_a_downgrade_that_nobody_asked_for_blocks() {
        let severity = |source, target, allowed| downgrade(source, target, allowed).map(|draft| draft.finish("c").severity);
        assert_eq!(severity(15, 15, false), None);
        assert_eq!(severity(13, 18, false), None);
        assert_eq!(severity(17, 16, false), Some(Severity::Error));
        assert_eq!(severity(17, 16, true), Some(Severity::Warning));
    }
}
