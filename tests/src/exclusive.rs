//! A program that has the socket operations of a cgroup for itself, as one attached with the flags of before 4.15.

#![expect(unsafe_code, reason = "aya attaches programs that let others be beside them only")]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

/// Commands of bpf(2), `include/uapi/linux/bpf.h`.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
/// `BPF_PROG_TYPE_SOCK_OPS`.
const SOCK_OPS: u32 = 13;
/// `BPF_CGROUP_SOCK_OPS`.
const CGROUP_SOCK_OPS: u32 = 3;
/// `r0 = 1; exit`: goes on, and does nothing.
const GO_ON: [u64; 2] = [0x1_0000_00b7, 0x95];

/// The first members of `union bpf_attr` for a load.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    rest: [u64; 12],
}

/// Those for attaching and detaching.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// The attached program. Dropping it detaches it.
#[derive(Debug)]
pub struct Exclusive {
    cgroup: File,
    program: OwnedFd,
}

impl Exclusive {
    /// Attaches to a cgroup.
    ///
    /// # Errors
    /// The kernel refuses, for instance because another program is there.
    pub fn attach(cgroup: &Path) -> io::Result<Self> {
        let load = Load {
            kind: SOCK_OPS,
            instructions: 2,
            code: GO_ON.as_ptr().expose_provenance() as u64,
            license: c"GPL".as_ptr().expose_provenance() as u64,
            rest: [0; 12],
        };
        // SAFETY: the kernel reads the attributes and what they point to, which outlive the call.
        let fd =
            call(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) })?;
        // SAFETY: a new descriptor that nothing else owns.
        let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let attached = Self { cgroup: File::open(cgroup)?, program };
        attached.command(PROG_ATTACH)?;
        Ok(attached)
    }

    fn command(&self, command: libc::c_int) -> io::Result<()> {
        let attach = Attach {
            target: self.cgroup.as_raw_fd().cast_unsigned(),
            program: self.program.as_raw_fd().cast_unsigned(),
            kind: CGROUP_SOCK_OPS,
            flags: 0,
        };
        // SAFETY: the kernel reads the attributes, which outlive the call.
        call(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attach, size_of::<Attach>()) })?;
        Ok(())
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        let _ = self.command(PROG_DETACH);
    }
}

fn call(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
