//! What to load and attach: a pure function of the facts in [`crate::host`].

use std::path::PathBuf;

use conn_common::name;

use crate::error::Error;
use crate::host::Host;

/// Hooks that see transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set: any of them may be there without the others")]
pub struct Witnesses {
    /// The program on the state tracepoint.
    pub set_state: bool,
    /// Its twin, which is not skipped where the first one is.
    pub set_state_again: bool,
    /// Socket operations.
    pub sock_ops: bool,
    /// The destruction of sockets, second chance for a missed end.
    pub destroy_sock: bool,
}

impl Witnesses {
    /// None of them.
    pub const NONE: Self =
        Self { set_state: false, set_state_again: false, sock_ops: false, destroy_sock: false };

    /// Parses a list of their names.
    ///
    /// # Errors
    /// Names the word that is no witness.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut chosen = Self::NONE;
        for word in text.split(',') {
            match word {
                name::SET_STATE => chosen.set_state = true,
                name::SET_STATE_AGAIN => chosen.set_state_again = true,
                name::SOCK_OPS => chosen.sock_ops = true,
                name::DESTROY_SOCK => chosen.destroy_sock = true,
                _ => return Err(format!("unknown witness {word:?}")),
            }
        }
        Ok(chosen)
    }
}

/// What will be used on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The hooks to attach: the cheapest set that misses nothing, see docs/exactness.md.
    pub witnesses: Witnesses,
    /// Where `sock_ops` is attached.
    pub cgroup_root: Option<PathBuf>,
    /// Shards of the ledger, a power of two.
    pub shards: u32,
    /// What this host cannot do, each with its consequence in plain words.
    pub degradations: Vec<&'static str>,
}

/// More shards than this only cost memory: CPUs that share one are far apart in time.
const MAX_SHARDS: u32 = 8;

/// Decides. `forced` witnesses are taken as they are, to compare them.
///
/// # Errors
/// Privileges or kernel features without which nothing works.
pub fn plan(host: &Host, forced: Option<Witnesses>) -> Result<Plan, Error> {
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
             ends, not when its SYN leaves, and listeners that begin from now on are not counted",
        );
    }
    let sock_ops = host.cgroup_root.is_some();
    // What one tracing program is skipped for, sock_ops sees; without it a second program does.
    let witnesses = Witnesses { set_state: true, set_state_again: !sock_ops, sock_ops, destroy_sock: true };
    Ok(Plan {
        witnesses: forced.unwrap_or(witnesses),
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
        let plan = plan(&good(), None)?;
        assert!(plan.degradations.is_empty());
        assert!(!plan.witnesses.set_state_again);
        assert_eq!(plan.shards, 2);
        Ok(())
    }

    #[test]
    fn without_cgroup_v2_the_tracepoint_is_watched_twice() -> Result<(), Error> {
        let plan = plan(&Host { cgroup_root: None, ..good() }, None)?;
        assert!(plan.witnesses.set_state_again && !plan.witnesses.sock_ops);
        assert_eq!(plan.degradations.len(), 1);
        Ok(())
    }

    #[test]
    fn refuses_by_name() {
        assert!(matches!(plan(&Host { capabilities: 0, ..good() }, None), Err(Error::NotRoot { .. })));
        assert!(matches!(plan(&Host { has_btf: false, ..good() }, None), Err(Error::NoBtf)));
    }

    #[test]
    fn shards_are_a_bounded_power_of_two() -> Result<(), Error> {
        for (cpus, shards) in [(1, 1), (3, 4), (8, 8), (96, 8)] {
            assert_eq!(plan(&Host { possible_cpus: cpus, ..good() }, None)?.shards, shards);
        }
        Ok(())
    }

    #[test]
    fn witnesses_can_be_forced() -> Result<(), Error> {
        let forced = Witnesses::parse("sock_ops,destroy_sock").map_err(Error::Usage)?;
        assert_eq!(forced, Witnesses { sock_ops: true, destroy_sock: true, ..Witnesses::NONE });
        assert_eq!(plan(&good(), Some(forced))?.witnesses, forced);
        assert!(Witnesses::parse("set_state,kprobe").is_err());
        Ok(())
    }
}
