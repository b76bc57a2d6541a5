//! The maps of a running conntrace, as the kernel shows them to root.

use crate::harness::Skip;
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError, MapInfo};
use std::{fs, ops::Range};

/// The map of this name that the process has open.
///
/// # Panics
/// If there is none.
pub fn of(pid: u32, name: &str) -> Map {
    // The kernel keeps 15 bytes of a name (`BPF_OBJ_NAME_LEN`).
    let kept = &name[..name.len().min(15)];
    let ids = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().filter_map(|entry| {
        let info = fs::read_to_string(entry.ok()?.path()).ok()?;
        info.lines().find_map(|line| line.strip_prefix("map_id:"))?.trim().parse::<u32>().ok()
    });
    let is_meant = |id: &u32| {
        MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str().is_some_and(|name| name == kept))
    };
    let id = ids.into_iter().find(is_meant).unwrap_or_else(|| panic!("{pid} has no map {name}"));
    Map::from_map_data(MapData::from_id(id).unwrap()).unwrap()
}

/// Fills a hash map whose values are `N` words with keys that no socket and no port has.
///
/// # Panics
/// The process has no such map, or its values have another size.
pub fn fill<K: Pod + From<u32>, const N: usize>(pid: u32, name: &str)
where
    [u64; N]: Pod,
{
    let mut map = HashMap::<_, K, [u64; N]>::try_from(of(pid, name)).unwrap();
    for key in 0_u32.. {
        match map.insert(K::from(u32::MAX - key), [0; N], 0) {
            Ok(()) => {}
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                return;
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// A table of a running conntrace. A slot is `N` words: the key or 0, then the value.
#[expect(missing_debug_implementations, reason = "an aya map has none")]
pub struct Table<const N: usize>(Array<MapData, [u64; N]>)
where
    [u64; N]: Pod;

/// How often a table is filled until few slots are free.
const MAX_PASSES: u32 = 20;

/// A key that no socket has. The key 1 marks a busy slot.
const NO_SOCKET: u64 = 2;

impl<const N: usize> Table<N>
where
    [u64; N]: Pod,
{
    /// The table of this name.
    ///
    /// # Errors
    /// There is none on this kind of machine.
    ///
    /// # Panics
    /// The process has no such map, or its slots have another size.
    pub fn of(pid: u32, name: &str) -> Result<Self, Skip> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(Skip("the tables exist on x86_64 only".into()));
        }
        Ok(Self(Array::try_from(of(pid, name)).unwrap()))
    }

    /// Gives a key one more slot, with this value in one of its cells. A reader adds up all slots of a key, and no CPU
    /// writes to this one.
    ///
    /// # Panics
    /// No slot is free.
    pub fn plant(&mut self, key: u64, cell: usize, value: u64) {
        let (at, mut slot) = self.slots().find(|(_, slot)| slot[0] == 0).expect("a free slot");
        slot[0] = key;
        slot[1 + cell] = value;
        self.put(at, slot);
    }

    /// All slots.
    pub fn slots(&self) -> impl Iterator<Item = (u32, [u64; N])> {
        (0..self.0.len()).map(|at| (at, self.0.get(&at, 0).unwrap()))
    }

    /// Writes a slot.
    pub fn put(&mut self, at: u32, slot: [u64; N]) {
        self.0.set(at, slot, 0).unwrap();
    }

    /// Occupies all slots, or all but a few.
    ///
    /// # Panics
    /// More than one slot in a hundred is still free.
    pub fn fill(&mut self) {
        let keyed = self.keyed();
        let mut free = 0;
        // Sockets of other tests release slots at any time, thousands of them at the end of a test.
        for _ in 0..MAX_PASSES {
            self.occupy(0..keyed);
            free = self.slots().take(keyed as usize).filter(|(_, slot)| slot[0] == 0).count();
            if free <= keyed as usize / 100 {
                return;
            }
        }
        panic!("{free} of {keyed} are free after {MAX_PASSES} passes");
    }

    /// Occupies the scratch slots, too.
    pub fn exhaust(&mut self) {
        self.fill();
        self.occupy(self.keyed()..self.0.len());
    }

    /// How many slots hold keys. Scratch slots follow them.
    fn keyed(&self) -> u32 {
        1 << self.0.len().ilog2()
    }

    /// Occupies the free ones of these slots.
    fn occupy(&mut self, slots: Range<u32>) {
        for at in slots {
            let mut slot = self.0.get(&at, 0).unwrap();
            if slot[0] == 0 {
                slot[0] = NO_SOCKET;
                self.put(at, slot);
            }
        }
    }
}
