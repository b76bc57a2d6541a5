//! The kernel programs: loading, switching on, and typed handles of their maps, iterators and counts.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once};
use std::thread::{self, ScopedJoinHandle};

use aya::programs::links::FdLink;
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use conn_common::name;
use nix::libc;

use crate::filter::protocols::Protocols;
use crate::host::accept_hook::{AcceptHook, Search};
use crate::host::drop_reason::DropReasons;
use crate::host::offsets::{Offsets, OffsetsError};
use crate::host::plan::Plan;
use crate::host::refusal::{Refusal, errno};
use crate::kernel::attempt_hooks::{Attached, Sight};
use crate::kernel::btf::KernelBtf;
use crate::kernel::layout_hash::Layout;
use crate::kernel::load::MapSource;
use crate::kernel::load_options::Options;
use crate::kernel::map::{self, Array, Handle, HashMap, MapError};
use crate::kernel::pin::error::PinError;
use crate::kernel::program_log::ProgramLog;
use crate::kernel::program_stats::{EarlierProgram, ProgramStats, Watched};
use crate::kernel::ring::Ring;
use crate::kernel::thread_pool::locked;
use crate::kernel::{accept_search, attempt_hooks, filter_maps, load, syscall, thread_pool};

/// Why the kernel programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The layout of the kernel's structures is unknown. A retry does not help.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The kernel refused. The error number says whether to retry (`ENOMEM`), to go on without the hook, or to
    /// exit (`EPERM`).
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel refused a program. The run may have another plan without it, see [`Plan::without`].
    #[error("{refusal}")]
    Program {
        /// Its name.
        name: &'static str,
        /// The kernel's answer.
        refusal: Refusal,
        /// Another program has the place for itself.
        is_taken: bool,
    },
    /// A map cannot be used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The compiled programs have no program of this name. A retry does not help.
    #[error("the object has no program {name}: this is a bug in conntrace, please report it")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// The program is not of the kind that its name stands for. A retry does not help.
    #[error("program {name}: {reason}: this is a bug in conntrace, please report it")]
    Mismatch {
        /// Its name.
        name: &'static str,
        /// What differs.
        reason: String,
    },
    /// The root of the cgroup v2 hierarchy cannot be opened. Other hooks work without it.
    #[error("{path}")]
    CgroupRoot {
        /// Its path.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The programs' log cannot be read. All else works without it.
    #[error("program log: {reason}: this is a bug in conntrace, please report it")]
    Log {
        /// Why.
        reason: String,
    },
}

impl ProbeError {
    /// The remedy, if one is known.
    pub fn remedy(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Offsets(error) => Some(error.remedy().into()),
            Self::Refused(refusal) | Self::Program { refusal, .. } => Some(refusal.remedy()),
            Self::Map(error) => error.remedy().map(Cow::from),
            _ => None,
        }
    }
}

/// The loaded programs, which end with it. Usable from several threads: a method locks the object while it loads
/// or looks up, and the handles that it returns lock nothing.
pub struct Probe {
    ebpf: Mutex<Ebpf>,
    links: Mutex<BTreeMap<&'static str, FdLink>>,
    /// Programs that an earlier process attached.
    adopted: BTreeMap<&'static str, EarlierProgram>,
    btf: Mutex<KernelBtf>,
    accept_parameters: Option<u32>,
    sight: Sight,
    lists_half_open: bool,
    protocols: Protocols,
    reasons: DropReasons,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("accept_parameters", &self.accept_parameters).finish_non_exhaustive()
    }
}

impl Probe {
    /// Loads the object: maps exist afterwards, programs do not run yet.
    ///
    /// # Errors
    /// What the kernel lacks or refuses, with the remedy.
    pub fn load(plan: &Plan, options: &Options) -> Result<Self, ProbeError> {
        Self::load_from(plan, options, |_| Ok(MapSource::new(plan, options)))
    }

    /// The same with the maps that `source` chooses once the offsets in the kernel's structures are known.
    ///
    /// # Errors
    /// What the kernel lacks or refuses, with the remedy, or the error of `source`.
    pub(super) fn load_from<E: From<ProbeError>>(
        plan: &Plan,
        options: &Options,
        source: impl FnOnce(&Offsets) -> Result<MapSource, E>,
    ) -> Result<Self, E> {
        let probe = thread::scope(|scope| {
            let layout = scope.spawn(Offsets::probe);
            // By default aya parses the kernel's types here and keeps them, only to relocate objects that ask
            // for it. Ours do not.
            let mut loader = EbpfLoader::new();
            loader.btf(None);
            let btf = scope.spawn(KernelBtf::probe);
            let layout = joined(layout).map_err(ProbeError::from)?;
            let source = source(&layout)?;
            let reasons =
                if options.wants_attempts() { DropReasons::probe() } else { DropReasons::default() };
            let ebpf =
                load::load(loader, plan, options, &source, &layout, reasons).map_err(ProbeError::from)?;
            if log::log_enabled!(log::Level::Debug) {
                match Layout::new(plan, options, &layout) {
                    Ok(layout) => log::debug!("layout of the maps: {:016x}", layout.hash()),
                    Err(error) => log::debug!("layout of the maps: {error}"),
                }
            }
            Ok::<_, E>(Self {
                ebpf: Mutex::new(ebpf),
                links: Mutex::default(),
                adopted: BTreeMap::new(),
                btf: Mutex::new(joined(btf).map_err(ProbeError::from)?),
                accept_parameters: layout.accept_parameters,
                sight: Sight::of_listeners(&layout),
                lists_half_open: options.listed & name::LIST_HALF_OPEN != 0,
                protocols: options.protocols,
                reasons,
            })
        })?;
        filter_maps::fill(&probe, &options.filter).map_err(ProbeError::from)?;
        let fill = |remotes| filter_maps::fill_remote_slots(&probe, remotes);
        options.remotes.iter().try_for_each(fill).map_err(ProbeError::from)?;
        Ok(probe)
    }

    /// The links of the attached hooks, by the name of the program. A hook is detached with its last descriptor and pin.
    pub(super) fn links(&self) -> MutexGuard<'_, BTreeMap<&'static str, FdLink>> {
        locked(&self.links)
    }

    /// Pins a loaded program.
    pub(super) fn pin_program(&self, name: &'static str, path: &Path) -> Result<(), PinError> {
        let mut ebpf = self.ebpf();
        let what = || format!("pinning program {name}");
        let program = ebpf.program_mut(name).ok_or_else(|| PinError::other(&what(), "there is none"))?;
        program.pin(path).map_err(|error| PinError::other(&what(), error))
    }

    /// Notes programs of an earlier process, which run in the place of those of this one.
    pub(super) fn adopt_programs(&mut self, programs: BTreeMap<&'static str, EarlierProgram>) {
        self.adopted = programs;
    }

    /// True if the socket iterator also writes half-open connections.
    pub(crate) const fn lists_half_open(&self) -> bool {
        self.lists_half_open
    }

    /// The protocols whose sockets iterators write.
    pub(crate) const fn protocols(&self) -> Protocols {
        self.protocols
    }

    /// The object, for this folder.
    pub(super) fn ebpf(&self) -> MutexGuard<'_, Ebpf> {
        locked(&self.ebpf)
    }

    /// Loads those of these programs that are not loaded yet, several at a time. The slowest should come first.
    ///
    /// # Errors
    /// What the kernel refuses, with the remedy.
    pub fn load_programs(&self, names: &[&'static str]) -> Result<(), ProbeError> {
        let mut ebpf = self.ebpf();
        let is_loaded = |name: &&str| ebpf.program(name).is_some_and(|program| program.fd().is_ok());
        // The kernel's types may have been released, and reading them again takes long.
        if names.iter().all(is_loaded) { Ok(()) } else { self.load_beside(&mut ebpf, names, |_, _| ()) }
    }

    /// [`Self::load_programs`], and meanwhile what a kernel may lack, which is attached, too: the programs that see attempts
    /// which never become a connection, if the run asks for these, and that of the first hook of `accepts` that the host
    /// allows.
    ///
    /// # Errors
    /// What the kernel refuses of the named programs, with the remedy.
    pub fn load_programs_and_more(
        &self,
        names: &[&'static str],
        plan: &Plan,
        options: &Options,
        accepts: &[AcceptHook],
    ) -> Result<(Search, Attached), ProbeError> {
        let (parameters, reasons) = (self.accept_parameters, self.reasons);
        self.load_beside(&mut self.ebpf(), names, |mut others, btf| {
            let attempts = attempt_hooks::attach(&mut others, btf, plan, options, reasons);
            (accept_search::search(accepts, parameters, others, btf), attempts)
        })
    }

    /// Loads programs, and meanwhile calls `beside` with all others.
    fn load_beside<T>(
        &self,
        ebpf: &mut Ebpf,
        names: &[&'static str],
        beside: impl FnOnce(BTreeMap<&str, &mut Program>, &Btf) -> T,
    ) -> Result<T, ProbeError> {
        let (mut found, others): (BTreeMap<_, _>, _) =
            ebpf.programs_mut().partition(|(name, _)| names.contains(name));
        let mut missing = Vec::new();
        for &name in names {
            let program = found.remove(name).ok_or(ProbeError::Missing { name })?;
            if program.fd().is_err() {
                missing.push((name, program));
            }
        }
        let mut btf = locked(&self.btf);
        let btf = btf.get()?;
        thread::scope(|scope| {
            let load = |(name, program)| load_program(name, program, btf);
            let loads = scope.spawn(move || thread_pool::each(missing.into_iter(), load));
            let done = beside(others, btf);
            joined(loads)?;
            Ok(done)
        })
    }

    /// Calls `work` with the kernel's types.
    ///
    /// # Errors
    /// The types cannot be read.
    pub(super) fn with_btf<T>(&self, work: impl FnOnce(&Btf) -> T) -> Result<T, ProbeError> {
        Ok(work(locked(&self.btf).get()?))
    }

    /// What this kernel's listeners show of attempts.
    pub(crate) const fn sight(&self) -> Sight {
        self.sight
    }

    /// Frees the memory that only loading needs. A later [`Self::load_programs`] reads the kernel's types again.
    pub fn release_btf(&self) {
        locked(&self.btf).release();
    }

    /// Switches counting on, once every program is attached.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn enable(&self) -> Result<(), MapError> {
        self.switch(1)
    }

    /// Switches counting off: no program counts or writes any more, once those that run now are done.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn disable(&self) -> Result<(), MapError> {
        self.switch(0)
    }

    fn switch(&self, enabled: u32) -> Result<(), MapError> {
        self.map::<Array<name::Switches>>(name::SWITCHES)?.set(0, name::Switches { enabled })
    }

    /// Notes that all sockets of these namespaces (inode numbers) are adopted: from now on a socket that the
    /// programs do not remember is new. A namespace for which the map has no room is not noted: a socket there counts as
    /// preexisting.
    ///
    /// # Errors
    /// The map cannot be written.
    pub(super) fn note_walked(&self, namespaces: &BTreeSet<u32>) -> Result<(), MapError> {
        static WARN: Once = Once::new();
        let mut walked = self.map::<HashMap<u32, u8>>(name::WALKED)?;
        namespaces.iter().try_for_each(|&netns| match walked.insert(netns, 1) {
            Err(error) if error.errno() == Some(libc::E2BIG) => {
                WARN.call_once(|| {
                    log::warn!(
                        "there are more network namespaces than conntrace keeps: in the others, a connection whose \
                         beginning was missed counts as preexisting"
                    );
                });
                Ok(())
            }
            noted => noted,
        })
    }

    /// A typed handle of a map. The handle owns a descriptor, so that it may be used on any thread.
    ///
    /// # Errors
    /// The object has no such map, or the map is of another kind.
    pub fn map<T: Handle>(&self, name: &'static str) -> Result<T, MapError> {
        map::open(&self.ebpf(), name)
    }

    /// The ring of events. To be opened once: two readers would take records from each other.
    ///
    /// # Errors
    /// The ring cannot be mapped into memory.
    pub fn ring(&self) -> Result<Ring, MapError> {
        self.map(name::EVENTS)
    }

    /// The programs' log. To be opened once.
    ///
    /// # Errors
    /// The log was opened before.
    pub fn log(&self) -> Result<ProgramLog, ProbeError> {
        EbpfLogger::init(&mut self.ebpf())
            .map(ProgramLog)
            .map_err(|error| ProbeError::Log { reason: error.to_string() })
    }

    /// Descriptors of the attached hooks, to read the kernel's counts of them.
    pub fn program_stats(&self) -> ProgramStats {
        let ebpf = self.ebpf();
        let names = [
            name::SET_STATE,
            name::SET_STATE_AGAIN,
            name::DESTROY_SOCK,
            name::SOCK_OPS,
            name::REFUSED,
            name::REQUESTED,
            name::DISCARDED,
            name::FLOW_EGRESS,
            name::FLOW_INGRESS,
            name::FLOW_RELEASE,
        ];
        let own = |name| ebpf.program(name)?.fd().ok()?.as_fd().try_clone_to_owned().ok();
        let watched = |name| {
            let Some(earlier) = self.adopted.get(name) else { return Some(Watched::new(own(name)?, 0)) };
            let fd = earlier.fd.as_ref().map_or_else(|| own(name), |fd| fd.try_clone().ok());
            Some(Watched::new(fd?, earlier.missed))
        };
        ProgramStats::new(names.into_iter().filter_map(|name| Some((name, watched(name)?))))
    }

    /// A link of an iterator, which is loaded if it is not yet.
    pub(super) fn link_iterator(&self, name: &'static str) -> Result<OwnedFd, ProbeError> {
        self.load_programs(&[name])?;
        let ebpf = self.ebpf();
        let program = ebpf.program(name).ok_or(ProbeError::Missing { name })?;
        let fd = program.fd().map_err(|error| ProbeError::Mismatch { name, reason: error.to_string() })?;
        syscall::link_iterator(fd.as_fd())
            .map_err(|error| Refusal::with_errno(format!("walking with {name}"), error.raw_os_error()).into())
    }
}

/// Loads one program for the hook that its name stands for.
fn load_program(name: &'static str, program: &mut Program, btf: &Btf) -> Result<(), ProbeError> {
    let hook = match name {
        name::SET_STATE | name::SET_STATE_AGAIN => "inet_sock_set_state",
        name::DESTROY_SOCK => "tcp_destroy_sock",
        name::TCP_ADOPT | name::TCP_LIST => "tcp",
        name::UDP_LIST => "udp",
        name::FILE_LIST
        | name::FILE_CLAIM
        | name::NAMESPACE_LIST
        | name::FOREIGN_LIST
        | name::SOCKET_FILE_LIST
        | name::SOCKET_NAMESPACE_LIST
        | name::UDP_FOREIGN_LIST
        | name::FLOW_CLAIM => "task_file",
        _ => "socket operations",
    };
    match program {
        Program::BtfTracePoint(program) => program.load(hook, btf),
        Program::Iter(program) => program.load(hook, btf),
        Program::SockOps(program) => program.load(),
        _ => {
            let reason = "is of a kind that is not expected".into();
            return Err(ProbeError::Mismatch { name, reason });
        }
    }
    .map_err(|error| ProbeError::Program {
        name,
        refusal: refused(format!("loading {name} for {hook}"), &error),
        is_taken: false,
    })
}

/// A refusal of `what`. The verifier's log goes to the debug log: it is long and for developers.
pub(super) fn refused(what: String, error: &ProgramError) -> Refusal {
    if let ProgramError::LoadError { verifier_log, .. } = error {
        log::debug!("verifier: {verifier_log}");
    }
    Refusal::with_errno(what, errno(error))
}

/// The result of a thread, or its panic.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
