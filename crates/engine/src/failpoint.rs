//! Where a test can have the driver killed: at each journal entry, before and after it is appended.

use cutover_core::Event;

/// Kills this process with SIGKILL at one place. A release build has no such places.
#[derive(Clone, Debug, Default)]
pub struct Failpoint(Option<(Moment, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

impl Failpoint {
    /// Reads `before:KIND` or `after:KIND`, with the kind of a journal entry.
    ///
    /// # Errors
    /// The text, if it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (moment, kind) = text.split_once(':').ok_or_else(|| text.to_owned())?;
        let moment = match moment {
            "before" => Moment::Before,
            "after" => Moment::After,
            _ => return Err(text.to_owned()),
        };
        Ok(Self(Some((moment, kind.to_owned()))))
    }

    pub(crate) fn before(&self, events: &[Event]) {
        self.hit(Moment::Before, events);
    }

    pub(crate) fn after(&self, events: &[Event]) {
        self.hit(Moment::After, events);
    }

    #[cfg(debug_assertions)]
    fn hit(&self, now: Moment, events: &[Event]) {
        if let Some((moment, kind)) = &self.0
            && *moment == now
            && events.iter().any(|event| event.kind() == kind)
        {
            let pid = std::process::id().to_string();
            // SIGKILL leaves nothing to clean up after us, which is the point.
            drop(std::process::Command::new("kill").args(["-KILL", &pid]).status());
            std::process::abort();
        }
    }

    #[cfg(not(debug_assertions))]
    fn hit(&self, _now: Moment, _events: &[Event]) {}
}
