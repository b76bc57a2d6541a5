//! The maps of a running conntrace, as the kernel shows them to root.

use aya::maps::{Map, MapData, MapInfo};
use std::fs;

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
