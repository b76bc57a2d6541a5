//! What to load and attach: a pure function of the facts in [`crate::host`].

use std::path::PathBuf;

use crate::error::Error;
use crate::host::Host;

/// What will be used on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Attach the second program on the state tracepoint: needed where nothing else sees what the
    /// first one is skipped for.
    pub set_state_again: bool,
    /// Attach sock_ops to this cgroup v2 root.
    pub cgroup_root: Option<PathBuf>,
    /// Shards of the ledger, a power of two.
    pub shards: u32,
    /// What this host cannot do, each with its consequence in plain words.
    pub degradations: Vec<&'static str>,
}

/// More shards than this only cost memory: CPUs that share one are far apart in time.
const MAX_SHARDS: u32 = 8;

/// Decides.
///
/// # Errors
/// Privileges or kernel features without which nothing works.
pub fn plan(host: &Host) -> Result<Plan, Error> {
    let missing = host.missing_capabilities();
    if !missing.is_empty() {
        return Err(Error::NotRoot { missing: missing.join(", ") });
    }
    if !host.has_btf {
        return Err(Error::NoBtf);
    }
    let mut degradations = Vec::new();
    if host.cgroup_root.is_none() {
        degradations.push(
            "no cgroup v2 hierarchy is mounted: NEW of an outgoing connection is told when its handshake \
             ends, not when its SYN leaves",
        );
    }
    Ok(Plan {
        set_state_again: host.cgroup_root.is_none(),
        cgroup_root: host.cgroup_root.clone(),
        shards: host.possible_cpus.next_power_of_two().min(MAX_SHARDS),
        degradations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Host {
        Host {
            capabilities: u64::MAX,
            has_btf: true,
            cgroup_root: Some(PathBuf::from("/sys/fs/cgroup")),
            possible_cpus: 2,
        }
    }

    #[test]
    fn a_good_host_has_no_degradation() -> Result<(), Error> {
        let plan = plan(&good())?;
        assert!(plan.degradations.is_empty());
        assert!(!plan.set_state_again);
        assert_eq!(plan.shards, 2);
        Ok(())
    }

    #[test]
    fn without_cgroup_v2_the_tracepoint_is_watched_twice() -> Result<(), Error> {
        let plan = plan(&Host { cgroup_root: None, ..good() })?;
        assert!(plan.set_state_again);
        assert_eq!(plan.degradations.len(), 1);
        Ok(())
    }

    #[test]
    fn refuses_by_name() {
        assert!(matches!(plan(&Host { capabilities: 0, ..good() }), Err(Error::NotRoot { .. })));
        assert!(matches!(plan(&Host { has_btf: false, ..good() }), Err(Error::NoBtf)));
    }

    #[test]
    fn shards_are_a_bounded_power_of_two() -> Result<(), Error> {
        for (cpus, shards) in [(1, 1), (3, 4), (8, 8), (96, 8)] {
            assert_eq!(plan(&Host { possible_cpus: cpus, ..good() })?.shards, shards);
        }
        Ok(())
    }
}
