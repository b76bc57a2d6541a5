//! The record of an epoch, in a map of its own: it lives exactly as long as the counts.

use std::path::Path;

use aya::maps::{Map, MapData};
use conn_common::pin::{MAGIC, PinRecord, VERSION};

use crate::host::refusal::chain;
use crate::kernel::epoch::{BootId, Epoch};
use crate::kernel::map::{Array, Handle as _};
use crate::kernel::pin::error::PinError;
use crate::kernel::syscall;

/// The name of the pin.
pub(super) const NAME: &str = "meta";
/// The name of the map in the kernel, by which conntrace knows its directories.
pub(super) const MAP: &str = "conntrace_meta";

/// The map of the record. One process writes it, which has the lock.
#[derive(Debug)]
pub(super) struct Meta {
    map: Array<PinRecord>,
    /// The content of the map.
    pub record: PinRecord,
}

impl Meta {
    /// Makes and pins the map.
    pub(super) fn create(path: &Path, record: &PinRecord) -> Result<Self, PinError> {
        let fd = syscall::create_array(MAP, size_of::<PinRecord>() as u32, 0)
            .map_err(PinError::io("making the map of the record"))?;
        let data = MapData::from_fd(fd).map_err(|error| PinError::other("opening the record", error))?;
        data.pin(path).map_err(|error| PinError::other("pinning the record", error))?;
        let mut meta =
            Self::new(data, record).map_err(|error| PinError::other("opening the record", error))?;
        meta.write()?;
        Ok(meta)
    }

    /// Opens the map and reads it. The error is for people.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let data = MapData::from_pin(path).map_err(|error| chain(&error))?;
        let mut meta = Self::new(data, &PinRecord::EMPTY)?;
        meta.record = meta.map.get(0).map_err(|error| chain(&error))?;
        if meta.record.magic != MAGIC {
            return Err("it has no mark of conntrace".into());
        }
        if meta.record.version != VERSION {
            return Err(format!("version {}", meta.record.version));
        }
        Ok(meta)
    }

    fn new(data: MapData, record: &PinRecord) -> Result<Self, String> {
        let map = Map::from_map_data(data).map_err(|error| chain(&error))?;
        Ok(Self { map: Array::open(MAP, map).map_err(|error| chain(&error))?, record: *record })
    }

    /// Writes the record.
    pub(super) fn write(&mut self) -> Result<(), PinError> {
        let written = self.map.set(0, self.record);
        written.map_err(|error| PinError::other("writing the record", error))
    }

    /// Notes when counting begins.
    pub(super) const fn set_epoch(&mut self, epoch: Epoch) {
        self.record.boot_id = epoch.boot_id.0;
        self.record.began_unix_ns = epoch.unix_ns;
        self.record.began_boot_ns = epoch.boot_ns;
    }
}

/// When the counts of a record began.
pub(super) const fn epoch(record: &PinRecord) -> Epoch {
    Epoch { boot_id: BootId(record.boot_id), unix_ns: record.began_unix_ns, boot_ns: record.began_boot_ns }
}

/// The version of conntrace as a record has it.
pub(super) fn version() -> [u8; 32] {
    let mut text = [0; 32];
    for (room, byte) in text.iter_mut().zip(env!("CARGO_PKG_VERSION").bytes()) {
        *room = byte;
    }
    text
}

/// The version of a record as text.
pub(super) fn version_text(record: &PinRecord) -> String {
    text(&record.program)
}

/// The text in front of zeroes.
pub(super) fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_reads_back() {
        let record = PinRecord { program: version(), ..PinRecord::EMPTY };
        assert_eq!(version_text(&record), env!("CARGO_PKG_VERSION"));
        assert_eq!(version_text(&PinRecord::EMPTY), "");
    }

    #[test]
    fn name_of_the_map_fits_into_the_kernels_names() {
        assert!(MAP.len() <= 15);
    }
}
