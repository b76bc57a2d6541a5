//! The maps of a running conntrace, as the kernel shows them to root.

use crate::harness::Skip;
use aya::Pod;
use aya::maps::{Array, Map, MapData, MapInfo};
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

/// A table of a running conntrace in which owners take places. A place is `N` words: its owner or 0, then what that one
/// keeps there.
#[expect(missing_debug_implementations, reason = "an aya map has none")]
pub struct Table<const N: usize>(Array<MapData, [u64; N]>)
where
    [u64; N]: Pod;

/// An owner that there is not. (1 says that a place is lent.)
const NOBODY: u64 = 2;

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
    /// If the process has no such map, or one of other places.
    pub fn of(pid: u32, name: &str) -> Result<Self, Skip> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(Skip("tables with places are for x86_64".into()));
        }
        Ok(Self(Array::try_from(of(pid, name)).unwrap()))
    }

    /// All places.
    pub fn places(&self) -> impl Iterator<Item = (u32, [u64; N])> {
        (0..self.0.len()).map(|at| (at, self.0.get(&at, 0).unwrap()))
    }

    /// Writes a place.
    pub fn put(&mut self, at: u32, place: [u64; N]) {
        self.0.set(at, place, 0).unwrap();
    }

    /// Leaves no place free, or next to none.
    ///
    /// # Panics
    /// If many are free all the same.
    pub fn fill(&mut self) {
        let owned = self.owned();
        self.take(0..owned);
        // Where owners leave, those of other tests do so at any time.
        let free = self.places().take(owned as usize).filter(|(_, place)| place[0] == 0).count();
        assert!(free <= owned as usize / 100, "{free} of {owned}");
    }

    /// Leaves nothing to lend either.
    pub fn exhaust(&mut self) {
        self.fill();
        self.take(self.owned()..self.0.len());
    }

    /// How many places may be somebody's. Those behind them are lent.
    fn owned(&self) -> u32 {
        1 << self.0.len().ilog2()
    }

    /// Gives these places to nobody, if they are free.
    fn take(&mut self, places: Range<u32>) {
        for at in places {
            let mut place = self.0.get(&at, 0).unwrap();
            if place[0] == 0 {
                place[0] = NOBODY;
                self.put(at, place);
            }
        }
    }
}
