//! What flows of UDP need of this host: a place for their hooks, and idle times. The times are those of connection tracking, so
//! that flows end as `conntrack` shows them.

use std::fs;

use conn_common::flow::{ASSURED, STREAM_TIMEOUT_S, TIMEOUT_S};

use crate::host::facts::Host;
use crate::host::plan::{NO_CGROUP, NO_NET_ADMIN, PlanError};
use crate::host::ticks::TickRate;

/// Idle times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTimeouts {
    /// Of a flow that is no stream.
    pub flow_s: u32,
    /// Of a stream.
    pub stream_s: u32,
}

impl FlowTimeouts {
    /// The kernel's defaults.
    pub const DEFAULT: Self = Self { flow_s: TIMEOUT_S, stream_s: STREAM_TIMEOUT_S };

    /// The values of this thread's network namespace, or the kernel's defaults where nothing tracks connections.
    pub fn probe() -> Self {
        let read = |name: &str, default| {
            let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_udp_timeout{name}"));
            text.ok().and_then(|text| text.trim().parse().ok()).filter(|&s| s > 0).unwrap_or(default)
        };
        let Self { flow_s, stream_s } = Self::DEFAULT;
        Self { flow_s: read("", flow_s), stream_s: read("_stream", stream_s) }
    }

    /// The idle time of a flow in `state`.
    pub const fn of(self, state: u8) -> u32 {
        if state == ASSURED { self.stream_s } else { self.flow_s }
    }
}

/// Nanoseconds of a tick, in which the last packet of a flow is noted. A run with flows has passed [`check`]; any other
/// does not use the number.
pub(crate) fn tick_ns() -> u64 {
    TickRate::probe().tick_ns().unwrap_or(1)
}

/// Checks that the hooks of UDP flows can run on this host.
///
/// # Errors
/// The host has no cgroup v2 root, or this process may not attach there.
pub fn check(host: &Host) -> Result<(), PlanError> {
    let lack = if host.cgroup_root.is_none() { &NO_CGROUP } else { &NO_NET_ADMIN };
    if host.cgroup_root.is_none() || !host.may_change_network() {
        return Err(PlanError::NoFlows { fact: lack.fact, remedy: lack.remedy });
    }
    if TickRate::probe().tick_ns().is_none() {
        let (fact, remedy) =
            ("the kernel's tick rate is unknown", "please report it, with the output of uname -a");
        return Err(PlanError::NoFlows { fact, remedy });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use conn_common::flow::{REPLIED, UNREPLIED};

    #[test]
    fn missing_place_for_hooks_has_a_remedy() {
        assert_eq!(check(&Host::good()), Ok(()));
        let without_cgroup = check(&Host { cgroup_root: None, ..Host::good() }).unwrap_err();
        assert_eq!(
            without_cgroup.to_string(),
            "UDP was asked for, but the root of the cgroup v2 hierarchy is not mounted"
        );
        assert!(without_cgroup.remedy().is_some_and(|remedy| remedy.contains("mount -t cgroup2")));
        let unprivileged = check(&Host { capabilities: !(1 << 12 | 1 << 21), ..Host::good() }).unwrap_err();
        assert_eq!(unprivileged.to_string(), "UDP was asked for, but CAP_NET_ADMIN is missing");
    }

    #[test]
    fn streams_have_a_time_of_their_own() {
        let timeouts = FlowTimeouts { flow_s: 30, stream_s: 120 };
        assert_eq!([UNREPLIED, REPLIED, ASSURED].map(|state| timeouts.of(state)), [30, 30, 120]);
    }
}
