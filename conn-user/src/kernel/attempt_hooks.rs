//! Hooks that see attempts which never become a connection. A kernel may lack any of them, and the run goes on without.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use aya::Btf;
use aya::programs::{CgroupAttachMode, Program, ProgramError};
use conn_common::filter::{ANY_DIRECTION, LISTENERS};
use conn_common::name;

use crate::filter::KernelPart;
use crate::host::drop_reason::DropReasons;
use crate::host::offsets::Offsets;
use crate::host::plan::Plan;
use crate::kernel::load_options::Options;

/// What this host and this run see of attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each with a name")]
pub struct Sight {
    /// Half-open requests that begin: `sock_ops` is attached.
    pub begun: bool,
    /// Refused SYNs: the program on `tcp_send_reset` is attached.
    pub refused: bool,
    /// The walk visits listeners, and the kernel shows the length of their queues.
    pub half_open: bool,
    /// The walk visits listeners, and the kernel shows their drops.
    pub dropped: bool,
}

impl Sight {
    /// What this kernel's listeners show to a walk.
    pub(super) fn of_listeners(layout: &Offsets) -> Self {
        let has = |name: &str| layout.globals().any(|(global, &offset)| global == name && offset != 0);
        Self { half_open: has("ICSK_QLEN"), dropped: has("SK_DROPS"), ..Self::default() }
    }

    /// The same for a run with this filter: its walks visit listeners only if nothing is filtered.
    #[must_use]
    pub(super) fn filtered(self, filter: &KernelPart) -> Self {
        let all = KernelPart { directions: ANY_DIRECTION | LISTENERS, ..KernelPart::all() };
        if *filter == all { self } else { Self { half_open: false, dropped: false, ..self } }
    }

    /// What is seen, for people.
    pub(crate) fn describe(self) -> String {
        let numbers = [
            (self.begun, "half-open requests that begin (sock_ops)"),
            (self.half_open, "half-open requests now and drops of listeners (walk)"),
            (self.refused, "refused SYNs (tcp_send_reset)"),
        ];
        let (seen, unseen): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|(seen, _)| *seen);
        let words = |numbers: Vec<(bool, &'static str)>| {
            numbers.into_iter().map(|(_, word)| word).collect::<Vec<_>>()
        };
        let mut lines = words(seen);
        let unseen: Vec<String> = words(unseen).into_iter().map(|word| format!("not: {word}")).collect();
        lines.extend(unseen.iter().map(String::as_str));
        if !self.refused {
            lines.push("Linux 6.10 and later show refused SYNs");
        }
        lines.join("\n")
    }
}

/// The tracepoint of resets that this host sends.
const SEND_RESET: &str = "tcp_send_reset";
/// The tracepoint of packets that the kernel drops.
const KFREE_SKB: &str = "kfree_skb";

/// The programs for attempts that are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each with a name")]
pub struct Attached {
    /// Refused SYNs are counted.
    pub refused: bool,
    /// Half-open requests have events.
    pub requested: bool,
    /// Refused SYNs have events.
    pub refused_events: bool,
    /// ACKs that find the accept queue full have events.
    pub dropped_events: bool,
}

impl Attached {
    /// What a run that asks for events of attempts does not see here, and why.
    fn unseen(self) -> impl Iterator<Item = &'static str> {
        [
            (self.requested, "half_open: sock_ops cannot be attached to the root of cgroup v2"),
            (self.refused_events, "refused: the kernel shows no refused SYNs before Linux 5.17"),
            (self.dropped_events, "dropped: the kernel shows no dropped ACKs before Linux 6.15"),
        ]
        .into_iter()
        .filter_map(|(seen, reason)| (!seen).then_some(reason))
    }
}

/// Loads the programs that the run asks for. Those that this kernel refuses are left out. All are attached but the one that
/// counts refused attempts, which is attached with the other hooks that count.
pub(super) fn attach(
    programs: &mut BTreeMap<&str, &mut Program>,
    btf: &Btf,
    plan: &Plan,
    options: &Options,
    reasons: DropReasons,
) -> Attached {
    let mut attached = Attached::default();
    if options.counts || options.wants_attempts() {
        let program = programs.get_mut(name::REFUSED).map(|program| &mut **program);
        attached.refused = match program {
            Some(Program::BtfTracePoint(program)) => {
                is_attached(name::REFUSED, &program.load(SEND_RESET, btf))
            }
            _ => false,
        };
    }
    if options.wants_attempts() {
        attached.requested = plan.cgroup_root.as_deref().is_some_and(|root| attach_requested(programs, root));
        let has_reason = reasons.no_socket != 0 || reasons.queue_full != 0;
        let discarded = has_reason && attach_tracepoint(programs, btf, name::DISCARDED, KFREE_SKB);
        attached.refused_events = attached.refused || discarded && reasons.no_socket != 0;
        attached.dropped_events = discarded && reasons.queue_full != 0;
        for unseen in attached.unseen() {
            log::warn!("some attempts are not seen here: {unseen}");
        }
    }
    attached
}

fn attach_tracepoint(
    programs: &mut BTreeMap<&str, &mut Program>,
    btf: &Btf,
    name: &str,
    tracepoint: &str,
) -> bool {
    let Some(Program::BtfTracePoint(program)) = programs.get_mut(name).map(|program| &mut **program) else {
        return false;
    };
    let attached = program.load(tracepoint, btf).and_then(|()| program.attach());
    is_attached(name, &attached.map(drop))
}

fn attach_requested(programs: &mut BTreeMap<&str, &mut Program>, root: &Path) -> bool {
    let name = name::REQUESTED;
    let Some(Program::SockOps(program)) = programs.get_mut(name).map(|program| &mut **program) else {
        return false;
    };
    let attached = File::open(root).map_err(ProgramError::from).and_then(|root| {
        program.load()?;
        program.attach(root, CgroupAttachMode::Single)
    });
    is_attached(name, &attached.map(drop))
}

fn is_attached(name: &str, attached: &Result<(), ProgramError>) -> bool {
    if let Err(error) = attached {
        log::debug!("no program {name}: {error}");
    }
    attached.is_ok()
}
