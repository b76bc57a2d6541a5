//! Typed handles of the programs' maps. A handle owns a descriptor of its map, so it may be used on any
//! thread and outlive the [`Probe`](crate::kernel::probe::Probe).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{self, Map, MapData};

use crate::host::refusal::{self, chain, errno};
use crate::kernel::plain::{Cell, Plain};

/// The outcome of a map operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapAction {
    /// Making a handle.
    Open,
    /// Looking entries up.
    Read,
    /// Setting an entry.
    Write,
}

impl fmt::Display for MapAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "opening",
            Self::Read => "reading",
            Self::Write => "writing",
        })
    }
}

/// Why a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The compiled programs have no map of this name. A retry does not help.
    #[error("the object has no map {name}: this is a bug in conntrace, please report it")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// The map is not of the kind or size that the handle expects. A retry does not help.
    #[error("map {name}: {reason}: this is a bug in conntrace, please report it")]
    Mismatch {
        /// Its name.
        name: &'static str,
        /// The difference.
        reason: String,
    },
    /// The kernel refused. Depending on the error number (`ENOMEM`, `E2BIG`), a retry may help.
    #[error("{action} map {name} failed")]
    Kernel {
        /// The operation.
        action: MapAction,
        /// The map's name.
        name: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl MapError {
    /// From an error of aya.
    pub(super) fn new(name: &'static str, action: MapAction, error: &maps::MapError) -> Self {
        match errno(error) {
            Some(errno) => Self::Kernel { action, name, source: io::Error::from_raw_os_error(errno) },
            None => Self::Mismatch { name, reason: chain(error) },
        }
    }

    /// The kernel's error number, if the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        if let Self::Kernel { source, .. } = self { source.raw_os_error() } else { None }
    }

    /// The remedy, if one is known.
    pub fn remedy(&self) -> Option<&'static str> {
        refusal::without_descriptors(self.errno())
    }
}

/// A map of a certain kind, opened by name with [`Probe::map`](crate::kernel::probe::Probe::map).
pub trait Handle: Sized {
    /// Checks that the map is of this kind.
    ///
    /// # Errors
    /// The map is of another kind, or its keys or values are of another size.
    fn open(name: &'static str, map: Map) -> Result<Self, MapError>;
}

/// A second descriptor of the map `name`.
pub(super) fn open<T: Handle>(ebpf: &Ebpf, name: &'static str) -> Result<T, MapError> {
    let map = ebpf.map(name).ok_or(MapError::Missing { name })?;
    let (Map::Array(data)
    | Map::HashMap(data)
    | Map::LpmTrie(data)
    | Map::PerCpuArray(data)
    | Map::RingBuf(data)) = map
    else {
        return Err(MapError::Mismatch { name, reason: "no handle opens maps of this kind".into() });
    };
    let fd = data.fd().as_fd().try_clone_to_owned();
    let fd = fd.map_err(|source| MapError::Kernel { action: MapAction::Open, name, source })?;
    let map = MapData::from_fd(fd).and_then(Map::from_map_data);
    T::open(name, map.map_err(|error| MapError::new(name, MapAction::Open, &error))?)
}

/// An array.
pub(crate) struct Array<V: Plain> {
    name: &'static str,
    map: maps::Array<MapData, Cell<V>>,
}

impl<V: Plain> Array<V> {
    /// The value at `index`.
    ///
    /// # Errors
    /// The array is shorter, or the kernel refuses.
    pub(crate) fn get(&self, index: u32) -> Result<V, MapError> {
        let value = self.map.get(&index, 0);
        value.map(|Cell(value)| value).map_err(|error| MapError::new(self.name, MapAction::Read, &error))
    }

    /// Sets the value at `index`.
    ///
    /// # Errors
    /// The array is shorter, or the kernel refuses.
    pub(crate) fn set(&mut self, index: u32, value: V) -> Result<(), MapError> {
        let done = self.map.set(index, Cell(value), 0);
        done.map_err(|error| MapError::new(self.name, MapAction::Write, &error))
    }
}

impl<V: Plain> Handle for Array<V> {
    fn open(name: &'static str, map: Map) -> Result<Self, MapError> {
        let map = map.try_into().map_err(|error| MapError::new(name, MapAction::Open, &error))?;
        Ok(Self { name, map })
    }
}

/// An array with a value per CPU.
pub(crate) struct PerCpuArray<V: Plain> {
    name: &'static str,
    map: maps::PerCpuArray<MapData, Cell<V>>,
}

impl<V: Plain> PerCpuArray<V> {
    /// The values at `index`, of each possible CPU.
    ///
    /// # Errors
    /// The array is shorter, or the kernel refuses.
    pub(crate) fn get(&self, index: u32) -> Result<Vec<V>, MapError> {
        let values = self.map.get(&index, 0);
        let values = values.map_err(|error| MapError::new(self.name, MapAction::Read, &error))?;
        Ok(values.iter().map(|&Cell(value)| value).collect())
    }
}

impl<V: Plain> Handle for PerCpuArray<V> {
    fn open(name: &'static str, map: Map) -> Result<Self, MapError> {
        let map = map.try_into().map_err(|error| MapError::new(name, MapAction::Open, &error))?;
        Ok(Self { name, map })
    }
}

/// A hash map.
pub(crate) struct HashMap<K: Plain, V: Plain> {
    name: &'static str,
    map: maps::HashMap<MapData, Cell<K>, Cell<V>>,
}

impl<K: Plain, V: Plain> HashMap<K, V> {
    /// Sets the value of `key`.
    ///
    /// # Errors
    /// The map is full, or the kernel refuses.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<(), MapError> {
        let done = self.map.insert(Cell(key), Cell(value), 0);
        done.map_err(|error| MapError::new(self.name, MapAction::Write, &error))
    }

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn remove(&mut self, key: K) -> Result<(), MapError> {
        match self.map.remove(&Cell(key)) {
            Ok(()) | Err(maps::MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(MapError::new(self.name, MapAction::Write, &error)),
        }
    }

    /// All entries.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn entries(&self) -> Result<BTreeMap<K, V>, MapError>
    where
        K: Ord,
    {
        let entry = |(Cell(key), Cell(value))| (key, value);
        let all: Result<_, _> = self.map.iter().map(|one| one.map(entry)).collect();
        all.map_err(|error| MapError::new(self.name, MapAction::Read, &error))
    }
}

impl<K: Plain, V: Plain> Handle for HashMap<K, V> {
    fn open(name: &'static str, map: Map) -> Result<Self, MapError> {
        let map = map.try_into().map_err(|error| MapError::new(name, MapAction::Open, &error))?;
        Ok(Self { name, map })
    }
}

/// A set of address prefixes.
pub(crate) struct PrefixSet {
    name: &'static str,
    map: LpmTrie<MapData, [u8; 16], u8>,
}

impl PrefixSet {
    /// Adds the addresses that share the first `bits` bits with `address` (network byte order).
    ///
    /// # Errors
    /// The map is full, or the kernel refuses.
    pub(crate) fn insert(&mut self, address: [u8; 16], bits: u32) -> Result<(), MapError> {
        let done = self.map.insert(&Key::new(bits, address), 1, 0);
        done.map_err(|error| MapError::new(self.name, MapAction::Write, &error))
    }
}

impl Handle for PrefixSet {
    fn open(name: &'static str, map: Map) -> Result<Self, MapError> {
        let map = map.try_into().map_err(|error| MapError::new(name, MapAction::Open, &error))?;
        Ok(Self { name, map })
    }
}

/// A handle prints as the name of its map: aya's maps have no `Debug`.
macro_rules! debug {
    ($($handle:ident $(<$($value:ident),+>)?)+) => {$(
        impl$(<$($value: Plain),+>)? fmt::Debug for $handle$(<$($value),+>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($handle)).field(&self.name).finish()
            }
        }
    )+};
}

debug! { Array<V> PerCpuArray<V> HashMap<K, V> PrefixSet }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_map_is_a_bug() {
        let text = MapError::Missing { name: "LEDGER" }.to_string();
        assert_eq!(text, "the object has no map LEDGER: this is a bug in conntrace, please report it");
    }

    #[test]
    fn map_error_keeps_errno() {
        let refused = maps::MapError::SyscallError(aya::sys::SyscallError {
            call: "bpf_map_lookup_elem",
            io_error: io::Error::from_raw_os_error(nix::libc::ENOMEM),
        });
        let error = MapError::new("LEDGER", MapAction::Read, &refused);
        assert_eq!(error.errno(), Some(nix::libc::ENOMEM));
        assert_eq!(chain(&error), "reading map LEDGER failed: Cannot allocate memory (os error 12)");
        let error = MapError::new(
            "LEDGER",
            MapAction::Open,
            &maps::MapError::InvalidKeySize { size: 8, expected: 4 },
        );
        assert_eq!(error.errno(), None);
    }
}
