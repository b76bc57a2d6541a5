//! Skips that a run in CI accepts. Every other skip fails there: a test that runs nowhere protects nothing.

/// One accepted skip.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The test, with the machine before it if the test ran in a virtual one: `vm 6.1 event::…`.
    test: &'static str,
    /// A part of the reason that the test gives.
    reason: &'static str,
    /// The machine or kernel that cannot run the test.
    on: &'static str,
    /// The cause, and what covers the case instead.
    why: &'static str,
}

/// The list.
const ACCEPTED: [Accepted; 9] = [
    Accepted {
        test: "hook_matrix::accepts_by_graft",
        reason: "this kernel lets no program see accepts by graft",
        on: "hosts without BPF trampolines, such as a Firecracker machine with Linux 6.18",
        why: "the kernel refuses programs on the entry and return of functions; the virtual machines run the test",
    },
    Accepted {
        test: "hook_matrix::accepts_by_function",
        reason: "this kernel lets no program see accepts by function",
        on: "hosts without BPF trampolines, such as a Firecracker machine with Linux 6.18",
        why: "the kernel refuses programs on the return of functions; the virtual machines run the test",
    },
    Accepted {
        test: "vm 6.1 attacks::storage::no_connection_hides_behind_a_full_table",
        reason: "this kernel has one optmem_max for all network namespaces",
        on: "kernels before net.core.optmem_max belonged to a network namespace",
        why: "no user can set the limit there; this host and the other machines run the test",
    },
    Accepted {
        test: "vm 6.1 attacks::storage::no_connection_hides_where_there_is_no_table",
        reason: "this kernel has one optmem_max for all network namespaces",
        on: "kernels before net.core.optmem_max belonged to a network namespace",
        why: "no user can set the limit there; this host and the other machines run the test",
    },
    Accepted {
        test: "coexistence::interpreted_programs_count_the_same",
        reason: "/proc/sys/net/core/bpf_jit_enable cannot be set to 0",
        on: "kernels with CONFIG_BPF_JIT_ALWAYS_ON, such as those of distributions",
        why: "such a kernel contains no interpreter, so no program can be interpreted there",
    },
    Accepted {
        test: "forwarded::paths::a_flow_across_a_bridge_passes_through",
        reason: "this kernel has no br_netfilter, or has not loaded it",
        on: "kernels without CONFIG_BRIDGE_NETFILTER, and those that have it as a module that nothing has loaded",
        why: "such a kernel tracks no packet of a bridge, so there is no flow; other tests show flows between interfaces",
    },
    Accepted {
        test: "forwarded::flowtable::a_flush_ends_offloaded_flows_as_conntrack_shows",
        reason: "this kernel has no flowtables",
        on: "kernels without CONFIG_NF_FLOW_TABLE, such as a Firecracker machine with Linux 6.18",
        why: "such a kernel offloads no flow; the virtual machines run the test",
    },
    Accepted {
        test: "forwarded::flowtable::offloaded_flows_have_all_packets_if_the_flowtable_counts",
        reason: "this kernel has no flowtables",
        on: "kernels without CONFIG_NF_FLOW_TABLE, such as a Firecracker machine with Linux 6.18",
        why: "such a kernel offloads no flow; the virtual machines run the test",
    },
    Accepted {
        test: "forwarded::flowtable::offloaded_flows_have_the_packets_that_the_kernel_counts",
        reason: "this kernel has no flowtables",
        on: "kernels without CONFIG_NF_FLOW_TABLE, such as a Firecracker machine with Linux 6.18",
        why: "such a kernel offloads no flow; the virtual machines run the test",
    },
];

/// Why CI accepts that this test was skipped for this reason, if it does.
pub(crate) fn accepted(test: &str, reason: &str) -> Option<String> {
    let found = ACCEPTED.iter().find(|one| one.test == test && reason.contains(one.reason))?;
    Some(format!("accepted on {}: {}", found.on, found.why))
}

/// Whether this run must fail on other skips: `CI` is set, and neither to `false` nor to `0`.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| is_yes(&value))
}

fn is_yes(value: &str) -> bool {
    !["", "0", "false"].contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listed_test_with_its_reason_is_accepted() {
        let reason = "this kernel lets no program see accepts by graft";
        let found = accepted("hook_matrix::accepts_by_graft", reason).expect("a listed skip");
        assert!(found.starts_with("accepted on hosts without BPF trampolines"), "{found}");
        assert_eq!(accepted("hook_matrix::accepts_by_graft", "needs root, runs as uid 1000"), None);
        assert_eq!(accepted("hook_matrix::accepts_by_syscalls", reason), None);
        assert_eq!(accepted("vm 6.1 hook_matrix::accepts_by_graft", reason), None);
    }

    #[test]
    fn every_entry_has_a_machine_and_a_cause() {
        for one in &ACCEPTED {
            assert!(one.test.contains("::") && one.reason.len() > 10, "{one:?}");
            assert!(one.on.len() > 10 && one.why.len() > 10, "{one:?}");
        }
    }

    #[test]
    fn ci_is_off_unless_set() {
        assert!(is_yes("true") && is_yes("1"));
        assert!(!is_yes("false") && !is_yes("0") && !is_yes(""));
    }
}
