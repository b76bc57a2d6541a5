//! Which fields of kernel structures the programs read. Offsets are found in the running kernel's
//! BTF at load time and handed over as frozen globals; none is known at compile time.

/// A field of a kernel structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The global in the programs that holds the offset.
    pub global: &'static str,
    /// The structure.
    pub structure: &'static str,
    /// The member, with dots through nested structures.
    pub path: &'static str,
    /// Its size in bytes, checked against the kernel's; [`BIT`] for one bit.
    pub size: u32,
}

/// The size of a field that is one bit. Its global holds its number, from the start of the structure: that of the byte
/// times 8, and of the bit in that byte.
pub const BIT: u32 = 0;

/// The kernel's accept function. Kernels differ in how many parameters it has.
pub const ACCEPT: &str = "inet_csk_accept";
/// The security hook that gives an accepted socket to its file.
pub const GRAFT: &str = "security_sock_graft";
/// The structure of a kernel that walks TCP sockets under their lock (since 5.15). Without that lock, a socket could
/// change while it is adopted.
pub const LOCKED_WALK: &str = "bpf_tcp_iter_state";

/// Declares a list of fields; the macro in conn-ebpf declares one global for each by the same names.
macro_rules! fields {
    ($(#[$doc:meta])* $list:ident: $($global:ident: $structure:literal $path:literal $size:literal;)*) => {
        $(#[$doc])*
        pub const $list: &[Field] = &[
            $(Field { global: stringify!($global), structure: $structure, path: $path, size: $size }),*
        ];
    };
}

fields! {
    /// Fields that every kernel has.
    FIELDS:
    SKC_DADDR: "sock_common" "skc_daddr" 4;
    SKC_RCV_SADDR: "sock_common" "skc_rcv_saddr" 4;
    SKC_DPORT: "sock_common" "skc_dport" 2;
    SKC_NUM: "sock_common" "skc_num" 2;
    SKC_FAMILY: "sock_common" "skc_family" 2;
    SKC_STATE: "sock_common" "skc_state" 1;
    SKC_BOUND_DEV_IF: "sock_common" "skc_bound_dev_if" 4;
    SKC_NET: "sock_common" "skc_net.net" 8;
    SKC_V6_DADDR: "sock_common" "skc_v6_daddr" 16;
    SKC_V6_RCV_SADDR: "sock_common" "skc_v6_rcv_saddr" 16;
    SK_ERR: "sock" "sk_err" 4;
    SK_MARK: "sock" "sk_mark" 4;
    SK_SOCKET: "sock" "sk_socket" 8;
    SK_SHUTDOWN: "sock" "sk_shutdown" 1;
    SK_LINGERTIME: "sock" "sk_lingertime" 8;
    SK_ACK_BACKLOG: "sock" "sk_ack_backlog" 4;
    SK_MAX_ACK_BACKLOG: "sock" "sk_max_ack_backlog" 4;
    SKC_FLAGS: "sock_common" "skc_flags" 8;
    INET_SPORT: "inet_sock" "inet_sport" 2;
    INET_MC_INDEX: "inet_sock" "mc_index" 4;
    INET_PINET6: "inet_sock" "pinet6" 8;
    PINFO_MCAST_OIF: "ipv6_pinfo" "mcast_oif" 4;
    TCP_BYTES_SENT: "tcp_sock" "bytes_sent" 8;
    TCP_BYTES_RETRANS: "tcp_sock" "bytes_retrans" 8;
    TCP_BYTES_RECEIVED: "tcp_sock" "bytes_received" 8;
    TCP_TOTAL_RETRANS: "tcp_sock" "total_retrans" 4;
    TCP_SEGS_OUT: "tcp_sock" "segs_out" 4;
    TCP_SEGS_IN: "tcp_sock" "segs_in" 4;
    TCP_SRTT_US: "tcp_sock" "srtt_us" 4;
    TCP_RTT_MIN: "tcp_sock" "rtt_min" 24;
    TCP_LSNDTIME: "tcp_sock" "lsndtime" 4;
    ICSK_LRCVTIME: "inet_connection_sock" "icsk_ack.lrcvtime" 4;
    TCP_LINGER2: "tcp_sock" "linger2" 4;
    TCP_REPAIR: "tcp_sock" "repair" 0;
    TCP_FASTOPEN_REQ: "tcp_sock" "fastopen_req" 8;
    TCP_RCV_NXT: "tcp_sock" "rcv_nxt" 4;
    TCP_COPIED_SEQ: "tcp_sock" "copied_seq" 4;
    TCP_WRITE_SEQ: "tcp_sock" "write_seq" 4;
    TCP_SND_UNA: "tcp_sock" "snd_una" 4;
    SK_PROTOCOL: "sock" "sk_protocol" 2;
    SK_UID: "sock" "sk_uid" 4;
    SK_BPF_STORAGE: "sock" "sk_bpf_storage" 8;
    TW_SUBSTATE: "inet_timewait_sock" "tw_substate" 1;
    SOCKET_SK: "socket" "sk" 8;
    SOCKET_FILE: "socket" "file" 8;
    FILE_PRIVATE_DATA: "file" "private_data" 8;
    FILES_FDT: "files_struct" "fdt" 8;
    FDTABLE_FD: "fdtable" "fd" 8;
    FILE_CRED: "file" "f_cred" 8;
    FILE_INODE: "file" "f_inode" 8;
    INODE_INO: "inode" "i_ino" 8;
    INODE_SB: "inode" "i_sb" 8;
    SB_MAGIC: "super_block" "s_magic" 8;
    NET_INUM: "net" "ns.inum" 4;
    TASK_TGID: "task_struct" "tgid" 4;
    TASK_PID: "task_struct" "pid" 4;
    TASK_FLAGS: "task_struct" "flags" 4;
    TASK_EXIT_STATE: "task_struct" "exit_state" 4;
    TASK_COMM: "task_struct" "comm" 16;
    TASK_FILES: "task_struct" "files" 8;
    TASK_NSPROXY: "task_struct" "nsproxy" 8;
    NSPROXY_NET: "nsproxy" "net_ns" 8;
    TASK_GROUP_LEADER: "task_struct" "group_leader" 8;
    TASK_START_BOOTTIME: "task_struct" "start_boottime" 8;
    TASK_CRED: "task_struct" "cred" 8;
    CRED_UID: "cred" "uid" 4;
    CRED_USER_NS: "cred" "user_ns" 8;
    USER_NS_LEVEL: "user_namespace" "level" 4;
    USER_NS_PARENT: "user_namespace" "parent" 8;
    USER_NS_OWNER: "user_namespace" "owner" 4;
    TASK_CGROUPS: "task_struct" "cgroups" 8;
    CSS_SET_DFL_CGRP: "css_set" "dfl_cgrp" 8;
    CGROUP_KN: "cgroup" "kn" 8;
    KERNFS_NODE_ID: "kernfs_node" "id" 8;
}

fields! {
    /// Fields that some kernels lack; their global is 0 then, which is the offset of none of them.
    OPTIONAL:
    SOCKET_INODE: "socket_alloc" "vfs_inode.i_ino" 8;
    FILE_DENTRY: "file" "f_path.dentry" 8;
    DENTRY_NAME: "dentry" "d_name.name" 8;
    MPTCP_FIRST: "mptcp_sock" "first" 8;
    MPTCP_CONN_LIST: "mptcp_sock" "conn_list" 16;
    SUBFLOW_NODE: "mptcp_subflow_context" "node" 16;
    SUBFLOW_TCP_SOCK: "mptcp_subflow_context" "tcp_sock" 8;
    SUBFLOW_CONN: "mptcp_subflow_context" "conn" 8;
    ICSK_ULP_OPS: "inet_connection_sock" "icsk_ulp_ops" 8;
    ICSK_ULP_DATA: "inet_connection_sock" "icsk_ulp_data" 8;
    ULP_NAME: "tcp_ulp_ops" "name" 16;
    TW_TB: "inet_timewait_sock" "tw_tb" 8;
    TB_FASTREUSE: "inet_bind_bucket" "fastreuse" 1;
    SK_DROPS: "sock" "sk_drops" 4;
    ICSK_QLEN: "inet_connection_sock" "icsk_accept_queue.qlen" 4;
    SKB_HEAD: "sk_buff" "head" 8;
    SKB_NETWORK_HEADER: "sk_buff" "network_header" 2;
    SKB_TRANSPORT_HEADER: "sk_buff" "transport_header" 2;
    SKB_DEV: "sk_buff" "dev" 8;
    SKB_SK: "sk_buff" "sk" 8;
    NETDEV_NET: "net_device" "nd_net.net" 8;
    SOCK_OPS_SK: "bpf_sock_ops_kern" "sk" 8;
    SK_RMEM_ALLOC: "sock" "sk_backlog.rmem_alloc" 4;
    SK_WMEM_ALLOC: "sock" "sk_wmem_alloc" 4;
    SK_DROP_COUNTERS: "sock" "sk_drop_counters" 8;
    DROPS_FIRST: "numa_drop_counters" "drops0" 4;
    DROPS_SECOND: "numa_drop_counters" "drops1" 4;
    UDP_FORWARD_DEFICIT: "udp_sock" "forward_deficit" 4;
}
