//! A process accepts a connection: `security_sock_graft()`, else the return of `inet_csk_accept()`. Where the kernel allows
//! no program on either, the exits of the system calls and the task's table of files (`io_uring` has no such exit).

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_probe_read_kernel as bpf_probe_read_kernel_into,
};
use aya_ebpf::programs::TracePointContext;
use conn_common::owner::ACCEPT;
use conn_common::state::CLOSE;

use crate::gate::is_enabled;
use crate::kernel::{Pointer, TCP, follow};
use crate::owner::{self, mptcp};
use crate::storage::pending_owner;
use crate::{config, filter};

/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u16; 2] = [2, 10];

/// `void security_sock_graft(struct sock *sk, struct socket *parent)`: every accept of every family calls it
/// with the new socket locked, once the task is sure to get it (`__inet_accept()`).
///
/// Or the return of `struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)`; since 6.10
/// it is `(struct sock *sk, struct proto_accept_arg *arg)`. NULL if there was nothing to accept.
#[inline(always)]
pub(crate) fn on_socket(sk: *mut c_void) -> i32 {
    if is_enabled() && !sk.is_null() {
        // SAFETY: a socket of the kernel.
        let _ = unsafe { note_current(sk as u64) };
    }
    0
}

/// `accept()` or `accept4()` returns.
#[inline(always)]
pub(crate) fn on_syscall_exit(ctx: &TracePointContext) -> u32 {
    if is_enabled() {
        let _ = accepted_file(ctx);
    }
    0
}

#[inline(always)]
fn accepted_file(ctx: &TracePointContext) -> Result<(), i32> {
    // SAFETY: the loader read the offset of the result from the kernel's description of this record.
    let fd: i64 = unsafe { read(ctx.as_ptr() as u64, &config::SYSCALL_RESULT)? };
    if fd < 0 {
        return Ok(());
    }
    // SAFETY: no preconditions; the task that runs exists.
    let task: Pointer = unsafe { bpf_get_current_task_btf() }.cast();
    let table = follow(follow(task, &config::TASK_FILES), &config::FILES_FDT);
    let files = follow(table, &config::FDTABLE_FD) as u64;
    // SAFETY: reads of kernel memory that fail instead of faulting. Another thread may close the file at any time, so two
    // facts are checked: it is the file of a socket, and the socket is that of the file.
    unsafe {
        let file: u64 = bpf_probe_read_kernel((files + fd.cast_unsigned() * 8) as *const u64)?;
        let mut socket = Head::<4>::EMPTY;
        socket.read(read(file, &config::FILE_PRIVATE_DATA)?)?;
        if socket.get::<u64>(&config::SOCKET_FILE) != file {
            return Ok(());
        }
        note_current(socket.get(&config::SOCKET_SK))
    }
}

/// The first words of a structure of which only the address is known: one call for several fields.
struct Head<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Head<WORDS> {
    const EMPTY: Self = Self([0; WORDS]);

    #[inline(always)]
    unsafe fn read(&mut self, base: u64) -> Result<(), i32> {
        // SAFETY: the helper fails instead of faulting, and writes as much as there is room for.
        let failed = unsafe {
            bpf_probe_read_kernel_into(
                (&raw mut self.0).cast(),
                size_of::<Self>() as u32,
                base as *const c_void,
            )
        };
        if failed == 0 { Ok(()) } else { Err(failed as i32) }
    }

    /// A field inside these words. The verifier refuses a program that reads behind them.
    #[inline(always)]
    fn get<T>(&self, global: &aya_ebpf::Global<u32>) -> T {
        // SAFETY: the verifier checks the bounds; fields are aligned as in the structure, which begins at a word.
        unsafe { (&raw const self.0).byte_add(global.load() as usize).cast::<T>().read_volatile() }
    }
}

/// Reads a field of a structure of which only the address is known.
#[inline(always)]
unsafe fn read<T>(base: u64, global: &aya_ebpf::Global<u32>) -> Result<T, i32> {
    // SAFETY: the helper fails instead of faulting.
    unsafe { bpf_probe_read_kernel((base + u64::from(global.load())) as *const T) }
}

/// Notes the current task as the pending owner of a TCP socket. Not of one that ended while it waited: no step follows
/// that would take the owner over.
#[inline(always)]
unsafe fn note_current(mut sk: u64) -> Result<(), i32> {
    // SAFETY: reads of kernel memory that fail instead of faulting.
    unsafe {
        let mut protocol: u16 = read(sk, &config::SK_PROTOCOL)?;
        if config::MPTCP_FIRST.load() != 0 && protocol == mptcp::PROTOCOL {
            // The subflow that inet_csk_accept() returned (mptcp_stream_accept()).
            sk = read(sk, &config::MPTCP_FIRST)?;
            protocol = read(sk, &config::SK_PROTOCOL)?;
        }
        if protocol != TCP {
            return Ok(());
        }
        let mut head = Head::<3>::EMPTY;
        head.read(sk)?;
        let family: u16 = head.get(&config::SKC_FAMILY);
        if !FAMILIES.contains(&family) || head.get::<u8>(&config::SKC_STATE) == CLOSE {
            return Ok(());
        }
        if filter::passes_over(|| [head.get(&config::SKC_NUM), u16::from_be(head.get(&config::SKC_DPORT))]) {
            return Ok(());
        }
        pending_owner::put(sk as *mut c_void, &owner::current(ACCEPT));
    }
    Ok(())
}
