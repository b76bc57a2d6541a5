//! The plan of the programs to load and attach: a pure function of the facts in [`crate::host::facts`].

use std::path::PathBuf;

use conn_common::name;

use crate::complaint::{Complaint, as_typed, complaint};
use crate::host::accept_hook::AcceptHook;
use crate::host::facts::{Host, KERNEL_BTF};

/// A set of hooks that see transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set: any of them may be there without the others")]
pub struct HookSet {
    /// The program on the state tracepoint.
    pub set_state: bool,
    /// A second program on the tracepoint: a nested run skips one program, not both.
    pub set_state_again: bool,
    /// Socket operations.
    pub sock_ops: bool,
    /// The destruction of sockets, second chance for a missed end.
    pub destroy_sock: bool,
}

impl HookSet {
    /// The empty set.
    pub const NONE: Self =
        Self { set_state: false, set_state_again: false, sock_ops: false, destroy_sock: false };

    /// The names of the chosen hooks, for people.
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.set_state, name::SET_STATE),
            (self.set_state_again, name::SET_STATE_AGAIN),
            (self.sock_ops, name::SOCK_OPS),
            (self.destroy_sock, name::DESTROY_SOCK),
        ]
        .into_iter()
        .filter(|(chosen, _)| *chosen)
        .map(|(_, name)| name)
        .collect()
    }

    /// Parses a comma-separated list of names.
    ///
    /// # Errors
    /// A word is not the name of a hook.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let mut chosen = Self::NONE;
        for word in text.split(',') {
            match word {
                name::SET_STATE => chosen.set_state = true,
                name::SET_STATE_AGAIN => chosen.set_state_again = true,
                name::SOCK_OPS => chosen.sock_ops = true,
                name::DESTROY_SOCK => chosen.destroy_sock = true,
                _ => {
                    return Err(complaint!(
                        "unknown hook {}: use set_state, set_state_again, sock_ops, destroy_sock",
                        as_typed(word)
                    ));
                }
            }
        }
        Ok(chosen)
    }

    /// The names of their programs, in the order of loading.
    pub fn programs(self) -> impl Iterator<Item = &'static str> {
        [
            (self.sock_ops, name::SOCK_OPS),
            (self.set_state, name::SET_STATE),
            (self.set_state_again, name::SET_STATE_AGAIN),
            (self.destroy_sock, name::DESTROY_SOCK),
        ]
        .into_iter()
        .filter_map(|(wanted, name)| wanted.then_some(name))
    }
}

/// The hooks and sizes of a run on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The hooks to attach: the cheapest set that misses nothing, see docs/exactness.md.
    pub hooks: HookSet,
    /// Where `sock_ops` is attached.
    pub cgroup_root: Option<PathBuf>,
    /// CPUs that may ever come online.
    pub cpus: u32,
    /// Shards of the ledger, a power of two.
    pub shards: u32,
    /// Number of open files on the host.
    pub open_files: u32,
    /// Features that work less well on this host.
    pub degradations: Vec<Degradation>,
}

impl Plan {
    /// The plan without a program that the kernel refused, and the degradation that it brings. `None` if no other plan
    /// exists. `is_taken`: another program has the place for itself.
    pub fn without(&self, program: &str, is_taken: bool) -> Option<Self> {
        let hooks = self.hooks;
        let (hooks, degradation) = match program {
            name::SOCK_OPS if hooks.sock_ops => (
                HookSet { sock_ops: false, set_state: true, set_state_again: true, ..hooks },
                if is_taken { SOCK_OPS_TAKEN } else { SOCK_OPS_REFUSED },
            ),
            name::DESTROY_SOCK if hooks.destroy_sock => {
                (HookSet { destroy_sock: false, ..hooks }, DESTROY_SOCK_REFUSED)
            }
            name::SET_STATE_AGAIN if hooks.set_state_again => {
                (HookSet { set_state_again: false, ..hooks }, SET_STATE_AGAIN_REFUSED)
            }
            _ => return None,
        };
        let mut degradations = self.degradations.clone();
        degradations.push(degradation);
        Some(Self { hooks, degradations, ..self.clone() })
    }
}

/// A feature that works less well on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Degradation {
    /// The fact that this host lacks.
    pub fact: &'static str,
    /// The consequence of the fact.
    pub consequence: &'static str,
    /// The remedy.
    pub remedy: &'static str,
    /// A warning at every start; otherwise only `doctor` and `-v` print the degradation.
    pub warn: bool,
}

impl std::fmt::Display for Degradation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.fact, self.consequence)
    }
}

/// The consequence of running without `sock_ops`.
const WITHOUT_SOCK_OPS: &str = "NEW of an outgoing connection comes when its handshake ends, not when its SYN leaves; \
                                listeners that begin from now on are neither counted nor named as owners; on Linux 7.2 \
                                hooks may miss steps, which the audit of stats repairs";

/// The host has no cgroup v2 hierarchy, or shows a part only.
pub const NO_CGROUP: Degradation = Degradation {
    fact: "the root of the cgroup v2 hierarchy is not mounted",
    consequence: WITHOUT_SOCK_OPS,
    remedy: "mount it: mount -t cgroup2 none /sys/fs/cgroup; in a container, also share the host's cgroup namespace \
             (--cgroupns=host)",
    warn: true,
};

/// This process must not load networking programs.
pub const NO_NET_ADMIN: Degradation = Degradation {
    fact: "CAP_NET_ADMIN is missing",
    consequence: WITHOUT_SOCK_OPS,
    remedy: "run as root, or add the capability",
    warn: true,
};

/// Another program has socket operations for itself.
pub const SOCK_OPS_TAKEN: Degradation = Degradation {
    fact: "another program has the socket operations of the cgroup v2 root for itself (attached without \
           BPF_F_ALLOW_MULTI)",
    consequence: WITHOUT_SOCK_OPS,
    remedy: "end that program, or let it attach with BPF_F_ALLOW_MULTI; `bpftool cgroup show /sys/fs/cgroup` names it",
    warn: true,
};

/// The kernel refuses socket operations.
pub const SOCK_OPS_REFUSED: Degradation = Degradation {
    fact: "the kernel refuses the program on socket operations of the cgroup v2 root",
    consequence: WITHOUT_SOCK_OPS,
    remedy: "-v prints the kernel's answer",
    warn: true,
};

/// The kernel refuses the hook on the destruction of sockets.
pub const DESTROY_SOCK_REFUSED: Degradation = Degradation {
    fact: "the kernel refuses the program on tcp_destroy_sock",
    consequence: "an end that the other hooks miss is made good by the audit of stats only",
    remedy: "-v prints the kernel's answer",
    warn: true,
};

/// The kernel refuses the second program on the state tracepoint.
pub const SET_STATE_AGAIN_REFUSED: Degradation = Degradation {
    fact: "the kernel refuses a second program on inet_sock_set_state",
    consequence: "steps for which the kernel skips the first one are made good by the next step, or by the audit of stats",
    remedy: "-v prints the kernel's answer",
    warn: true,
};

/// This process runs in a pid namespace of its own.
pub const FEW_PROCESSES: Degradation = Degradation {
    fact: "conntrace runs in a pid namespace of its own",
    consequence: "it does not see processes outside: their connections from before the start have no owner, and \
                  their network namespaces are found at the first event there; process ids are those of the host",
    remedy: "run conntrace on the host, or share the host's pid namespace (--pid=host)",
    warn: false,
};

/// This process must not enter namespaces.
pub const NO_ENTRY: Degradation = Degradation {
    fact: "CAP_SYS_ADMIN or CAP_SYS_PTRACE is missing",
    consequence: "conntrace cannot enter other network namespaces: connections that were open there before the \
                  start are shown from their next event on, and the audit cannot compare them",
    remedy: "run as root, or add both capabilities",
    warn: false,
};

/// The kernel interprets programs.
pub const NO_JIT: Degradation = Degradation {
    fact: "the kernel does not compile BPF programs (net.core.bpf_jit_enable=0)",
    consequence: "each event costs several times as much",
    remedy: "sysctl net.core.bpf_jit_enable=1",
    warn: false,
};

/// The kernel allows no hook for accepts.
pub const NO_ACCEPT: Degradation = Degradation {
    fact: "the kernel lets no program see accepts",
    consequence: "the owner of an accepted connection is the listening process (owner=listener), if it is known",
    remedy: "use a kernel with BPF trampolines (CONFIG_FUNCTION_TRACER), or one with CONFIG_FTRACE_SYSCALLS and run \
             conntrace as root",
    warn: true,
};

/// The exits of system calls see accepts.
pub const ACCEPT_BY_SYSCALLS: Degradation = Degradation {
    fact: "the kernel lets no program run on the return of a function",
    consequence: "conntrace sees accepts at the exits of system calls, which costs each system call of the host some \
                  nanoseconds; a connection that io_uring accepts keeps its listener as owner",
    remedy: "use a kernel that has BPF trampolines and allows them (no lockdown)",
    warn: false,
};

/// Why no run works on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Privileges are missing.
    #[error(
        "conntrace needs root (or CAP_BPF and CAP_PERFMON, better with CAP_NET_ADMIN): run it with sudo\n\
         missing here: {}",
        missing.join(", ")
    )]
    MissingCapabilities {
        /// The capabilities that this process lacks.
        missing: Vec<&'static str>,
    },
    /// The file system of processes is missing.
    #[error(
        "/proc is not mounted: conntrace finds processes, network namespaces and its own descriptors there"
    )]
    NoProc,
    /// The kernel does not describe its types.
    #[error(
        "this kernel has no type information ({KERNEL_BTF}): conntrace needs it to read kernel structures"
    )]
    NoBtf,
    /// The command line chooses `sock_ops`, but the host has no cgroup root to attach it to.
    #[error("sock_ops was chosen, but {}", NO_CGROUP.fact)]
    NoCgroupForSockOps,
    /// The host has no place for the hooks of flows.
    #[error("UDP was asked for, but {fact}")]
    NoFlows {
        /// The fact that this host lacks.
        fact: &'static str,
        /// The remedy.
        remedy: &'static str,
    },
}

impl PlanError {
    /// The remedy, unless the message has it.
    pub const fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NoProc => Some("mount it: mount -t proc proc /proc"),
            Self::NoBtf => Some(
                "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all current distributions do, and have /sys mounted",
            ),
            Self::NoFlows { remedy, .. } => Some(remedy),
            Self::MissingCapabilities { .. } | Self::NoCgroupForSockOps => None,
        }
    }
}

/// The most shards. More shards only cost memory: CPUs rarely write to a shared one at the same time.
const MAX_SHARDS: u32 = 8;

/// Derives the plan. `forced` hooks replace the planned ones, to compare sets.
///
/// # Errors
/// A required privilege or kernel feature is missing.
pub fn plan(host: &Host, forced: Option<HookSet>) -> Result<Plan, PlanError> {
    let missing = host.missing_capabilities();
    if !missing.is_empty() {
        return Err(PlanError::MissingCapabilities { missing });
    }
    if !host.has_proc {
        return Err(PlanError::NoProc);
    }
    if !host.has_btf {
        return Err(PlanError::NoBtf);
    }
    let degradations = [
        (host.cgroup_root.is_none(), NO_CGROUP),
        (!host.may_change_network(), NO_NET_ADMIN),
        (!host.sees_all_processes, FEW_PROCESSES),
        (!host.may_look_everywhere(), NO_ENTRY),
        (host.has_jit == Some(false), NO_JIT),
    ];
    let sock_ops = host.cgroup_root.is_some() && host.may_change_network();
    // `sock_ops` sees the steps for which the kernel skips a tracing program. Without `sock_ops`, a second tracing
    // program does.
    let planned = HookSet { set_state: true, set_state_again: !sock_ops, sock_ops, destroy_sock: true };
    let hooks = forced.unwrap_or(planned);
    if hooks.sock_ops && host.cgroup_root.is_none() {
        return Err(PlanError::NoCgroupForSockOps);
    }
    Ok(Plan {
        hooks,
        cgroup_root: host.cgroup_root.clone(),
        cpus: host.possible_cpus,
        shards: host.possible_cpus.next_power_of_two().min(MAX_SHARDS),
        open_files: host.open_files,
        degradations: degradations.into_iter().filter(|(holds, _)| *holds).map(|(_, one)| one).collect(),
    })
}

/// The degradation that comes with a hook for accepts, if any.
pub fn accepts(hook: Option<AcceptHook>) -> Option<Degradation> {
    match hook {
        Some(AcceptHook::Graft | AcceptHook::Function) => None,
        Some(AcceptHook::Syscalls) => Some(ACCEPT_BY_SYSCALLS),
        None => Some(NO_ACCEPT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Host {
        Host::good()
    }

    #[test]
    fn a_good_host_has_no_degradation() -> Result<(), PlanError> {
        let plan = plan(&good(), None)?;
        assert!(plan.degradations.is_empty());
        assert!(!plan.hooks.set_state_again);
        assert_eq!(plan.shards, 2);
        Ok(())
    }

    #[test]
    fn missing_cgroup_v2_adds_a_second_tracing_program() -> Result<(), PlanError> {
        let plan = plan(&Host { cgroup_root: None, ..good() }, None)?;
        assert!(plan.hooks.set_state_again && !plan.hooks.sock_ops);
        assert_eq!(plan.degradations, [NO_CGROUP]);
        Ok(())
    }

    #[test]
    fn missing_cap_net_admin_disables_sock_ops() -> Result<(), PlanError> {
        // Neither CAP_NET_ADMIN nor CAP_SYS_ADMIN, which implies it for bpf(2).
        let plan = plan(&Host { capabilities: !(1 << 12 | 1 << 21), ..good() }, None)?;
        assert!(plan.hooks.set_state_again && !plan.hooks.sock_ops);
        assert_eq!(plan.degradations, [NO_NET_ADMIN, NO_ENTRY]);
        Ok(())
    }

    #[test]
    fn each_missing_fact_degrades_once() -> Result<(), PlanError> {
        let few = Host { sees_all_processes: false, ..good() };
        // CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
        let unprivileged = Host { capabilities: 1 << 39 | 1 << 38 | 1 << 12, ..good() };
        let interpreted = Host { has_jit: Some(false), ..good() };
        for (host, degradation) in [(few, FEW_PROCESSES), (unprivileged, NO_ENTRY), (interpreted, NO_JIT)] {
            let plan = plan(&host, None)?;
            assert_eq!(plan.degradations, [degradation]);
            assert_eq!(plan.hooks, super::plan(&good(), None)?.hooks);
        }
        assert!(plan(&Host { has_jit: None, ..good() }, None)?.degradations.is_empty());
        Ok(())
    }

    #[test]
    fn each_accept_hook_has_its_degradation() {
        let found = [None, Some(AcceptHook::Syscalls), Some(AcceptHook::Function), Some(AcceptHook::Graft)];
        assert_eq!(found.map(accepts), [Some(NO_ACCEPT), Some(ACCEPT_BY_SYSCALLS), None, None]);
    }

    #[test]
    fn missing_requirements_are_named() {
        assert!(matches!(
            plan(&Host { capabilities: 0, ..good() }, None),
            Err(PlanError::MissingCapabilities { .. })
        ));
        assert!(matches!(plan(&Host { has_btf: false, ..good() }, None), Err(PlanError::NoBtf)));
        // Root has its capabilities without /proc, too.
        assert!(matches!(plan(&Host { has_proc: false, ..good() }, None), Err(PlanError::NoProc)));
    }

    #[test]
    fn shards_are_a_bounded_power_of_two() -> Result<(), PlanError> {
        for (cpus, shards) in [(1, 1), (3, 4), (8, 8), (96, 8)] {
            assert_eq!(plan(&Host { possible_cpus: cpus, ..good() }, None)?.shards, shards);
        }
        Ok(())
    }

    #[test]
    fn refused_hook_has_a_plan_without_it() -> Result<(), PlanError> {
        let planned = plan(&good(), None)?;
        let blind = planned.without(name::SOCK_OPS, true).unwrap();
        assert_eq!(blind.hooks, plan(&Host { cgroup_root: None, ..good() }, None)?.hooks);
        assert_eq!(blind.degradations, [SOCK_OPS_TAKEN]);
        assert_eq!(planned.without(name::SOCK_OPS, false).unwrap().degradations, [SOCK_OPS_REFUSED]);
        let single = blind.without(name::SET_STATE_AGAIN, false).unwrap();
        assert_eq!(single.degradations, [SOCK_OPS_TAKEN, SET_STATE_AGAIN_REFUSED]);
        let least = single.without(name::DESTROY_SOCK, false).unwrap();
        assert_eq!(least.hooks, HookSet { set_state: true, ..HookSet::NONE });
        // Each refusal leaves a smaller plan, and nothing works without the first program.
        for program in
            [name::SOCK_OPS, name::SET_STATE_AGAIN, name::DESTROY_SOCK, name::SET_STATE, "tcp_adopt"]
        {
            assert_eq!(least.without(program, false), None, "{program}");
        }
        Ok(())
    }

    #[test]
    fn hooks_can_be_forced() -> Result<(), PlanError> {
        let forced = HookSet::parse("sock_ops,destroy_sock").unwrap();
        assert_eq!(forced, HookSet { sock_ops: true, destroy_sock: true, ..HookSet::NONE });
        assert_eq!(plan(&good(), Some(forced))?.hooks, forced);
        assert!(HookSet::parse("set_state,kprobe").is_err());
        let nowhere = Host { cgroup_root: None, ..good() };
        assert!(matches!(plan(&nowhere, Some(forced)), Err(PlanError::NoCgroupForSockOps)));
        Ok(())
    }
}
