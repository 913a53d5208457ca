//! One write on trial: before the target is opened to the flags' clients, a hook has one of them try one write (A11).
//!
//! The hook is given a word, and shows it to whichever instance it asks to write; the instance shows it to the server that
//! it asks for leave; the server writes down that it was asked, and the driver grants it once, in the journal, before the
//! write. So it is the driver who decides, one write is all that there can be, and the leave ends with the hook.

use cutover_core::{Command, Side, clients::Claim};
use cutover_traffic::run_hook;
use sha2::{Digest as _, Sha256};

use super::{clients::stopped, hook_environment};
use crate::{
    EngineResult, Notice,
    driver::{Driver, asked_to_stop},
};

impl Driver<'_> {
    /// Runs the hook, where the plan has one, and grants what it tries.
    pub(super) async fn try_write(&mut self, side: Side, epoch: u64) -> EngineResult<()> {
        let cutover = self.cutover;
        let (Some(command), Some(flags)) = (&cutover.plan.hooks.trial, cutover.fleet.flags()) else { return Ok(()) };
        let endpoint = self.endpoint_for_hook(side, epoch).await?;
        let word = hex::encode(rand::random::<[u8; 24]>());
        let digest = hex::encode(Sha256::digest(&word));
        self.say(Command::OfferTrial { digest: digest.clone() }).await?;

        let mut environment = hook_environment(cutover, "trial", side);
        environment.push(("CUTOVER_TRIAL".to_owned(), word));
        let mut interrupt = self.interrupt.clone();
        let mut hook = Box::pin(run_hook(command, &endpoint, &environment, cutover.plan.hooks.timeout, &cutover.folder));
        let mut granted = false;
        let why = loop {
            let claimed = async { if granted { std::future::pending().await } else { flags.claimed(&digest).await } };
            tokio::select! {
                biased;
                () = asked_to_stop(&mut interrupt) => break Some("interrupted".to_owned()),
                ran = &mut hook => break ran.err().map(|error| format!("the trial hook failed: {}", error.report())),
                claimed = claimed => match claimed {
                    Ok(Claim { id, instance, .. }) => {
                        granted = true;
                        self.say(Command::GrantTrial { claim: id, instance }).await?;
                    }
                    Err(error) => break Some(error.report()),
                },
            }
        };
        drop(hook);
        self.say(Command::EndTrial { passed: why.is_none() }).await?;
        if why.is_none() && !granted {
            self.note(Notice::Warning("the trial hook ended well, and no instance asked for leave to write".to_owned()));
        }
        why.map_or(Ok(()), |why| Err(stopped(side, &why)))
    }
}
