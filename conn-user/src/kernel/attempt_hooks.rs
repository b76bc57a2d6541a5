//! Hooks that see attempts which never become a connection. A kernel may lack any of them, and the run goes on without.

use std::collections::BTreeMap;

use aya::Btf;
use aya::programs::{BtfTracePoint, Program};
use conn_common::filter::{ANY_DIRECTION, LISTENERS};
use conn_common::name;

use crate::filter::KernelPart;
use crate::host::offsets::Offsets;

/// What this host and this run see of attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// Loads and attaches the program that sees refused SYNs. False if this kernel does not show them (before 6.10).
pub(super) fn attach_refused(programs: &mut BTreeMap<&str, &mut Program>, btf: &Btf) -> bool {
    let Some(Program::BtfTracePoint(program)) = programs.get_mut(name::REFUSED).map(|program| &mut **program)
    else {
        return false;
    };
    let attached = program.load(SEND_RESET, btf).and_then(|()| BtfTracePoint::attach(program));
    if let Err(error) = &attached {
        log::debug!("no program for refused SYNs: {error}");
    }
    attached.is_ok()
}
