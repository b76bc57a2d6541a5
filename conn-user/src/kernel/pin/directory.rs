//! The directory of one epoch: `maps`, `progs`, `links`, and a record of what they are.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use conn_common::pin::PinRecord;

use crate::kernel::pin::error::{PinError, Unfit};
use crate::kernel::pin::meta::{self, Meta};
use crate::kernel::pin::root::is_trusted;
use crate::kernel::syscall;

/// How many directories may hold what conntrace did not make, before it pins nothing.
const RETIRED: usize = 8;

/// What is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An attachment of a program.
    Link,
    /// A program.
    Program,
    /// A map.
    Map,
}

impl Kind {
    /// In the order of removal: a program runs as long as its link is there, and keeps its maps.
    pub(super) const ALL: [Self; 3] = [Self::Link, Self::Program, Self::Map];

    /// The directory of its pins.
    const fn name(self) -> &'static str {
        match self {
            Self::Link => "links",
            Self::Program => "progs",
            Self::Map => "maps",
        }
    }

    /// The kind of an open object: the kernel describes each by the kind that it has, not by the one that is asked for.
    fn of(object: &OwnedFd) -> Option<Self> {
        let name = fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd())).ok()?;
        match name.to_str()? {
            // Where the link was made, and where a pin was opened (`bpf_link_prime()`, `bpf_link_new_fd()`).
            "anon_inode:bpf_link" | "anon_inode:bpf-link" => Some(Self::Link),
            "anon_inode:bpf-prog" => Some(Self::Program),
            "anon_inode:bpf-map" => Some(Self::Map),
            _ => None,
        }
    }
}

/// The directory of one epoch. It may not exist.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    /// Its name: the hash of the layout in hexadecimal digits, with `_old` if it is to be removed.
    pub name: String,
    path: PathBuf,
    /// Its path for people.
    pub shown: PathBuf,
}

/// The pins that were removed, and what was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Links, and so hooks that count no more.
    pub links: usize,
    /// Programs.
    pub programs: usize,
    /// Maps.
    pub maps: usize,
    /// What conntrace did not make.
    pub left: Vec<PathBuf>,
}

impl Removed {
    /// Adds what was removed elsewhere.
    pub(super) fn add(&mut self, other: Self) {
        self.links += other.links;
        self.programs += other.programs;
        self.maps += other.maps;
        self.left.extend(other.left);
    }
}

impl Directory {
    /// Below the directory of all pins.
    pub(super) fn new(root: &Path, shown: &Path, name: &str) -> Self {
        Self { name: name.into(), path: root.join(name), shown: shown.join(name) }
    }

    /// True if there is something of this name.
    pub(super) fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// The path of what is beside the directories of pins, through an open descriptor.
    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of a pin, through an open descriptor.
    pub(super) fn pin(&self, kind: Kind, name: &str) -> PathBuf {
        self.path.join(kind.name()).join(name)
    }

    /// The path of a pin for people.
    pub(super) fn shown_pin(&self, kind: Kind, name: &str) -> PathBuf {
        self.shown.join(kind.name()).join(name)
    }

    /// Makes the directory with its record, the record first: without it, an interrupted start would not be known as ours.
    pub(super) fn create(&self, record: &PinRecord) -> Result<Meta, PinError> {
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        make(&self.path).map_err(PinError::io(format!("making {}", self.shown.display())))?;
        let meta = Meta::create(&self.path.join(meta::NAME), record)?;
        for kind in Kind::ALL {
            let what = format!("making {}", self.shown.join(kind.name()).display());
            make(&self.path.join(kind.name())).map_err(PinError::io(what))?;
        }
        Ok(meta)
    }

    /// The record, if it can be read.
    pub(super) fn meta(&self) -> Result<Meta, String> {
        let path = self.path.join(meta::NAME);
        self.check_owner(&path)?;
        open(&path, &self.shown.join(meta::NAME), Kind::Map).map_err(|error| error.to_string())?;
        Meta::open(&path)
    }

    /// True if conntrace made the directory: it has a record, of whatever version, or nothing at all.
    pub(super) fn is_ours(&self) -> bool {
        let path = self.path.join(meta::NAME);
        let marked = open(&path, &path, Kind::Map).is_ok()
            && MapInfo::from_pin(&path).is_ok_and(|info| info.name() == meta::MAP.as_bytes());
        marked || fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Fails with the remedy if another user owns the directory or one of its parts.
    pub(super) fn check_owners(&self) -> Result<(), String> {
        let parts = Kind::ALL.map(|kind| self.path.join(kind.name()));
        [self.path.clone()].iter().chain(&parts).try_for_each(|path| self.check_owner(path))
    }

    /// Fails if another user owns this path below the directory, or if it is a link.
    pub(super) fn check_owner(&self, path: &Path) -> Result<(), String> {
        let shown = || self.shown.join(path.strip_prefix(&self.path).unwrap_or(path));
        let facts = path.symlink_metadata().map_err(|error| format!("{}: {error}", shown().display()))?;
        if facts.is_symlink() {
            return Err(Unfit::NoDirectory { path: shown() }.to_string());
        }
        if is_trusted(facts.uid()) {
            Ok(())
        } else {
            Err(Unfit::Owner { path: shown(), uid: facts.uid() }.to_string())
        }
    }

    /// Opens the pin of this kind and name.
    pub(super) fn open_pin(&self, kind: Kind, name: &str) -> io::Result<OwnedFd> {
        open(&self.pin(kind, name), &self.shown_pin(kind, name), kind)
    }

    /// The names of all pins of a kind.
    pub(super) fn pins(&self, kind: Kind) -> Vec<String> {
        let entries = fs::read_dir(self.path.join(kind.name())).into_iter().flatten();
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Puts one pin in the place of another.
    pub(super) fn rename_pin(&self, kind: Kind, from: &str, to: &str) -> Result<(), PinError> {
        let what = format!("renaming {}", self.shown_pin(kind, from).display());
        fs::rename(self.pin(kind, from), self.pin(kind, to)).map_err(PinError::io(what))
    }

    /// Removes a pin, if it is there.
    pub(super) fn remove_pin(&self, kind: Kind, name: &str) {
        // A pin that stays makes the next one of the same name fail.
        let _ = fs::remove_file(self.pin(kind, name));
    }

    /// Gives the directory the name of one that is to be removed.
    pub(super) fn retire(&self) -> Result<(), PinError> {
        if !self.is_ours() {
            return Err(Unfit::Foreign { path: self.shown.clone() }.into());
        }
        for number in 0..RETIRED {
            let mut old = self.clone();
            let name = if number == 0 { "_old".into() } else { format!("_old{number}") };
            old.path.set_file_name(format!("{}{name}", self.name));
            old.shown.set_file_name(format!("{}{name}", self.name));
            // It stays if it holds what conntrace did not make.
            if old.exists() {
                old.remove();
            }
            if !old.exists() {
                return fs::rename(&self.path, &old.path)
                    .map_err(PinError::io(format!("renaming {}", self.shown.display())));
            }
        }
        Err(Unfit::Foreign { path: self.shown.clone() }.into())
    }

    /// Removes links, then programs, then maps, then the record. What is not a pin of conntrace stays, and is named.
    pub(super) fn remove(&self) -> Removed {
        let mut removed = Removed::default();
        if !self.is_ours() {
            removed.left.push(self.shown.clone());
            return removed;
        }
        for kind in Kind::ALL {
            for name in self.pins(kind) {
                let is_removed =
                    self.open_pin(kind, &name).is_ok() && fs::remove_file(self.pin(kind, &name)).is_ok();
                match kind {
                    _ if !is_removed => removed.left.push(self.shown_pin(kind, &name)),
                    Kind::Link => removed.links += 1,
                    Kind::Program => removed.programs += 1,
                    Kind::Map => removed.maps += 1,
                }
            }
            // It is left if something is left in it.
            let _ = fs::remove_dir(self.path.join(kind.name()));
        }
        if removed.left.is_empty() {
            let _ = fs::remove_file(self.path.join(meta::NAME));
            if fs::remove_dir(&self.path).is_err() && self.exists() {
                removed.left.push(self.shown.clone());
            }
        }
        removed
    }
}

/// Opens a pin that has to be of this kind.
fn open(path: &Path, shown: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let object = syscall::open_pin(&name)?;
    if Kind::of(&object) == Some(kind) {
        Ok(object)
    } else {
        let text = format!("{} is of another kind", shown.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}
