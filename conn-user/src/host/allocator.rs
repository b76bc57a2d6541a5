//! Limits from which the allocator returns free memory to the system.

#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "mallopt(3) is not safe beside other threads"))]

/// Returns blocks from 128 KiB on to the system as soon as they are free: the kernel's types are in memory only
/// while programs are loaded, and a list only until it is shown. By default glibc raises this limit with each such
/// block up to 32 MiB, and keeps what threads have freed. Call it first in `main`: beside other threads it does
/// nothing, since mallopt(3) needs a process with one thread. Returns whether the limit is set.
pub fn return_free_memory() -> bool {
    // Other C libraries return free memory by themselves.
    #[cfg(not(target_env = "gnu"))]
    return true;
    #[cfg(target_env = "gnu")]
    {
        is_only_thread()
            && [nix::libc::M_MMAP_THRESHOLD, nix::libc::M_TRIM_THRESHOLD].into_iter().all(|limit| {
                // SAFETY: the call sets a number of the allocator, and no other thread allocates (checked above).
                unsafe { nix::libc::mallopt(limit, LARGE) == 1 }
            })
    }
}

/// Whether this process has one thread. Then no other thread can make one.
#[cfg(target_env = "gnu")]
fn is_only_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// The limit that glibc begins with, in bytes.
#[cfg(target_env = "gnu")]
const LARGE: std::ffi::c_int = 128 << 10;

#[cfg(test)]
mod tests {
    #[cfg(target_env = "gnu")]
    #[test]
    fn limits_stay_beside_other_threads() {
        let (done, waits) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || waits.recv());
        assert!(!super::return_free_memory());
        drop(done);
        assert!(other.join().is_ok_and(|received| received.is_err()));
    }
}
