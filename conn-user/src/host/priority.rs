//! The priority of the calling thread.

#![expect(unsafe_code, reason = "setpriority(2) is a raw system call")]

use nix::libc;

/// The highest priority of a thread that the scheduler shares time among.
const HIGHEST: libc::c_int = -20;

/// Raises the priority of the calling thread for its last work. Beside processes that use all CPUs, conntrace would otherwise
/// take seconds to end. Without the privilege, the priority stays.
pub(crate) fn raise() {
    // SAFETY: the call changes how often the scheduler runs this thread, and nothing else.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, HIGHEST) } != 0 {
        log::debug!("the priority stays: {}", std::io::Error::last_os_error());
    }
}
