//! The end of a process, and its use of processor and memory.

#![expect(unsafe_code, reason = "pidfd_open, and waitid with resource usage, are raw system calls")]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs, io, mem,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

/// The usage of a process over its whole life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In user and kernel mode.
    pub cpu: Duration,
    /// The peak of its memory. If it never had more than its parent, as last looked at before its end: `getrusage(2)` begins
    /// at the memory of the parent.
    pub peak_bytes: u64,
}

/// Waits for the end of a child.
///
/// # Panics
/// When it does not come in time.
pub fn await_exit(child: &mut Child, limit: Duration) -> (ExitStatus, Usage) {
    // SAFETY: the child is ours and not reaped yet, so the pid is its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    assert!(fd >= 0, "pidfd_open: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let (began, mut peak) = (Instant::now(), None);
    loop {
        let left = limit.saturating_sub(began.elapsed());
        let slice = PollTimeout::try_from(left.min(LOOK)).expect("a short time");
        peak = peak_bytes(&child.id().to_string()).or(peak);
        if poll(&mut fds, slice).expect("poll") == 1 {
            break;
        }
        assert!(!left.is_zero(), "the process did not end in {limit:?}");
    }
    let usage = used(&pidfd);
    let is_its_own = usage.peak_bytes > own_peak_bytes();
    let peak_bytes = peak.filter(|_| !is_its_own).unwrap_or(usage.peak_bytes);
    (child.wait().expect("wait for the process"), Usage { peak_bytes, ..usage })
}

/// Time between two looks at the peak of a process.
const LOOK: Duration = Duration::from_millis(20);

/// The usage of a process that has ended. It must not be reaped before.
fn used(pidfd: &OwnedFd) -> Usage {
    // SAFETY: plain data, for which zeros are a value.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: both outlive the call. The C library's waitid() has no fifth argument, the kernel's has.
    let done = unsafe {
        let (pidfd, info) = (pidfd.as_raw_fd(), &raw mut info);
        libc::syscall(libc::SYS_waitid, libc::P_PIDFD, pidfd, info, flags, &raw mut usage)
    };
    assert!(done == 0, "waitid: {}", io::Error::last_os_error());
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(time.tv_usec.cast_unsigned())
    };
    Usage {
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        peak_bytes: usage.ru_maxrss.cast_unsigned() * 1024,
    }
}

/// The most memory that this process had at a time.
pub fn own_peak_bytes() -> u64 {
    peak_bytes("self").expect("VmHWM")
}

/// The most memory that a process has had since it began its program; none if the process has ended.
fn peak_bytes(pid: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"))?;
    Some(peak.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn usage_of_an_ended_process_is_read() {
        let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 7";
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let (status, usage) = await_exit(&mut child, Duration::from_secs(40));
        assert_eq!(status.code(), Some(7));
        assert!(usage.cpu > Duration::ZERO && usage.peak_bytes > 100_000, "{usage:?}");
        assert!(own_peak_bytes() > 100_000);
    }
}
