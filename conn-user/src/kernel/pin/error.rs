//! Why pins cannot be used.

use std::error::Error;
use std::io;
use std::path::PathBuf;

/// The daemon, or the removal of pins, ends.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Another process uses the pins.
    #[error("another conntrace serve uses the pins below {}", path.display())]
    InUse {
        /// Their directory.
        path: PathBuf,
    },
    /// The directory of the pins cannot be used.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The kernel, or the file system, refuses.
    #[error("{what} failed")]
    Io {
        /// What was done.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The compiled programs cannot be read. A retry does not help.
    #[error("the compiled programs cannot be read: {reason}: this is a bug in conntrace, please report it")]
    Object {
        /// Why.
        reason: String,
    },
}

impl PinError {
    /// For `map_err`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The same for an error of aya.
    pub(in crate::kernel) fn other(what: &str, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Io { what: what.into(), source: io::Error::other(error) }
    }

    /// The remedy, if one is known.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => {
                Some("stop it first (systemctl stop conntrace), or give this one another --bpffs")
            }
            _ => None,
        }
    }
}

/// Why a directory cannot hold pins. The text has the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It cannot be opened.
    #[error("{} cannot be opened ({source})", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is on no bpf file system, and none can be mounted there.
    #[error("{path} is on no bpf file system, and conntrace mounts none there ({reason}): mount -t bpf bpf {path}", path = path.display())]
    NotBpf {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file system is read-only.
    #[error("{path} is read-only: mount -o remount,rw {path}, or leave it out of ProtectKernelTunables= and ReadOnlyPaths=", path = path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// A symbolic link, or no directory.
    #[error("{} is a symbolic link or no directory: conntrace follows no link there", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// Another user owns it.
    #[error("{} belongs to user {uid}, not to root: chown or remove it, or give another --bpffs", path.display())]
    Owner {
        /// The directory or pin.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Other users may write to it.
    #[error("{path} has mode {mode:04o}, so that other users reach it: chmod {wanted:04o} {path}", path = path.display())]
    Mode {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// The widest permissions that are safe.
        wanted: u32,
    },
    /// It holds what conntrace did not make.
    #[error("{} was not made by conntrace: remove it, or give another --bpffs", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The run has more than counts.
    #[error("only runs that count connections are pinned")]
    Options,
}

/// Why the pins of an epoch cannot be gone on with. The text completes "the counts begin anew: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    /// The start that made them did not finish.
    #[error("the start that made the pins did not finish")]
    Incomplete,
    /// The record is missing or of another version.
    #[error("their record cannot be read ({0})")]
    Record(String),
    /// A pin is missing.
    #[error("{0} is missing")]
    Missing(String),
    /// A pin is of another kind, shape or owner.
    #[error("{0}")]
    Mismatch(String),
    /// A hook runs another program, or none.
    #[error("hook {hook}: {reason}")]
    Hook {
        /// The name of its program.
        hook: &'static str,
        /// What is wrong.
        reason: String,
    },
}
