//! Flows of UDP: sizes and globals of a run that has them, and their hooks on the cgroup v2 root.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use conn_common::flow::{GRACE_MS, SOCKET_BITS, STREAM_AFTER_S};
use conn_common::flow_table::BUCKET;
use conn_common::{flow_counts, name};

use crate::host::flows::{self, FlowTimeouts};
use crate::kernel::load_options::Options;
use crate::kernel::probe::{Probe, ProbeError, refused};

/// Sockets that may close between two sweeps without an entry of their own.
const CLOSED_SOCKETS: u32 = 1 << 16;
/// Sockets that existed before the start and have an owner.
const HOLDERS: u32 = 1 << 16;
/// Network namespaces whose packets are counted apart.
const NAMESPACES: u32 = 1 << 16;
/// The tracepoint of full receive buffers.
const QUEUE_FAILED: &str = "udp_fail_queue_rcv_skb";
/// The tracepoint of errors of sockets, since 5.15.
const ERROR_REPORT: &str = "inet_sk_error_report";

/// Values of the globals of flows.
#[derive(Debug)]
pub(super) struct Globals {
    seeds: [u64; 2],
    bits: u32,
    timeout: u32,
    stream_timeout: u32,
    stream_after: u32,
    grace: u32,
    tick_ns: u32,
    counted: u8,
}

impl Globals {
    /// Fresh seeds if the run has flows, and the times of this host in ticks. Without flows, equal runs have equal globals.
    pub(super) fn new(timeouts: FlowTimeouts, options: &Options) -> Self {
        let tick_ns = flows::tick_ns();
        let ticks = |ns: u64| u32::try_from(ns.div_ceil(tick_ns)).unwrap_or(u32::MAX);
        let seconds = |s: u64| ticks(s * 1_000_000_000);
        Self {
            seeds: [(); 2].map(|()| options.flows.map_or(0, |_| RandomState::new().hash_one(0))),
            bits: buckets(options).trailing_zeros(),
            timeout: seconds(timeouts.flow_s.into()),
            stream_timeout: seconds(timeouts.stream_s.into()),
            stream_after: seconds(STREAM_AFTER_S),
            grace: ticks(GRACE_MS * 1_000_000),
            tick_ns: u32::try_from(tick_ns).unwrap_or(u32::MAX),
            counted: u8::from(options.flow_counts),
        }
    }
}

/// The buckets of the table: a power of two, and 2 at least.
fn buckets(options: &Options) -> u32 {
    (options.flows.unwrap_or(0) / BUCKET).next_power_of_two().max(2)
}

/// The sizes of the maps. In a run without flows, all maps have one entry.
pub(super) fn sizes(options: &Options) -> [(&'static str, u32); 7] {
    let entries = |entries: u32| if options.flows.is_some() { entries } else { 1 };
    let counts = |entries: u32| if options.flow_counts { entries } else { 1 };
    [
        (name::FLOWS, entries(BUCKET * buckets(options))),
        (name::FLOW_TAGS, entries(buckets(options))),
        (name::FLOW_SOCKETS, entries(1 << SOCKET_BITS)),
        (name::FLOW_CLOSED, entries(CLOSED_SOCKETS)),
        (name::FLOW_HOLDERS, entries(HOLDERS)),
        (name::FLOW_COUNTS, counts(flow_counts::ENTRIES)),
        (name::FLOW_NETNS, counts(NAMESPACES * flow_counts::NETNS_SHARDS)),
    ]
}

/// Sets the globals.
pub(super) fn prepare<'a>(loader: &mut EbpfLoader<'a>, globals: &'a Globals) {
    loader
        .override_global(name::FLOWS_COUNTED, &globals.counted, true)
        .override_global(name::FLOW_SEEDS[0], &globals.seeds[0], true)
        .override_global(name::FLOW_SEEDS[1], &globals.seeds[1], true)
        .override_global(name::FLOW_BITS, &globals.bits, true)
        .override_global(name::FLOW_TIMEOUT, &globals.timeout, true)
        .override_global(name::FLOW_STREAM_TIMEOUT, &globals.stream_timeout, true)
        .override_global(name::FLOW_STREAM_AFTER, &globals.stream_after, true)
        .override_global(name::FLOW_GRACE, &globals.grace, true)
        .override_global(name::FLOW_TICK_NS, &globals.tick_ns, true);
}

impl Probe {
    /// Loads and attaches the hooks of flows. Nothing is counted before [`Self::enable`]. Returns whether full receive buffers
    /// are seen.
    ///
    /// # Errors
    /// What the kernel refuses, with the remedy.
    pub(super) fn attach_flows(&self, root: &Path, options: &Options) -> Result<bool, ProbeError> {
        let cgroup = File::open(root)
            .map_err(|source| ProbeError::CgroupRoot { path: root.display().to_string(), source })?;
        let ebpf = &mut *self.ebpf();
        // The end of a socket first: the flow of a packet that another hook saw must not outlive its socket.
        for name in
            [name::FLOW_RELEASE, name::FLOW_BIND4, name::FLOW_BIND6, name::FLOW_INGRESS, name::FLOW_EGRESS]
        {
            let attached = attach(program(ebpf, name)?, &cgroup);
            attached.map_err(|error| ProbeError::Program {
                name,
                refusal: refused(format!("{name} on {}", root.display()), &error),
                is_taken: false,
            })?;
        }
        let refusals = "flows that the peer's host refused count as closed";
        self.attach_flow_tracepoint(ebpf, name::FLOW_ERROR, ERROR_REPORT, refusals)?;
        if !options.flow_counts {
            return Ok(false);
        }
        let drops = "packets that found a receive buffer full are not counted";
        self.attach_flow_tracepoint(ebpf, name::FLOW_DROP, QUEUE_FAILED, drops)
    }

    /// Loads and attaches a program on a tracepoint that a kernel may lack, which has this consequence. Returns whether the
    /// program is attached.
    fn attach_flow_tracepoint(
        &self,
        ebpf: &mut Ebpf,
        name: &'static str,
        tracepoint: &str,
        consequence: &str,
    ) -> Result<bool, ProbeError> {
        let Program::BtfTracePoint(program) = program(ebpf, name)? else {
            return Err(ProbeError::Missing { name });
        };
        let attached = self.with_btf(|btf| program.load(tracepoint, btf).and_then(|()| program.attach()))?;
        if let Err(error) = &attached {
            log::warn!("{consequence}: the kernel lacks {tracepoint}");
            log::debug!("{}", refused(name.into(), error));
        }
        Ok(attached.is_ok())
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Program, ProbeError> {
    ebpf.program_mut(name).ok_or(ProbeError::Missing { name })
}

/// A link always lets other programs of the same kind run, too.
fn attach(program: &mut Program, cgroup: &File) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSkb(program) => {
            program.load()?;
            let way = program.expected_attach_type().unwrap_or(CgroupSkbAttachType::Egress);
            program.attach(cgroup, way, CgroupAttachMode::Single).map(drop)
        }
        Program::CgroupSock(program) => {
            program.load()?;
            program.attach(cgroup, CgroupAttachMode::Single).map(drop)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
