//! The pins of a running process: what it notes in their record, and what may happen to them meanwhile.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use conn_common::name;
use conn_common::pin::EpochSums;

use crate::kernel::pin::check;
use crate::kernel::pin::directory::{Directory, Kind};
use crate::kernel::pin::earlier::{self, Earlier};
use crate::kernel::pin::error::PinError;
use crate::kernel::pin::meta::{self, Meta};
use crate::kernel::pin::root::LockedRoot;

/// The pins of a running process, and the lock on them.
#[derive(Debug)]
pub struct Pinned {
    root: LockedRoot,
    directory: Directory,
    meta: Mutex<Meta>,
    /// The pins at the start.
    pins: Vec<(Kind, String)>,
}

/// What happened to the pins of a running process. The text has the remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Harm {
    /// Their file system was unmounted, or another one is above it.
    #[error("{} is no longer the directory of the pins, since a file system was mounted or unmounted there: the counts go on, and end with this daemon; a restart begins a new epoch", path.display())]
    OutOfReach {
        /// Their directory.
        path: PathBuf,
    },
    /// Their file system is read-only now.
    #[error("{path} has become read-only: the counts go on, but the next daemon can pin nothing: mount -o remount,rw its file system", path = path.display())]
    ReadOnly {
        /// Their directory.
        path: PathBuf,
    },
    /// A pin was removed.
    #[error("{} was removed: the counts go on, and end with this daemon; a restart begins a new epoch", path.display())]
    Removed {
        /// The pin.
        path: PathBuf,
    },
    /// A hook was detached from its cgroup (`BPF_LINK_DETACH`).
    #[error(
        "hook {hook} was detached from the root of the cgroup v2 hierarchy, so connections may be missed from now on: restart the daemon, which begins a new epoch"
    )]
    Detached {
        /// The name of its program.
        hook: &'static str,
    },
}

impl Pinned {
    /// The pins as they are now.
    pub(super) fn new(root: LockedRoot, directory: Directory, meta: Meta) -> Self {
        let of = |kind| directory.pins(kind).into_iter().map(move |name| (kind, name));
        let pins = Kind::ALL.into_iter().flat_map(of).collect();
        Self { root, directory, meta: Mutex::new(meta), pins }
    }

    /// No code panics while it holds this lock.
    fn meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the sums of the counts, for a later epoch.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn note(&self, sums: EpochSums) -> Result<(), PinError> {
        let mut meta = self.meta();
        meta.record.sums = sums;
        meta.write()
    }

    /// The epochs of this boot before this one, the oldest first, and how many before these are forgotten.
    pub fn earlier(&self) -> (Vec<Earlier>, u64) {
        let meta = self.meta();
        (earlier::of(&meta.record), meta.record.forgotten)
    }

    /// What happened to the pins.
    pub fn harm(&self) -> Vec<Harm> {
        let mut harm = Vec::new();
        if !self.root.is_in_place() {
            harm.push(Harm::OutOfReach { path: self.root.shown().to_owned() });
        }
        if self.root.is_read_only() {
            harm.push(Harm::ReadOnly { path: self.root.shown().to_owned() });
        }
        let is_gone = |path: &PathBuf| fs::symlink_metadata(path).is_err();
        if is_gone(&self.directory.own(meta::NAME)) {
            harm.push(Harm::Removed { path: self.directory.shown.join(meta::NAME) });
        }
        let removed = self.pins.iter().filter(|(kind, name)| is_gone(&self.directory.pin(*kind, name)));
        // All pins of a directory that is gone are one piece of news.
        if let Some((kind, name)) = removed.clone().next() {
            harm.push(Harm::Removed { path: self.directory.shown_pin(*kind, name) });
        }
        let link = self.directory.open_pin(Kind::Link, name::SOCK_OPS);
        if link.is_ok_and(|link| check::attached_cgroup(&link).is_ok_and(|id| id == Some(0))) {
            harm.push(Harm::Detached { hook: name::SOCK_OPS });
        }
        harm
    }
}
