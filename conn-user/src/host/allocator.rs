//! How free memory goes back to the system.

/// Blocks from here on are given back as soon as they are free: the kernel's types are in memory only while
/// programs are loaded, and so is a list until it is shown. Left to itself glibc raises this limit with each such
/// block up to 32 MiB, and what threads have freed it keeps. To be called at the start.
pub fn return_large_blocks() {
    // Other C libraries give it back by themselves.
    #[cfg(target_env = "gnu")]
    for limit in [nix::libc::M_MMAP_THRESHOLD, nix::libc::M_TRIM_THRESHOLD] {
        // SAFETY: it sets a number of the allocator; there are no other threads yet.
        let _ = unsafe { nix::libc::mallopt(limit, LARGE) };
    }
}

/// The limit that glibc begins with.
#[cfg(target_env = "gnu")]
const LARGE: std::ffi::c_int = 128 << 10;
