//! Limits from which the allocator returns free memory to the system.

/// Makes glibc return blocks of 128 KiB or more as soon as they are free: the kernel's types and lists are large and
/// short-lived. By default, glibc raises this limit up to 32 MiB with each freed block, and keeps what threads have
/// freed.
///
/// # Safety
/// No other thread of this process runs: mallopt(3) is not safe beside threads that allocate.
#[expect(unsafe_code, reason = "mallopt(3) has no safe form")]
pub unsafe fn return_large_blocks() {
    // Other C libraries have no such limits.
    #[cfg(target_env = "gnu")]
    for limit in [nix::libc::M_MMAP_THRESHOLD, nix::libc::M_TRIM_THRESHOLD] {
        // SAFETY: the caller has the only thread. Any number is a valid limit.
        let _ = unsafe { nix::libc::mallopt(limit, LARGE) };
    }
}

/// glibc's initial limit, in bytes.
#[cfg(target_env = "gnu")]
const LARGE: std::ffi::c_int = 128 << 10;
