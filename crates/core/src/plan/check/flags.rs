//! Traffic of kind `flags`: leases and the rollout; and the names of both databases, wherever they are listed.

use super::*;
use crate::{Side, clients::Place};

/// Leases that a network and a pause can bear.
const LEASE: RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(60);

/// How long an opening may wait for old instances to go.
const LONGEST_ROLLOUT: Duration = Duration::from_secs(24 * 3600);

impl Reader<'_> {
    pub(super) fn flags(&self, raw: &file::Traffic) -> Result<Traffic, PlanError> {
        let place = |text: &Option<Text>| text.as_ref().map_or(0..0, Spanned::span);
        let lease = self.duration(raw.lease.as_ref(), Duration::from_secs(2))?;
        if !LEASE.contains(&lease) {
            let hint = "choose from 200ms to 60s: a server that falls silent in the pause is waited for that long".to_owned();
            return Err(self.fault(place(&raw.lease), "the lease is out of range", Some(hint)));
        }
        let rollout = self.duration(raw.rollout.as_ref(), Duration::from_secs(600))?;
        if rollout > LONGEST_ROLLOUT {
            let hint = "choose at most 24h; 0 means that the opening waits for no client".to_owned();
            return Err(self.fault(place(&raw.rollout), "`rollout` is out of range", Some(hint)));
        }
        Ok(Traffic::Flags {
            lease,
            rollout,
            source: self.names(&raw.source)?,
            target: self.names(&raw.target)?,
            through: self.names(&raw.through)?,
        })
    }

    pub(super) fn names(&self, list: &Option<file::Names>) -> Result<Vec<String>, PlanError> {
        list.iter().flat_map(Spanned::get_ref).map(|name| self.expand(name)).collect()
    }

    /// Each name that the plan lists must lead an instance that gives it to where the plan says.
    pub(super) fn places(&self, raw: &File, plan: &Plan) -> Result<(), PlanError> {
        for raw in &raw.traffic {
            let lists = [(&raw.source, Place::At(Side::Source)), (&raw.target, Place::At(Side::Target)), (&raw.through, Place::Through)];
            for (list, place) in lists {
                for name in list.iter().flat_map(Spanned::get_ref) {
                    self.place(name, place, plan)?;
                }
            }
        }
        Ok(())
    }

    fn place(&self, text: &Text, place: Place, plan: &Plan) -> Result<(), PlanError> {
        let name = self.expand(text)?;
        match plan.places() {
            Err(bad) if bad == name => {
                let hint = "write host, host:port or host:port/database, as the instances know it".to_owned();
                Err(self.fault(text.span(), format!("`{name}` names no database"), Some(hint)))
            }
            Ok(places) if places.find(&name) != Some(place) => {
                let hint = "say more of it, host:port/database, or name it in one place only".to_owned();
                Err(self.fault(text.span(), format!("`{name}` can mean more than one side"), Some(hint)))
            }
            _ => Ok(()),
        }
    }
}
