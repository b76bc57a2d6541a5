//! The end of the process.

#![expect(unsafe_code, reason = "_exit(2) is a raw system call")]

use nix::libc;

/// Ends the process at once. A thread in the background may be inside a module of the host's name service, such as
/// `libnss_systemd.so`. The C library's handlers for exit(3) take such a module down, so the thread would crash. Output is flushed where it is written.
pub fn now(code: u8) -> ! {
    // SAFETY: the call ends the process, and leaves no state behind that other code could see.
    unsafe { libc::_exit(code.into()) }
}
