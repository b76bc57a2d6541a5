//! What the programs do only for the verifier.

use core::arch::asm;
use core::ffi::c_void;

use conn_common::connection::Connection;

/// The lower 32 bits of the address. The verifier allows no calculation with a pointer, but what is moved as half a
/// register is a number (`check_alu_op()`).
#[inline(always)]
pub fn low_half(sk: *mut c_void) -> u32 {
    let half: u64;
    // SAFETY: moves one register to another.
    unsafe { asm!("w0 = w1", in("r1") sk, lateout("r0") half, options(pure, nomem, nostack)) };
    half as u32
}

/// The same number, through memory: the verifier forgets which one it is, and follows one path from here
/// instead of one for each.
#[inline(always)]
pub fn opaque(connection: &mut Connection, number: u16) -> u16 {
    let memory = &raw mut connection.scratch;
    // SAFETY: a field of a map value that nothing else uses.
    unsafe {
        memory.write_volatile(number.into());
        memory.read_volatile() as u16
    }
}
