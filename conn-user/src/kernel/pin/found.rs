//! What is pinned, for people.

use std::path::{Path, PathBuf};

use crate::kernel::epoch::Epoch;
use crate::kernel::pin::directory::Kind;
use crate::kernel::pin::error::Unfit;
use crate::kernel::pin::meta;
use crate::kernel::pin::root::{self, Root};
use crate::kernel::pin::streams::Streams;

/// The pins of one epoch, or of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Their directory.
    pub directory: PathBuf,
    /// The version of conntrace that made the programs, or why their record cannot be read.
    pub version: Result<String, String>,
    /// When counting began; none if the record cannot be read, or the start did not finish.
    pub epoch: Option<Epoch>,
    /// The hooks that are attached.
    pub hooks: Vec<String>,
    /// How many maps are pinned.
    pub maps: usize,
    /// A process has the pins in use.
    pub is_in_use: bool,
}

/// All pins below a mount point. Changes nothing.
///
/// # Errors
/// Another user owns the directory.
pub fn found(point: &Path) -> Result<Vec<Found>, Unfit> {
    let mut found = of_counts(point)?;
    if let Some(streams) = Streams::existing(point)? {
        found.extend(streams.found());
    }
    Ok(found)
}

/// The pins of the counts, or of one stream.
pub(super) fn of_counts(point: &Path) -> Result<Vec<Found>, Unfit> {
    let Some(root) = Root::existing(point, root::NAME)? else { return Ok(vec![]) };
    let is_in_use = root.is_in_use();
    let directories =
        root.directories().map_err(|source| Unfit::Unreadable { path: point.into(), source })?;
    Ok(directories
        .into_iter()
        .map(|directory| {
            let meta = directory.meta();
            let record = meta.as_ref().ok().map(|meta| &meta.record);
            Found {
                epoch: record.filter(|record| record.complete != 0).map(meta::epoch),
                version: meta.as_ref().map(|meta| meta::version_text(&meta.record)).map_err(Clone::clone),
                hooks: directory.pins(Kind::Link),
                maps: directory.pins(Kind::Map).len(),
                directory: directory.shown,
                is_in_use,
            }
        })
        .collect())
}
