//! The record beside pinned maps and programs: what they are, when counting began, and who made them.
//!
//! It lives as long as the counts, in a map of its own, and no program reads it.

/// The first word of each record.
pub const MAGIC: u64 = u64::from_le_bytes(*b"conntrac");
/// The version of the record.
pub const VERSION: u32 = 2;
/// How many numbers of a run's choices have room.
pub const CHOICES: usize = 8;
/// How many hooks have room.
pub const HOOKS: usize = 8;
/// How many earlier epochs have room.
pub const EARLIER: usize = 8;
/// The place of the sums of no known direction, behind [`crate::connection::IN`] and `OUT`.
pub const NO_DIRECTION: usize = 2;

/// The sums of one direction over all ports, as [`crate::ledger::Cells`] has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DirectionSums {
    /// As `opened`.
    pub opened: u64,
    /// As `preexisting`.
    pub preexisting: u64,
    /// As `established`.
    pub established: u64,
    /// As `failed`.
    pub failed: u64,
    /// As `closed`.
    pub closed: u64,
    /// As `bytes_sent`, in bytes.
    pub bytes_sent: u64,
    /// As `bytes_received`, in bytes.
    pub bytes_received: u64,
    /// Room for later versions.
    pub reserved: u64,
}

/// The counts of an epoch in short, as its process last read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EpochSums {
    /// When they were read, nanoseconds since 1970; 0 for never.
    pub noted_unix_ns: u64,
    /// When they were read, nanoseconds of `CLOCK_BOOTTIME`.
    pub noted_boot_ns: u64,
    /// By direction.
    pub directions: [DirectionSums; 3],
}

/// An epoch of this boot that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EarlierEpoch {
    /// When its counting began, nanoseconds since 1970.
    pub began_unix_ns: u64,
    /// When its counting began, nanoseconds of `CLOCK_BOOTTIME`; 0 if there is no such epoch.
    pub began_boot_ns: u64,
    /// The hash over its layout.
    pub layout: u64,
    /// The version of conntrace that made its programs, as text, filled with zeroes.
    pub program: [u8; 32],
    /// Its counts.
    pub sums: EpochSums,
    /// Room for later versions.
    pub reserved: [u64; 8],
}

/// The one value of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PinRecord {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// 1 once all hooks are pinned and all sockets are adopted.
    pub complete: u32,
    /// The boot of the host, as the kernel's 128-bit identifier.
    pub boot_id: [u8; 16],
    /// When counting began, nanoseconds since 1970.
    pub began_unix_ns: u64,
    /// When counting began, nanoseconds of `CLOCK_BOOTTIME`.
    pub began_boot_ns: u64,
    /// The hash over the whole layout.
    pub layout: u64,
    /// The part of the hash that covers the records in maps, see [`crate::layout_hash::RECORDS`].
    pub records: u64,
    /// The part that covers the offsets in the kernel's structures.
    pub offsets: u64,
    /// The hash of the compiled programs and all their globals. 0 while programs are replaced: then each hook may be of
    /// the old or of the new build.
    pub build: u64,
    /// The run's choices that shape maps, in the order of the loader.
    pub choices: [u64; CHOICES],
    /// By hook, in the order of the loader: how often the kernel skipped programs that are gone.
    pub missed: [u64; HOOKS],
    /// The version of conntrace that made the programs, as text, filled with zeroes.
    pub program: [u8; 32],
    /// The counts, as the process last read them.
    pub sums: EpochSums,
    /// Epochs of this boot that have ended, the newest last.
    pub earlier: [EarlierEpoch; EARLIER],
    /// How many epochs before these are forgotten.
    pub forgotten: u64,
    /// Room for later versions.
    pub reserved: [u64; 127],
}

const _: () = assert!(size_of::<PinRecord>() == 4_096);

impl PinRecord {
    /// A record of nothing.
    pub const EMPTY: Self = Self {
        magic: MAGIC,
        version: VERSION,
        complete: 0,
        boot_id: [0; 16],
        began_unix_ns: 0,
        began_boot_ns: 0,
        layout: 0,
        records: 0,
        offsets: 0,
        build: 0,
        choices: [0; CHOICES],
        missed: [0; HOOKS],
        program: [0; 32],
        sums: EpochSums { noted_unix_ns: 0, noted_boot_ns: 0, directions: [NO_SUMS; 3] },
        earlier: [NO_EPOCH; EARLIER],
        forgotten: 0,
        reserved: [0; 127],
    };
}

const NO_SUMS: DirectionSums = DirectionSums {
    opened: 0,
    preexisting: 0,
    established: 0,
    failed: 0,
    closed: 0,
    bytes_sent: 0,
    bytes_received: 0,
    reserved: 0,
};

const NO_EPOCH: EarlierEpoch = EarlierEpoch {
    began_unix_ns: 0,
    began_boot_ns: 0,
    layout: 0,
    program: [0; 32],
    sums: EpochSums { noted_unix_ns: 0, noted_boot_ns: 0, directions: [NO_SUMS; 3] },
    reserved: [0; 8],
};
