//! Frozen globals. The loader sets them before the verifier sees the programs, so the verifier removes the branches that a
//! run does not need and folds the offsets into the loads.

use aya_ebpf::Global;
use conn_common::filter::{Modes, PORT_WORDS, PortBits};

// A global with a section of its own is never merged with an equal constant of a program (LLVM's `ConstantMerge`). Else a
// `&0` of a program would have the value that the loader sets.
macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".rodata")]
            pub(crate) static $name: Global<$type> = Global::new($default);
        )*
    };
}

globals! {
    /// Mask of event kinds that go into the ring, or `conn_common::remote::INSTEAD_OF_EVENTS`.
    WANTED_KINDS: u8 = 0;
    /// 1 if attempts that never become a connection go into the ring.
    ATTEMPTS_WANTED: u8 = 0;
    /// The drop reason of a refused SYN, if the kernel shows it so only.
    DROP_NO_SOCKET: u32 = 0;
    /// The drop reason of an ACK that found the accept queue full.
    DROP_QUEUE_FULL: u32 = 0;
    /// Mask of directions that go into the ring.
    WANTED_DIRECTIONS: u8 = 0;
    /// Mask of families that go into the ring.
    WANTED_FAMILIES: u8 = 0;
    /// Mask of states that go into the ring.
    WANTED_STATES: u16 = 0;
    /// The modes of the filter's sets.
    SET_MODES: Modes = 0;
    /// The bits of a mark that count, if the filter tests marks.
    MARK_MASK: u32 = 0;
    /// The wanted mark under that mask.
    WANTED_MARK: u32 = 0;
    /// 1 if sock_ops sees each connect with its whole tuple.
    CONNECT_IS_SEEN: u8 = 0;
    /// How much the run needs of owners, see `conn_common::name`.
    OWNERS: u8 = 0;
    /// What lists show beside what is counted, see `conn_common::name`.
    LISTED: u8 = 0;
    /// 1 if steps go into the ledger, `conn_common::remote::BESIDE_COUNTS` if remote addresses are counted, too.
    COUNTS_ON: u8 = 0;
    /// 1 if there is a table of the ledger's slots.
    LEDGER_HAS_TABLE: u8 = 0;
    /// Binary logarithm of the number of slots in the tables of sockets; 0 if there is none.
    TABLE_BITS: u32 = 0;
    /// 1 if the programs may use compare-and-exchange.
    HAS_EXCHANGE: u8 = 0;
    /// 1 if handshakes and lifetimes go into histograms.
    SPANS_ON: u8 = 0;
    /// What remote addresses are counted by, see `conn_common::remote`.
    REMOTES_BY: u8 = 0;
    /// 1 if only the ports in a map have their remote addresses counted.
    REMOTES_OF_SLOTS: u8 = 0;
    /// Offset of a system call's result in the record of its exit.
    SYSCALL_RESULT: u32 = 0;
    /// Shards of the ledger, less one.
    SHARD_MASK: u32 = 0;
    /// The seeds of the hashes of flows.
    FLOW_SEED: u64 = 0;
    /// The second one.
    FLOW_SEED_2: u64 = 0;
    /// 1 if flows are counted per port.
    FLOWS_COUNTED: u8 = 0;
    /// Binary logarithm of the buckets of flows.
    FLOW_BITS: u32 = 1;
    /// The idle time of a flow, in ticks.
    FLOW_TIMEOUT: u32 = 0;
    /// The idle time of a stream, in ticks.
    FLOW_STREAM_TIMEOUT: u32 = 0;
    /// Ticks after which a packet makes a stream of a flow with a reply.
    FLOW_STREAM_AFTER: u32 = 0;
    /// Ticks for which the slot of a flow that has ended stays.
    FLOW_GRACE: u32 = 0;
    /// Nanoseconds of a tick.
    FLOW_TICK_NS: u32 = 0;
}

/// Wanted service ports.
#[unsafe(no_mangle)]
pub(crate) static SERVICE_PORTS: PortBits = [0; PORT_WORDS];
/// Wanted source ports.
#[unsafe(no_mangle)]
pub(crate) static SOURCE_PORTS: PortBits = [0; PORT_WORDS];

/// One offset per field of `conn_common::layout`, under the same name.
macro_rules! offsets {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) static $name: Global<u32> = Global::new(0);
        )*
    };
}

offsets! {
    SKC_DADDR SKC_RCV_SADDR SKC_DPORT SKC_NUM SKC_FAMILY SKC_STATE SKC_BOUND_DEV_IF SKC_NET SKC_V6_DADDR SKC_V6_RCV_SADDR
    SKC_FLAGS SK_ERR SK_MARK SK_PROTOCOL SK_UID SK_BPF_STORAGE SK_SOCKET SK_SHUTDOWN SK_LINGERTIME SK_ACK_BACKLOG SK_MAX_ACK_BACKLOG INET_SPORT INET_MC_INDEX
    INET_PINET6 PINFO_MCAST_OIF TCP_BYTES_SENT TCP_BYTES_RETRANS TCP_BYTES_RECEIVED TCP_TOTAL_RETRANS
    TCP_SEGS_OUT TCP_SEGS_IN TCP_SRTT_US TCP_RTT_MIN TCP_LSNDTIME ICSK_LRCVTIME TCP_LINGER2 TCP_REPAIR TCP_FASTOPEN_REQ TCP_RCV_NXT
    TCP_COPIED_SEQ TCP_WRITE_SEQ TCP_SND_UNA
    TW_SUBSTATE SOCKET_SK SOCKET_FILE FILE_CRED FILE_INODE FILE_PRIVATE_DATA FILES_FDT FDTABLE_FD INODE_INO INODE_SB SB_MAGIC NET_INUM
    TASK_TGID TASK_PID TASK_FLAGS TASK_EXIT_STATE TASK_COMM TASK_FILES TASK_NSPROXY NSPROXY_NET TASK_GROUP_LEADER TASK_START_BOOTTIME TASK_CRED
    CRED_UID CRED_USER_NS USER_NS_LEVEL USER_NS_PARENT USER_NS_OWNER TASK_CGROUPS CSS_SET_DFL_CGRP CGROUP_KN KERNFS_NODE_ID
    SOCKET_INODE FILE_DENTRY DENTRY_NAME SK_DROPS ICSK_QLEN SKB_HEAD SKB_NETWORK_HEADER SKB_TRANSPORT_HEADER SKB_DEV SKB_SK NETDEV_NET SOCK_OPS_SK
    MPTCP_FIRST MPTCP_CONN_LIST SUBFLOW_NODE SUBFLOW_TCP_SOCK SUBFLOW_CONN ICSK_ULP_OPS ICSK_ULP_DATA ULP_NAME TW_TB TB_FASTREUSE
    SK_RMEM_ALLOC SK_WMEM_ALLOC SK_DROP_COUNTERS DROPS_FIRST DROPS_SECOND UDP_FORWARD_DEFICIT
}
