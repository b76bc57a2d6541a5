//! The record beside pinned maps and programs: what they are, when counting began, and who made them.
//!
//! It lives as long as the counts, in a map of its own, and no program reads it.

/// The first word of each record.
pub const MAGIC: u64 = u64::from_le_bytes(*b"conntrac");
/// The version of the record.
pub const VERSION: u32 = 1;
/// How many numbers of a run's choices have room.
pub const CHOICES: usize = 8;
/// How many hooks have room.
pub const HOOKS: usize = 8;

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
    /// Room for later versions.
    pub reserved: [u64; 34],
}

const _: () = assert!(size_of::<PinRecord>() == 512);

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
        reserved: [0; 34],
    };
}
