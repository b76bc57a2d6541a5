//! Code that only the verifier needs.

use core::ffi::c_void;

use conn_common::connection::Connection;

/// The lower 32 bits of an address. The verifier allows no arithmetic with a pointer, but half a register that is moved
/// is a number (`check_alu_op()`, 5.15).
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) fn low_half(sk: *mut c_void) -> u32 {
    let half: u64;
    // SAFETY: moves one register to another.
    unsafe {
        core::arch::asm!("w0 = w1", in("r1") sk, lateout("r0") half, options(pure, nomem, nostack));
    }
    half as u32
}

/// The same for clippy, which may have no BPF target and does not know its registers.
#[cfg(not(target_arch = "bpf"))]
pub(crate) fn low_half(sk: *mut c_void) -> u32 {
    sk.addr() as u32
}

/// The same number, through memory. The verifier forgets the value, and follows one path from here on, not one for each
/// value.
#[inline(always)]
pub(crate) fn opaque(connection: &mut Connection, number: u16) -> u16 {
    let scratch = &raw mut connection.scratch;
    // SAFETY: a field of a map value that nothing else uses.
    unsafe {
        scratch.write_volatile(number);
        scratch.read_volatile()
    }
}
