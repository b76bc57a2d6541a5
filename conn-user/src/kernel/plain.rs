//! Types that the kernel programs and this process share through maps. No other file declares one.

#![expect(unsafe_code, reason = "the layout of a type is a promise that the compiler does not check")]

use aya::Pod;
use conn_common::assoc_table::TableSlot;
use conn_common::attempt::PortAttempts;
use conn_common::connection::Connection;
use conn_common::flow::{Flow, FlowSocket};
use conn_common::flow_counts::{self, FlowCounts, FlowTraffic};
use conn_common::histogram::{BUCKETS, Durations};
use conn_common::ledger::{CELLS, RepairKey, Slot, Totals};
use conn_common::pin::{self, DirectionSums, EarlierEpoch, EpochSums, PinRecord};
use conn_common::remote::{RemoteCounts, RemoteKey};
use conn_common::small_slot::{SUMS, SmallSlot, WORDS};
use conn_common::{counter, filter, name};

/// A key or value of a map.
///
/// # Safety
/// The type is `repr(C)` or primitive, any bytes of its size are a valid value, and it has no padding.
pub(crate) unsafe trait Plain: Copy + Send + Sync + 'static {}

/// A [`Plain`] value as aya wants it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Cell<T>(pub(super) T);

// SAFETY: `Plain` promises all that `Pod` asks for.
unsafe impl<T: Plain> Pod for Cell<T> {}

/// Declares plain types by their fields. The build fails if there is padding between these.
macro_rules! plain {
    ($($type:ty: $($field:ty)+;)+) => {$(
        const _: () = assert!(size_of::<$type>() == 0 $(+ size_of::<$field>())+, "padding");
        // SAFETY: the fields are integers or arrays of integers, and there is no padding (asserted above).
        unsafe impl Plain for $type {}
    )+};
}

plain! {
    u8: u8;
    u32: u32;
    u64: u64;
    [u8; 16]: [u8; 16];
    [u64; counter::CELLS]: [u64; counter::CELLS];
    name::Switches: u32;
    filter::Value: u32 u32 [u64; 2];
    Slot: [u64; CELLS];
    TableSlot<Slot>: u64 Slot;
    Totals: u64 u64 u64 u64;
    PortAttempts: u64 u64 u64;
    RemoteKey: [u8; 16] u8 u8 [u8; 6];
    RemoteCounts: u64 u64 u64 u64;
    RepairKey: u32 u16 u8 u8 u8 [u8; 3];
    SmallSlot: u64 [u64; SUMS] [u64; WORDS];
    Durations: [u64; BUCKETS] [u64; BUCKETS];
    [u64; 8]: [u64; 8];
    Flow: u64 u64 u64 u64 [u64; 2] [u64; 2] u64 u64 u64 u32 u32 [u64; 2] u32 u32 Connection;
    FlowCounts: [u64; flow_counts::CELLS];
    FlowTraffic: [u64; 2] [u64; 2];
    FlowSocket: u64 u64 u64 u64 u64 [u64; 3];
    DirectionSums: u64 u64 u64 u64 u64 u64 u64 u64;
    EpochSums: u64 u64 [DirectionSums; 3];
    EarlierEpoch: u64 u64 u64 [u8; 32] EpochSums [u64; 8];
    PinRecord: u64 u32 u32 [u8; 16] u64 u64 u64 u64 u64 u64 [u64; pin::CHOICES] [u64; pin::HOOKS] [u8; 32]
        EpochSums [EarlierEpoch; pin::EARLIER] u64 [u64; 127];
}
