//! What the service manager is told, `sd_notify(3)`. Without a service manager, nothing.

use sd_notify::NotifyState;

/// The daemon answers clients.
pub(crate) fn ready() {
    send(&[NotifyState::Ready]);
}

/// Both halves of the daemon do their work.
pub(crate) fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// The daemon ends.
pub(crate) fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("the service manager cannot be told: {error}");
    }
}
