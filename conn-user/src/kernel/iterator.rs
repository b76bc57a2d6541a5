//! Walks with the kernel's iterators: over the sockets of a network namespace, each under its lock, and over
//! the files of all tasks. An iterator owns its link, so it may be walked on any thread and several times at once.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Mutex;

use conn_common::name;
use conn_common::row::{HolderRow, NamespaceRow, SocketRow};
use nix::libc;

use crate::event::decode::{self, DecodeError};
use crate::filter::protocols::Protocols;
use crate::host::namespace::{self, EnterError, Namespace};
use crate::host::refusal;
use crate::kernel::map::MapError;
use crate::kernel::probe::{Probe, ProbeError};
use crate::kernel::syscall;
use crate::kernel::thread_pool::{self, locked};

/// Why a walk failed.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The iterator could not be loaded or linked.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A map that notes walked namespaces could not be written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The kernel refused to open or to read a walk. A retry helps if the reason was a lack of memory
    /// (`ENOMEM`) or of descriptors (`EMFILE`, `ENFILE`).
    #[error("conntrace cannot walk {what}")]
    Read {
        /// The objects of the walk.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A network namespace could not be entered for lack of memory or descriptors. A retry may help.
    #[error("entering network namespace {inode}")]
    Enter {
        /// The inode number of the namespace.
        inode: u32,
        /// The system's answer.
        source: io::Error,
    },
    /// The iterator wrote something that is no row. A retry does not help.
    #[error("a row of the {rows} cannot be read: {source}: this is a bug in conntrace, please report it")]
    Row {
        /// The subject of a row.
        rows: &'static str,
        /// The mistake in the row.
        source: DecodeError,
    },
}

impl WalkError {
    /// The remedy, if one is known.
    pub fn remedy(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Probe(error) => error.remedy(),
            Self::Read { source, .. } | Self::Enter { source, .. } => {
                refusal::without_descriptors(source.raw_os_error()).map(Cow::from)
            }
            Self::Map(error) => error.remedy().map(Cow::from),
            Self::Row { .. } => None,
        }
    }
}

/// The result of walks in several namespaces, by inode number.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// The namespaces that were walked, or have no sockets.
    pub done: BTreeSet<u32>,
    /// The namespaces that could not be entered, and why.
    pub refused: Vec<(u32, io::Error)>,
    /// The namespaces to which no way leads any more.
    pub gone: Vec<u32>,
}

impl Walked {
    /// Adds the result of more walks.
    pub(crate) fn add(&mut self, other: Self) {
        self.done.extend(other.done);
        self.refused.extend(other.refused);
        self.gone.extend(other.gone);
    }

    /// Warns of the namespaces that could not be entered: `consequence` is the rest of the sentence.
    pub(crate) fn warn(&self, consequence: &str) {
        for (inode, error) in &self.refused {
            log::warn!("conntrace cannot enter network namespace {inode} ({error}): {consequence}");
        }
    }
}

/// What became of one namespace.
enum Outcome {
    Done,
    Refused(io::Error),
    Gone,
}

/// The kernel's page for one read of an iterator (`PAGE_SIZE << 3`, `bpf_seq_read()`). A read that has
/// room for a page never ends in the middle of a row.
const PAGE: usize = 8 * 4096;

/// Decodes one row.
type Decode<R> = fn(&[u8]) -> Result<R, DecodeError>;

/// A loaded iterator whose rows are `R`.
#[derive(Debug)]
pub(crate) struct RowIterator<R> {
    rows: &'static str,
    link: OwnedFd,
    decode: Decode<R>,
    /// The protocol of the sockets, by whose counters an empty namespace is known.
    protocol: Protocols,
}

/// Visits the sockets of a protocol that the probe's filters let through.
pub(crate) type SocketIterator = RowIterator<SocketRow>;
/// Visits the network namespaces that open files keep.
pub(crate) type NamespaceIterator = RowIterator<NamespaceRow>;
/// Visits the processes that have a socket open.
pub(crate) type HolderIterator = RowIterator<HolderRow>;
/// Makes the programs remember every socket, and writes no rows.
pub(crate) type AdoptIterator = RowIterator<()>;

/// The program that finds namespaces by files, and by sockets of these protocols.
pub(crate) fn namespace_program(protocols: Protocols) -> &'static str {
    if protocols == Protocols::TCP { name::NAMESPACE_LIST } else { name::SOCKET_NAMESPACE_LIST }
}

/// The program that finds the processes with sockets of these protocols.
pub(crate) fn holder_program(protocols: Protocols) -> &'static str {
    if protocols == Protocols::TCP { name::FILE_LIST } else { name::SOCKET_FILE_LIST }
}

impl SocketIterator {
    /// Loads the iterator, if it is not loaded yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn new(probe: &Probe) -> Result<Self, ProbeError> {
        Self::load(probe, name::TCP_LIST, "sockets", decode::socket_row)
    }

    /// The iterator over UDP sockets.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn udp(probe: &Probe) -> Result<Self, ProbeError> {
        let sockets = Self::load(probe, name::UDP_LIST, "sockets", decode::socket_row)?;
        Ok(Self { protocol: Protocols::UDP, ..sockets })
    }

    /// The iterator over the sockets that are in another namespace than the task that has them open.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn foreign(probe: &Probe) -> Result<Self, ProbeError> {
        Self::load(probe, name::FOREIGN_LIST, "sockets", decode::socket_row)
    }

    /// The same for UDP sockets.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn foreign_udp(probe: &Probe) -> Result<Self, ProbeError> {
        Self::load(probe, name::UDP_FOREIGN_LIST, "sockets", decode::socket_row)
    }
}

impl NamespaceIterator {
    /// Loads the iterator, if it is not loaded yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn new(probe: &Probe) -> Result<Self, ProbeError> {
        let program = namespace_program(probe.protocols());
        Self::load(probe, program, "namespaces", decode::namespace_row)
    }

    /// The same for an iterator that also notes the owner of each open socket.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn with_owners(probe: &Probe) -> Result<Self, ProbeError> {
        Self::load(probe, name::FILE_CLAIM, "namespaces", decode::namespace_row)
    }
}

impl HolderIterator {
    /// Loads the iterator, if it is not loaded yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn new(probe: &Probe) -> Result<Self, ProbeError> {
        Self::load(probe, holder_program(probe.protocols()), "files", decode::holder_row)
    }
}

impl AdoptIterator {
    /// Loads the iterator, if it is not loaded yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn new(probe: &Probe) -> Result<Self, ProbeError> {
        Self::load(probe, name::TCP_ADOPT, "sockets", |_| Ok(()))
    }

    /// The same for the iterator that notes the owners of UDP sockets.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn of_flow_owners(probe: &Probe) -> Result<Self, ProbeError> {
        Self::load(probe, name::FLOW_CLAIM, "files", |_| Ok(()))
    }
}

impl<R> RowIterator<R> {
    fn load(
        probe: &Probe,
        name: &'static str,
        rows: &'static str,
        decode: Decode<R>,
    ) -> Result<Self, ProbeError> {
        let protocol = Protocols::TCP;
        Ok(Self { rows, link: probe.link_iterator(name)?, decode, protocol })
    }

    /// Visits each row of one walk. A walk over sockets covers the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel refuses, or writes what is no row.
    pub(crate) fn each(&self, mut each: impl FnMut(R)) -> Result<(), WalkError> {
        self.walk(&mut each, || format!("the {} of this host", self.rows))
    }

    /// Visits each row of a walk in each of the namespaces, several at a time. A namespace that `may_skip` by its inode
    /// number is not walked if the kernel counts no socket there.
    ///
    /// # Errors
    /// The kernel refuses to walk, lacks memory or descriptors, or writes what is no row.
    pub(crate) fn each_in(
        &self,
        namespaces: &[Namespace],
        may_skip: impl Fn(u32) -> bool + Sync,
        each: impl FnMut(R) + Send,
    ) -> Result<Walked, WalkError> {
        let each = Mutex::new(each);
        visit(namespaces, |inode| {
            // One kernel table holds the sockets of all namespaces, and each walk covers all of it.
            if may_skip(inode) && !self.may_have_sockets() {
                return Ok(());
            }
            self.walk(|row| locked(&each)(row), || format!("the sockets of network namespace {inode}"))
        })
    }

    /// Whether the network namespace of this thread may have sockets to visit.
    fn may_have_sockets(&self) -> bool {
        if self.protocol == Protocols::UDP {
            namespace::may_have_udp_sockets()
        } else {
            namespace::may_have_sockets()
        }
    }

    fn walk(&self, mut each: impl FnMut(R), what: impl Fn() -> String) -> Result<(), WalkError> {
        let failed = |source| WalkError::Read { what: what(), source };
        let mut file = File::from(syscall::open_iterator(self.link.as_fd()).map_err(failed)?);
        let mut page = vec![0; PAGE];
        loop {
            match file.read(&mut page) {
                Ok(0) => return Ok(()),
                Ok(length) => self.rows(&page[..length], &mut each)?,
                // A read ends after a million objects without a row (MAX_ITER_OBJECTS, kernel/bpf/bpf_iter.c).
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn rows(&self, page: &[u8], each: &mut impl FnMut(R)) -> Result<(), WalkError> {
        // A type without a size has no rows.
        for row in page.chunks(size_of::<R>().max(1)) {
            each((self.decode)(row).map_err(|source| WalkError::Row { rows: self.rows, source })?);
        }
        Ok(())
    }
}

/// Calls `inside` in each of the namespaces, with its inode number, several at a time.
///
/// # Errors
/// An error of `inside`, or a lack of memory or descriptors.
pub(super) fn visit(
    namespaces: &[Namespace],
    inside: impl Fn(u32) -> Result<(), WalkError> + Sync,
) -> Result<Walked, WalkError> {
    let outcomes = thread_pool::each(namespaces.iter(), |namespace| {
        let inode = namespace.inode;
        let outcome = match namespace.enter() {
            Ok(()) => {
                inside(inode)?;
                Outcome::Done
            }
            Err(EnterError::Gone) => Outcome::Gone,
            Err(EnterError::Refused(source)) if is_shortage(&source) => {
                return Err(WalkError::Enter { inode, source });
            }
            Err(EnterError::Refused(error)) => Outcome::Refused(error),
        };
        Ok((inode, outcome))
    })?;
    let mut walked = Walked::default();
    for (inode, outcome) in outcomes {
        match outcome {
            Outcome::Done => _ = walked.done.insert(inode),
            Outcome::Refused(error) => walked.refused.push((inode, error)),
            Outcome::Gone => walked.gone.push(inode),
        }
    }
    Ok(walked)
}

/// True if the system lacks descriptors or memory for now.
fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::refusal::chain;

    #[test]
    fn lack_of_descriptors_has_a_remedy() {
        let of = |errno| WalkError::Read {
            what: "the files of this host".into(),
            source: io::Error::from_raw_os_error(errno),
        };
        assert_eq!(
            chain(&of(libc::EMFILE)),
            "conntrace cannot walk the files of this host: Too many open files (os error 24)"
        );
        assert!(of(libc::EMFILE).remedy().is_some_and(|remedy| remedy.contains("ulimit -n")));
        assert_eq!(of(libc::ENOMEM).remedy(), None);
    }
}
