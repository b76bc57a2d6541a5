//! The kernel programs: loading, attaching, switching on, and access to their maps.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use aya::programs::iter::IterLink;
use aya::programs::{BtfTracePoint, CgroupAttachMode, Iter, Program, ProgramError, SockOps};
use aya::{Btf, Ebpf, EbpfLoader, Pod};
use conn_common::place::PLACES_TO_LEND;
use conn_common::{layout, ledger, name};

use crate::error::{Error, chain, errno};
use crate::host::accept_hook::{self, AcceptHook, Search};
use crate::host::btf::KernelBtf;
use crate::host::offsets::Offsets;
use crate::host::plan::Plan;
use crate::kernel::filter_maps;
use crate::kernel::load_options::{self, Options};
use crate::kernel::thread_pool;

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/conn-ebpf"));

/// Bytes of one BPF instruction (`struct bpf_insn`).
const INSTRUCTION: u32 = 8;

/// For how many network namespaces there are totals.
const NAMESPACES: u32 = 65_536;

/// What the kernel counts of a program, in its fdinfo (`bpf_prog_show_fdinfo()`, since 5.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cost {
    /// How often it ran, while `kernel.bpf_stats_enabled` was on.
    pub runs: u64,
    /// How long it ran then, nanoseconds.
    pub run_ns: u64,
    /// How often it was skipped because it would have nested.
    pub missed: u64,
}

impl Cost {
    fn of(program: BorrowedFd<'_>) -> Option<Self> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok();
        Some(Self {
            runs: field("run_cnt:")?,
            run_ns: field("run_time_ns:")?,
            missed: field("recursion_misses:")?,
        })
    }
}

/// The value of [`name::SWITCHES`], for the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Switches(name::Switches);

// SAFETY: one u32.
unsafe impl Pod for Switches {}

/// The loaded programs. They go away with it.
#[derive(Debug)]
pub struct Probe {
    ebpf: Ebpf,
    types: KernelBtf,
    accept_parameters: Option<u32>,
}

/// `u8::MAX` would let every line through; the programs log up to trace.
const LOG_ALL: u8 = u8::MAX;

impl Probe {
    /// Loads the object: maps exist then, programs do not run yet.
    ///
    /// # Errors
    /// What the kernel lacks or refuses, with the remedy.
    pub fn load(plan: &Plan, options: &Options) -> Result<Self, Error> {
        thread::scope(|scope| {
            let layout = scope.spawn(Offsets::probe);
            // This parses the kernel's types, which aya does not hand out, and needs only for objects that want
            // to be relocated by them: no reason to keep them until we have ours.
            let mut loader = EbpfLoader::new();
            loader.btf(None);
            let types = scope.spawn(KernelBtf::read);
            let layout = joined(layout)?;
            let ebpf = load(loader, plan, options, &layout)?;
            Ok(Self { ebpf, types: joined(types)?, accept_parameters: layout.accept_parameters })
        })
    }

    /// Loads those of these programs that are not loaded yet, several at a time. What takes longest should be first.
    ///
    /// # Errors
    /// What the kernel refuses, with the remedy.
    pub fn load_programs(&mut self, names: &[&'static str]) -> Result<(), Error> {
        let is_loaded = |name: &&str| self.ebpf.program(name).is_some_and(|program| program.fd().is_ok());
        // The types may have been forgotten.
        if names.iter().all(is_loaded) { Ok(()) } else { self.load_programs_beside(names, |_, _| ()) }
    }

    /// The same, and meanwhile looks for a hook that sees who accepts, and attaches it.
    ///
    /// # Errors
    /// What the kernel refuses of these programs, with the remedy.
    pub fn load_programs_and_accept(
        &mut self,
        names: &[&'static str],
        forced: Option<AcceptHook>,
    ) -> Result<Search, Error> {
        let parameters = self.accept_parameters;
        self.load_programs_beside(names, |others, btf| Search::run(forced, parameters, others, btf))
    }

    /// Loads programs, and does something with the others meanwhile.
    fn load_programs_beside<T>(
        &mut self,
        names: &[&'static str],
        beside: impl FnOnce(BTreeMap<&str, &mut Program>, &Btf) -> T,
    ) -> Result<T, Error> {
        let (mut found, others): (BTreeMap<_, _>, _) =
            self.ebpf.programs_mut().partition(|(name, _)| names.contains(name));
        let mut missing = Vec::new();
        for &name in names {
            let program = found.remove(name);
            let program =
                program.ok_or_else(|| Error::Internal(format!("the object has no program {name}")))?;
            if program.fd().is_err() {
                missing.push((name, program));
            }
        }
        let btf = self.types.get()?;
        thread::scope(|scope| {
            let load = |(name, program)| load_program(name, program, btf);
            let loads = scope.spawn(move || thread_pool::each(missing.into_iter(), load));
            let done = beside(others, btf);
            joined(loads)?;
            Ok(done)
        })
    }

    /// Gives memory back that only loading programs takes. Whoever still loads one pays for it.
    pub fn forget_types(&mut self) {
        self.types.forget();
    }

    /// Attaches the hooks that the plan names, which are loaded. Nothing is counted before
    /// [`Self::enable`].
    ///
    /// # Errors
    /// What the kernel refuses, with the remedy.
    pub fn attach_witnesses(&mut self, plan: &Plan) -> Result<(), Error> {
        let hooks = plan.hooks;
        // The second chance first: a socket that another hook remembered must not be freed unseen.
        if hooks.destroy_sock {
            self.attach_tracepoint(name::DESTROY_SOCK)?;
        }
        if hooks.set_state {
            self.attach_tracepoint(name::SET_STATE)?;
        }
        if hooks.set_state_again {
            self.attach_tracepoint(name::SET_STATE_AGAIN)?;
        }
        if let Some(root) = plan.cgroup_root.as_ref().filter(|_| hooks.sock_ops) {
            self.attach_sock_ops(root)?;
        }
        self.tell_sizes();
        Ok(())
    }

    /// Tells how many instructions the verifier left of each loaded program.
    fn tell_sizes(&self) {
        for (name, program) in self.ebpf.programs() {
            if let Some(bytes) = program.info().ok().and_then(|info| info.size_translated()) {
                log::debug!("program {name}: {} instructions", bytes / INSTRUCTION);
            }
        }
    }

    fn attach_tracepoint(&mut self, name: &str) -> Result<(), Error> {
        let program: &mut BtfTracePoint = program(&mut self.ebpf, name)?;
        program.attach().map(drop).map_err(|error| refused(&format!("attaching {name}"), &error))
    }

    fn attach_sock_ops(&mut self, root: &Path) -> Result<(), Error> {
        let cgroup =
            File::open(root).map_err(|source| Error::Io { context: root.display().to_string(), source })?;
        let program: &mut SockOps = program(&mut self.ebpf, name::SOCK_OPS)?;
        // A link always lets other programs of the same kind run, too.
        program
            .attach(cgroup, CgroupAttachMode::Single)
            .map(drop)
            .map_err(|error| refused(&format!("sock_ops on {}", root.display()), &error))
    }

    /// Everything is attached: start counting.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn enable(&mut self) -> Result<(), Error> {
        self.switch(1)
    }

    /// The end has come: no program counts or writes any more, once those that run now are done.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn disable(&mut self) -> Result<(), Error> {
        self.switch(0)
    }

    fn switch(&mut self, enabled: u32) -> Result<(), Error> {
        let map = map(&mut self.ebpf, name::SWITCHES)?;
        Array::<_, Switches>::try_from(map)
            .and_then(|mut array| array.set(0, Switches(name::Switches { enabled }), 0))
            .map_err(|error| Error::Internal(format!("map {}: {error}", name::SWITCHES)))
    }

    /// All sockets of a namespace, by its inode number, have been adopted: from now on one that nobody
    /// remembers there is new.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn walked(&mut self, netns: u32) -> Result<(), Error> {
        let map = map(&mut self.ebpf, name::WALKED)?;
        HashMap::<_, u32, u8>::try_from(map)
            .and_then(|mut walked| walked.insert(netns, 1, 0))
            .map_err(|error| Error::Internal(format!("map {}: {error}", name::WALKED)))
    }

    /// Takes the ring of events, once.
    ///
    /// # Errors
    /// It was taken before.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, Error> {
        let map = self
            .ebpf
            .take_map(name::EVENTS)
            .ok_or_else(|| Error::Internal(format!("the object has no map {}", name::EVENTS)))?;
        RingBuf::try_from(map).map_err(|error| Error::Internal(format!("map {}: {error}", name::EVENTS)))
    }

    /// Takes an array map by name, once.
    ///
    /// # Errors
    /// It is not there, was taken before, or holds something else.
    pub fn take_array<V: Pod>(&mut self, name: &str) -> Result<Array<MapData, V>, Error> {
        let map = self
            .ebpf
            .take_map(name)
            .ok_or_else(|| Error::Internal(format!("the object has no map {name}")))?;
        Array::try_from(map).map_err(|error| Error::Internal(format!("map {name}: {error}")))
    }

    /// A walk of a loaded iterator. It goes over what the thread sees that makes it into a file.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn walk(&mut self, name: &str) -> Result<IterLink, Error> {
        let iter: &mut Iter = program(&mut self.ebpf, name)?;
        iter.attach()
            .and_then(|id| iter.take_link(id))
            .map_err(|error| refused(&format!("walking with {name}"), &error))
    }

    /// What the kernel counted of each attached program, by name.
    pub fn costs(&self) -> BTreeMap<&'static str, Cost> {
        [name::SET_STATE, name::SET_STATE_AGAIN, name::DESTROY_SOCK, name::SOCK_OPS]
            .into_iter()
            .filter_map(|name| Some((name, Cost::of(self.ebpf.program(name)?.fd().ok()?.as_fd())?)))
            .collect()
    }

    /// The loaded object, to attach its logger.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map, Error> {
    ebpf.map_mut(name).ok_or_else(|| Error::Internal(format!("the object has no map {name}")))
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, Error>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| Error::Internal(format!("the object has no program {name}")))?
        .try_into()
        .map_err(|error| Error::Internal(format!("program {name}: {error}")))
}

/// Loads one program for the hook that its name stands for.
fn load_program(name: &str, program: &mut Program, btf: &Btf) -> Result<(), Error> {
    let hook = match name {
        name::SET_STATE | name::SET_STATE_AGAIN => "inet_sock_set_state",
        name::DESTROY_SOCK => "tcp_destroy_sock",
        name::TCP_ADOPT | name::TCP_LIST => "tcp",
        name::FILE_LIST | name::FILE_CLAIM | name::NAMESPACE_LIST => "task_file",
        _ => "socket operations",
    };
    match program {
        Program::BtfTracePoint(program) => program.load(hook, btf),
        Program::Iter(program) => program.load(hook, btf),
        Program::SockOps(program) => program.load(),
        _ => return Err(Error::Internal(format!("program {name} is of a kind that is not expected"))),
    }
    .map_err(|error| refused(&format!("loading {name} for {hook}"), &error))
}

/// The result of a thread, or its panic.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn load(
    loader: EbpfLoader<'static>,
    plan: &Plan,
    options: &Options,
    layout: &Offsets,
) -> Result<Ebpf, Error> {
    let flag = |on: bool| u8::from(on);
    let connect_is_seen = flag(plan.hooks.sock_ops);
    let log_level = if options.log { LOG_ALL } else { 0 };
    let shard_mask = plan.shards - 1;
    let (counts_on, spans_on) = (flag(options.counts), flag(options.spans));
    let ledger_has_places = flag(options.counts && load_options::HAS_PLACES);
    let place_bits = options.place_bits(plan.hooks, plan.open_files);
    let places = 1 << place_bits;
    let (claims, memories) = (places, places + plan.cpus * PLACES_TO_LEND);
    let only_counts = options.only_counts();
    let keys = ledger::KEYS * plan.shards;
    let syscall_result = if options.owners == name::HOLDERS { accept_hook::syscall_result() } else { None };

    let mut loader = loader;
    loader
        .map_max_entries(name::EVENTS, options.ring_bytes)
        .map_max_entries(name::CLAIMS, options.claims(plan.open_files))
        .map_max_entries(name::CLAIM_PLACES, if options.owners == name::HOLDERS { claims } else { 1 })
        .map_max_entries(name::LEDGER, if options.counts { keys } else { 1 })
        .map_max_entries(
            name::LEDGER_PLACES,
            if ledger_has_places == 0 { 1 } else { plan.shards << ledger::PLACE_BITS },
        )
        .override_global(name::LEDGER_HAS_PLACES, &ledger_has_places, true)
        .override_global(name::COUNTS_ON, &counts_on, true)
        .map_max_entries(name::NETNS, if options.counts { NAMESPACES } else { 1 })
        .map_max_entries(name::PLACES, if only_counts { 1 } else { memories })
        .map_max_entries(name::COUNTED_PLACES, if only_counts { memories } else { 1 })
        .override_global(name::PLACE_BITS, &place_bits, true)
        .override_global(name::WANTED_KINDS, &options.kinds, true)
        .override_global(name::CONNECT_IS_SEEN, &connect_is_seen, true)
        .map_max_entries(name::SPANS, if options.spans { keys } else { 1 })
        .override_global(name::SPANS_ON, &spans_on, true)
        .override_global(name::LISTED, &options.listed, true)
        .override_global(name::OWNERS, &options.owners, true)
        .override_global(name::SYSCALL_RESULT, syscall_result.as_ref().unwrap_or(&0), true)
        .override_global(name::SHARD_MASK, &shard_mask, true)
        .override_global(aya_log::LEVEL, &log_level, true);
    filter_maps::prepare(&mut loader, &options.filter);
    debug_assert_eq!(layout.globals().count(), layout::FIELDS.len() + layout::OPTIONAL.len());
    for (name, offset) in layout.globals() {
        loader.override_global(name, offset, true);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| Error::Refused {
        errno: errno(&error),
        what: format!("loading the programs: {}", chain(&error)),
    })?;
    filter_maps::fill(&mut ebpf, &options.filter)?;
    Ok(ebpf)
}

/// What the kernel refused. The verifier's log goes to the debug log: it is long and for developers.
fn refused(what: &str, error: &ProgramError) -> Error {
    if let ProgramError::LoadError { verifier_log, .. } = error {
        log::debug!("verifier: {verifier_log}");
    }
    Error::Refused { what: what.to_owned(), errno: errno(error) }
}
