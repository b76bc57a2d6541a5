//! Counts that survive: programs, links and maps that are pinned go on while no process is there, and the next one goes on
//! with them.
//!
//! aya opens a pin without a look at it, so `check` compares everything before. A record beside the pins says what they
//! are (`meta`), and a hash over all that shapes them names their directory.

mod check;
mod directory;
mod earlier;
pub mod error;
mod found;
mod meta;
mod pinned;
mod progress;
mod replace;
mod root;
mod start;
mod streams;

use std::path::{Path, PathBuf};

use crate::host::facts::Host;
use crate::kernel::epoch::Epoch;
use crate::kernel::load_options::Options;
use crate::kernel::pin::error::{PinError, Unfit};
use crate::kernel::pin::root::{LockedRoot, Root};
use crate::kernel::pin::start::Started;
use crate::kernel::session::{Session, StartError, start_by_plans};

pub use directory::Removed;
pub use earlier::Earlier;
pub use found::{Found, found};
pub use pinned::{Harm, Pinned};
pub(crate) use progress::{Left, Mark, Progress, RingPosition, Standing};
pub(crate) use streams::Streams;

/// Where the bpf file system is, unless an option says otherwise.
pub const DEFAULT_ROOT: &str = "/sys/fs/bpf";

/// Whether and where to pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinSettings {
    /// The mount point of a bpf file system, or an empty directory on which one is mounted.
    pub root: PathBuf,
    /// Nothing is pinned.
    pub transient: bool,
}

/// How a service came to its programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Counting began anew. `why` is the reason if there were pins.
    New {
        /// Why the pins that were there are not gone on with.
        why: Option<String>,
    },
    /// The programs of an earlier process go on.
    TakenOver,
    /// Programs of this build have taken the place of others, on the same maps.
    Replaced,
    /// Nothing is pinned, as the settings say: the counts end with the process.
    Transient,
    /// Nothing can be pinned: the counts end with the process.
    Unpinned {
        /// Why.
        why: String,
    },
}

/// Programs that count, pinned or not.
#[derive(Debug)]
pub struct Service {
    /// The programs and maps.
    pub session: Session,
    /// When counting began.
    pub epoch: Epoch,
    /// How the service came to them.
    pub how: Opened,
    /// The pins, and the lock that keeps other processes away; none if nothing is pinned.
    pub pinned: Option<Pinned>,
}

/// Starts on pins, or without if there can be none: then [`Opened::Unpinned`] has the reason.
///
/// # Errors
/// What this host lacks or refuses; another process uses the pins.
pub fn open(host: &Host, options: &Options, pins: &PinSettings) -> Result<Service, StartError> {
    if pins.transient {
        let session = Session::start(host, options)?;
        return Ok(Service { epoch: session.epoch, session, how: Opened::Transient, pinned: None });
    }
    let root = match lock(options, pins) {
        Ok(root) => root,
        Err(error @ PinError::InUse { .. }) => return Err(error.into()),
        Err(error) => return unpinned(host, options, &error),
    };
    match start_by_plans(host, options, |plan| start::start(&root, plan, options)) {
        Ok(Started { session, how, directory, meta }) => {
            let epoch = session.epoch;
            let pinned = Some(Pinned::new(root, directory, meta));
            Ok(Service { session, epoch, how, pinned })
        }
        Err(StartError::Pin(error)) => unpinned(host, options, &error),
        Err(error) => Err(error),
    }
}

fn lock(options: &Options, pins: &PinSettings) -> Result<LockedRoot, PinError> {
    if !options.may_be_pinned() {
        return Err(Unfit::Options.into());
    }
    LockedRoot::make(&pins.root)
}

fn unpinned(host: &Host, options: &Options, error: &PinError) -> Result<Service, StartError> {
    let session = Session::start(host, options)?;
    let epoch = session.epoch;
    let why = crate::host::refusal::chain(error);
    Ok(Service { session, epoch, how: Opened::Unpinned { why }, pinned: None })
}

/// Takes all pins below a mount point away, those of streams included: links first, then programs, then maps. Counting ends.
///
/// # Errors
/// Another process uses the pins, or another user owns their directory.
pub fn detach(point: &Path) -> Result<Removed, PinError> {
    let mut removed = detach_counts(point)?;
    if let Some(streams) = Streams::existing(point)? {
        removed.add(streams.remove_all()?);
    }
    Ok(removed)
}

/// Takes the pins of the counts, or of one stream, away.
fn detach_counts(point: &Path) -> Result<Removed, PinError> {
    let Some(root) = Root::existing(point, root::NAME)? else { return Ok(Removed::default()) };
    let root = root.lock()?;
    let mut removed = Removed::default();
    let directories = root.directories().map_err(PinError::io("reading the directory of pins"))?;
    if root.is_read_only() && !directories.is_empty() {
        return Err(Unfit::ReadOnly { path: point.into() }.into());
    }
    for directory in directories {
        removed.add(directory.remove());
    }
    root.remove();
    Ok(removed)
}
