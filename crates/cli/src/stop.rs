//! Ctrl-C: asks the driver to stop in an orderly way.

use tokio::sync::watch;

use crate::output::to_stderr;

/// Becomes true at the first Ctrl-C or SIGTERM. The driver then undoes or goes on, as the protocol says.
pub(crate) fn on_signal() -> watch::Receiver<bool> {
    on_signal_saying("stopping: a switch before its commit point is undone, one after it is finished")
}

/// The same, for those who drive nothing.
pub(crate) fn on_signal_saying(text: &'static str) -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        let mut told = false;
        while signal().await {
            if !told {
                to_stderr(&format!("\n{text}"));
                told = true;
            }
            stop.send_replace(true);
        }
    });
    stopped
}

async fn signal() -> bool {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else { return false };
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.is_ok(),
        terminated = terminate.recv() => terminated.is_some(),
    }
}
