//! Loading the object: sizes of maps, globals, filters. Maps exist afterwards; programs are not loaded yet.

use std::path::PathBuf;

use aya::{Ebpf, EbpfLoader};
use conn_common::assoc_table::SCRATCH_SLOTS;
use conn_common::{attempt, layout, ledger, listener, name, remote};

use crate::host::accept_hook;
use crate::host::drop_reason::DropReasons;
use crate::host::flows::FlowTimeouts;
use crate::host::offsets::Offsets;
use crate::host::plan::Plan;
use crate::host::refusal::{Refusal, chain, errno};
use crate::kernel::load_options::{self, HostSizes, Options};
use crate::kernel::{filter_maps, flow_hooks};

/// The compiled programs.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/conn-ebpf"));

/// How many network namespaces have totals of their own.
const NAMESPACES: u32 = 65_536;

/// The programs log up to trace. `u8::MAX` lets every line through.
const LOG_ALL: u8 = u8::MAX;

/// Where the maps of a run come from.
#[derive(Debug)]
pub(super) struct MapSource {
    /// The sizes that do not follow from the options.
    pub sizes: HostSizes,
    /// The pins of the maps that runs share: name and path. A map without a pin there is made, and pinned.
    pub pins: Vec<(String, PathBuf)>,
    /// The lowest log level of the programs. They log no errors, so a 1 changes their globals and nothing else.
    pub log_level: u8,
}

impl MapSource {
    /// New maps.
    pub(super) fn new(plan: &Plan, options: &Options) -> Self {
        Self { sizes: HostSizes::planned(plan, options), pins: vec![], log_level: 0 }
    }
}

/// The sizes of all maps whose size the loader sets.
pub(super) fn sizes(plan: &Plan, options: &Options, host: &HostSizes) -> Vec<(&'static str, u32)> {
    let table_slots = 1 << host.table_bits;
    let states = table_slots + plan.cpus * SCRATCH_SLOTS;
    let only_counts = options.only_counts();
    let if_counts = |entries: u32| if options.counts { entries } else { 1 };
    let small_slots = |entries: u32| if_counts(if load_options::HAS_TABLES { entries } else { 1 });
    // Without small slots, each port has a whole one.
    let whole_slots = if load_options::HAS_TABLES { ledger::WHOLE_SLOTS } else { ledger::KEYS };
    let ledger_table = options.counts && load_options::HAS_TABLES;
    let holders = options.owners == name::HOLDERS;
    let remotes = options.remotes.as_ref();
    let remotes_of_slots = remotes.is_some_and(|remotes| remotes.slots.is_some());
    let notes = if options.owners == name::NO_OWNERS { 1 } else { listener::CAPACITY };
    [
        (name::EVENTS, host.ring_bytes),
        (name::PENDING_OVERFLOW, host.pending),
        (name::PENDING_OWNERS, if holders { table_slots } else { 1 }),
        (name::LEDGER, if_counts(whole_slots * plan.shards)),
        (name::SMALL_SLOTS, small_slots(ledger::SMALL_SLOTS)),
        (name::SHARED_SLOTS, small_slots(ledger::KEYS)),
        (name::LEDGER_SLOTS, if ledger_table { plan.shards << ledger::TABLE_BITS } else { 1 }),
        (name::ATTEMPTS, if_counts(attempt::PORTS)),
        (name::NETNS, if_counts(NAMESPACES)),
        (name::SOCKET_STATES, if only_counts { 1 } else { states }),
        (name::COUNTED_STATES, if only_counts { states } else { 1 }),
        (name::OVERFLOW_STATES, if only_counts { 1 } else { host.overflow }),
        (name::OVERFLOW_COUNTED, if only_counts { host.overflow } else { 1 }),
        (name::SPANS, if options.durations { ledger::HISTOGRAMS * plan.shards } else { 1 }),
        (name::SPANS_REST, if options.durations { plan.shards << 2 } else { 1 }),
        (name::REMOTES, if remotes.is_some() { remote::CAPACITY } else { 1 }),
        (name::REMOTE_SLOTS, if remotes_of_slots { remote::SLOT_WORDS } else { 1 }),
    ]
    .into_iter()
    .chain(name::OWNER_NOTES.map(|name| (name, notes)))
    .chain(flow_hooks::sizes(options))
    .chain(filter_maps::sizes(&options.filter))
    .collect()
}

/// Makes the maps, with sizes and globals for this run.
///
/// # Errors
/// The kernel refuses a map.
pub(super) fn load(
    loader: EbpfLoader<'static>,
    plan: &Plan,
    options: &Options,
    source: &MapSource,
    layout: &Offsets,
    reasons: DropReasons,
) -> Result<Ebpf, Refusal> {
    let flag = |on: bool| u8::from(on);
    let connect_is_seen = flag(plan.hooks.sock_ops);
    let log_level = if options.log { LOG_ALL } else { source.log_level };
    let shard_mask = plan.shards - 1;
    let remotes = options.remotes.as_ref();
    let counts_on = if remotes.is_some() { remote::BESIDE_COUNTS } else { flag(options.counts) };
    let durations_on = flag(options.durations);
    let ledger_has_table = flag(options.counts && load_options::HAS_TABLES);
    let has_exchange = flag(load_options::HAS_TABLES);
    let syscall_result = if options.owners == name::HOLDERS { accept_hook::syscall_result() } else { None };

    let kinds = if remotes.is_some() { remote::INSTEAD_OF_EVENTS } else { options.socket_kinds() };
    let attempts_wanted = flag(options.wants_attempts());

    let remotes_by = remotes.map_or(remote::BY_ADDRESS, |remotes| remotes.by);
    let remotes_of_slots = flag(remotes.is_some_and(|remotes| remotes.slots.is_some()));

    let timeouts = if options.flows.is_some() { FlowTimeouts::probe() } else { FlowTimeouts::DEFAULT };
    let flows = flow_hooks::Globals::new(timeouts, options);
    let mut loader: EbpfLoader<'_> = loader;
    flow_hooks::prepare(&mut loader, &flows);
    loader
        .override_global(name::LEDGER_HAS_TABLE, &ledger_has_table, true)
        .override_global(name::COUNTS_ON, &counts_on, true)
        .override_global(name::HAS_EXCHANGE, &has_exchange, true)
        .override_global(name::TABLE_BITS, &source.sizes.table_bits, true)
        .override_global(name::WANTED_KINDS, &kinds, true)
        .override_global(name::ATTEMPTS_WANTED, &attempts_wanted, true)
        .override_global(name::DROP_NO_SOCKET, &reasons.no_socket, true)
        .override_global(name::DROP_QUEUE_FULL, &reasons.queue_full, true)
        .override_global(name::CONNECT_IS_SEEN, &connect_is_seen, true)
        .override_global(name::SPANS_ON, &durations_on, true)
        .override_global(name::REMOTES_BY, &remotes_by, true)
        .override_global(name::REMOTES_OF_SLOTS, &remotes_of_slots, true)
        .override_global(name::LISTED, &options.listed, true)
        .override_global(name::OWNERS, &options.owners, true)
        .override_global(name::SYSCALL_RESULT, syscall_result.as_ref().unwrap_or(&0), true)
        .override_global(name::SHARD_MASK, &shard_mask, true)
        .override_global(aya_log::LEVEL, &log_level, true);
    filter_maps::prepare(&mut loader, &options.filter);
    for (name, entries) in sizes(plan, options, &source.sizes) {
        loader.map_max_entries(name, entries);
    }
    for (name, pin) in &source.pins {
        loader.map_pin_path(name, pin.as_path());
    }
    debug_assert_eq!(layout.globals().count(), layout::FIELDS.len() + layout::OPTIONAL.len());
    for (name, offset) in layout.globals() {
        loader.override_global(name, offset, true);
    }
    loader.load(OBJECT).map_err(|error| {
        Refusal::with_errno(format!("loading the programs: {}", chain(&error)), errno(&error))
    })
}
