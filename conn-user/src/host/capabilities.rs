//! Capabilities of this process, from the kernel itself: `/proc` may be missing or covered.

#![expect(unsafe_code, reason = "capget(2) is a raw system call")]

use std::ffi::c_int;

use nix::libc;

/// `_LINUX_CAPABILITY_VERSION_3`, `include/uapi/linux/capability.h`: two words of 32 bits for each set.
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct`: the same word of the three sets.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The effective capabilities of the calling thread, one bit each. None if the kernel does not answer.
pub(super) fn effective() -> u64 {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: both structures are the kernel's and outlive the call; version 3 has two words.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    let [low, high] = data.map(|word| u64::from(word.effective));
    if answer == 0 { low | high << 32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `CapEff` line of `/proc/PID/status`.
    fn listed(status: &str) -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    }

    #[test]
    fn capabilities_are_those_of_the_status_file() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert_eq!(Some(effective()), listed(&status));
    }
}
