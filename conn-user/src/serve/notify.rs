//! Messages to the service manager, `sd_notify(3)`. Without a service manager, none is sent.

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
        log::debug!("a message to the service manager failed: {error}");
    }
}
