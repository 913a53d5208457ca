//! Where a test can have the driver killed or stopped: at each journal entry, before and after it is appended.

use cutover_core::Event;

/// Kills this process with SIGKILL at one place, or stops it there with SIGSTOP. A release build has no such places.
#[derive(Clone, Debug, Default)]
pub struct Failpoint(Option<(Moment, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    After,
    Stop,
}

impl Failpoint {
    /// Reads `before:KIND` or `after:KIND`, with the kind of a journal entry, to be killed there; or `stop:KIND`, to be
    /// stopped after it.
    ///
    /// # Errors
    /// The text, if it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (moment, kind) = text.split_once(':').ok_or_else(|| text.to_owned())?;
        let moment = match moment {
            "before" => Moment::Before,
            "after" => Moment::After,
            "stop" => Moment::Stop,
            _ => return Err(text.to_owned()),
        };
        Ok(Self(Some((moment, kind.to_owned()))))
    }

    pub(crate) fn before(&self, events: &[Event]) {
        self.hit(Moment::Before, events);
    }

    pub(crate) fn after(&self, events: &[Event]) {
        self.hit(Moment::After, events);
        self.hit(Moment::Stop, events);
    }

    fn hit(&self, now: Moment, events: &[Event]) {
        if cfg!(debug_assertions)
            && let Some((moment, kind)) = &self.0
            && *moment == now
            && events.iter().any(|event| event.kind() == kind)
        {
            let signal = |name: &str| drop(std::process::Command::new("kill").args([name, &std::process::id().to_string()]).status());
            if now == Moment::Stop {
                signal("-STOP");
                return;
            }
            // SIGKILL leaves nothing to clean up after us, which is the point.
            signal("-KILL");
            std::process::abort();
        }
    }
}
