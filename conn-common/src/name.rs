//! Names that the loader finds in the compiled programs.

/// First program on `sock:inet_sock_set_state`.
pub const SET_STATE: &str = "set_state";
/// Second, identical program on the same tracepoint: where the kernel skips one because it would nest, it runs the other.
pub const SET_STATE_AGAIN: &str = "set_state_again";
/// Program on `tcp:tcp_destroy_sock`.
pub const DESTROY_SOCK: &str = "destroy_sock";
/// Program on the cgroup v2 root's socket operations.
pub const SOCK_OPS: &str = "sock_ops";
/// Program on `security_sock_graft()`, which gives an accepted socket to its file.
pub const GRAFTED: &str = "grafted";
/// Program on the return of `inet_csk_accept()` where it has four parameters.
pub const ACCEPTED_FOUR: &str = "accepted_four";
/// Program on the return of `inet_csk_accept()` where it has two parameters.
pub const ACCEPTED_TWO: &str = "accepted_two";
/// Program on the exits of the system calls `accept` and `accept4`.
pub const ACCEPT_EXIT: &str = "accept_exit";
/// Iterator over all tasks' files that notes the owners of sockets, and writes a [`crate::row::NamespaceRow`] for each
/// namespace.
pub const FILE_CLAIM: &str = "file_claim";
/// Iterator over the TCP sockets of a namespace that makes a state for each.
pub const TCP_ADOPT: &str = "tcp_adopt";
/// Iterator over the TCP sockets of a namespace that writes a [`crate::row::SocketRow`] for each.
pub const TCP_LIST: &str = "tcp_list";
/// Iterator over all tasks' files that writes a [`crate::row::HolderRow`] for each TCP socket and each `io_uring`.
pub const FILE_LIST: &str = "file_list";
/// Iterator over all tasks' files that writes a [`crate::row::NamespaceRow`] for each namespace, and for each TCP socket in
/// another network namespace than its task.
pub const NAMESPACE_LIST: &str = "namespace_list";
/// Iterator over all tasks' files that writes a [`crate::row::SocketRow`] for each TCP socket in another network namespace
/// than its task.
pub const FOREIGN_LIST: &str = "foreign_list";
/// Iterator over the UDP sockets of a namespace that writes a [`crate::row::SocketRow`] for each.
pub const UDP_LIST: &str = "udp_list";
/// [`FILE_LIST`] for UDP sockets, too; with [`LIST_UNIX`] for Unix domain sockets only.
pub const SOCKET_FILE_LIST: &str = "socket_file_list";
/// [`NAMESPACE_LIST`] for UDP sockets, too; with [`LIST_UNIX`] for Unix domain sockets only.
pub const SOCKET_NAMESPACE_LIST: &str = "socket_namespace_list";
/// [`FOREIGN_LIST`] for UDP sockets.
pub const UDP_FOREIGN_LIST: &str = "udp_foreign_list";

/// Program on `tcp:tcp_send_reset`: SYNs to ports on which no socket listens.
pub const REFUSED: &str = "refused";
/// Program on the cgroup v2 root's socket operations that writes an event for each half-open request.
pub const REQUESTED: &str = "requested";
/// Program on `skb:kfree_skb` that writes events of refused SYNs and dropped ACKs.
pub const DISCARDED: &str = "discarded";

/// Iterator over all tasks' files that notes the owners of UDP sockets.
pub const FLOW_CLAIM: &str = "flow_claim";
/// Program on the packets that sockets send, on the cgroup v2 root.
pub const FLOW_EGRESS: &str = "flow_egress";
/// Program on the packets that sockets receive, on the cgroup v2 root.
pub const FLOW_INGRESS: &str = "flow_ingress";
/// Program on the close of sockets, on the cgroup v2 root.
pub const FLOW_RELEASE: &str = "flow_release";
/// Program on `bind()` of IPv4 sockets, on the cgroup v2 root.
pub const FLOW_BIND4: &str = "flow_bind4";
/// The same of IPv6 sockets.
pub const FLOW_BIND6: &str = "flow_bind6";
/// Program on `udp:udp_fail_queue_rcv_skb`: packets that found a receive buffer full.
pub const FLOW_DROP: &str = "flow_drop";
/// Program on `sock:inet_sk_error_report`: errors of sockets.
pub const FLOW_ERROR: &str = "flow_error";

/// The ring of events.
pub const EVENTS: &str = "EVENTS";
/// Pending owners whose ways were all taken in [`PENDING_OWNERS`].
pub const PENDING_OVERFLOW: &str = "PENDING_OVERFLOW";
/// Pending owners, until a step of the socket takes them over.
pub const PENDING_OWNERS: &str = "PENDING_OWNERS";
/// Owners of listeners, and the other maps of notes about owners, see [`crate::listener`].
pub const OWNER_NOTES: [&str; 5] =
    ["LISTENERS", "LISTENER_PORTS", "LISTENER_ADDRESSES", "MPTCP_OWNERS", "NOTES_OF_USERS"];
/// Self counters, per CPU, see [`crate::counter`].
pub const COUNTERS: &str = "COUNTERS";
/// Socket states.
pub const SOCKET_STATES: &str = "SOCKET_STATES";
/// The same in a run that only counts.
pub const COUNTED_STATES: &str = "COUNTED_STATES";
/// Socket states that found no way in the table.
pub const OVERFLOW_STATES: &str = "OVERFLOW_STATES";
/// The same in a run that only counts.
pub const OVERFLOW_COUNTED: &str = "OVERFLOW_COUNTED";
/// How many states are elsewhere than in the table, see [`crate::connection::Displaced`].
pub const DISPLACED: &str = "DISPLACED";
/// The ledger, see [`crate::ledger`].
pub const LEDGER: &str = "LEDGER";
/// Small slots by namespace, see [`crate::small_slot`].
pub const SMALL_SLOTS: &str = "SMALL_SLOTS";
/// Small slots that all namespaces share.
pub const SHARED_SLOTS: &str = "SHARED_SLOTS";
/// Durations of ports without a histogram of their own, by shard and direction, see [`crate::ledger::rest_index`].
pub const SPANS_REST: &str = "SPANS_REST";
/// Slots of the ledger that are found without a hash lookup, see [`crate::ledger::way`].
pub const LEDGER_SLOTS: &str = "LEDGER_SLOTS";
/// Histograms of handshakes and lifetimes, by the keys of [`LEDGER`].
pub const SPANS: &str = "SPANS";
/// Ends that no hook saw, by [`crate::ledger::RepairKey`].
pub const REPAIRS: &str = "REPAIRS";
/// Attempts per port, see [`crate::attempt::PortAttempts`].
pub const ATTEMPTS: &str = "ATTEMPTS";
/// Counts per remote address, see [`crate::remote`].
pub const REMOTES: &str = "REMOTES";
/// Their sums, with those that have no entry, per CPU.
pub const REMOTE_TOTALS: &str = "REMOTE_TOTALS";
/// The service ports whose remote addresses are counted, see [`crate::remote::slot_bit`].
pub const REMOTE_SLOTS: &str = "REMOTE_SLOTS";
/// Totals per network namespace.
pub const NETNS: &str = "NETNS";
/// Flows of UDP, see [`crate::flow::Flow`].
pub const FLOWS: &str = "FLOWS";
/// The tags of [`FLOWS`], see [`crate::flow_table`].
pub const FLOW_TAGS: &str = "FLOW_TAGS";
/// Sockets with flows, see [`crate::flow::FlowSocket`].
pub const FLOW_SOCKETS: &str = "FLOW_SOCKETS";
/// Sockets that closed and have no entry in [`FLOW_SOCKETS`]: cookie and time.
pub const FLOW_CLOSED: &str = "FLOW_CLOSED";
/// Counts of flows, see [`crate::flow_counts`].
pub const FLOW_COUNTS: &str = "FLOW_COUNTS";
/// Packets of flows by network namespace, see [`crate::flow_counts::FlowTraffic`].
pub const FLOW_NETNS: &str = "FLOW_NETNS";
/// The owners of sockets that existed before the start, by cookie.
pub const FLOW_HOLDERS: &str = "FLOW_HOLDERS";
/// 1 while the reader of the ring sleeps.
pub const READER_SLEEPS: &str = "READER_SLEEPS";
/// Slots of steps that found no slot of their own, by direction.
pub const UNATTRIBUTED: &str = "UNATTRIBUTED";
/// Namespaces whose sockets have all been walked.
pub const WALKED: &str = "WALKED";
/// Switches that change while the programs run, see [`Switches`].
pub const SWITCHES: &str = "SWITCHES";

/// Mask of event kinds that are wanted, or [`crate::remote::INSTEAD_OF_EVENTS`].
pub const WANTED_KINDS: &str = "WANTED_KINDS";
/// 1 if attempts that never become a connection go into the ring.
pub const ATTEMPTS_WANTED: &str = "ATTEMPTS_WANTED";
/// The drop reason of a SYN to a port on which no socket listens; 0 if [`REFUSED`] sees it.
pub const DROP_NO_SOCKET: &str = "DROP_NO_SOCKET";
/// The drop reason of an ACK that found the accept queue full; 0 if the kernel has none.
pub const DROP_QUEUE_FULL: &str = "DROP_QUEUE_FULL";
/// Mask of directions that are wanted.
pub const WANTED_DIRECTIONS: &str = "WANTED_DIRECTIONS";
/// Mask of families that are wanted.
pub const WANTED_FAMILIES: &str = "WANTED_FAMILIES";
/// Mask of TCP states that are wanted.
pub const WANTED_STATES: &str = "WANTED_STATES";
/// The modes of the filter's sets, see [`crate::filter::Modes`].
pub const SET_MODES: &str = "SET_MODES";
/// Bitmap of service ports.
pub const SERVICE_PORTS: &str = "SERVICE_PORTS";
/// Bitmap of source ports.
pub const SOURCE_PORTS: &str = "SOURCE_PORTS";
/// Prefixes of initiators' addresses.
pub const SOURCES: &str = "SOURCES";
/// Prefixes of responders' addresses.
pub const DESTINATIONS: &str = "DESTINATIONS";
/// Single values of the filter's other sets, see [`crate::filter::Value`].
pub const VALUES: &str = "VALUES";
/// The bits of a mark that count.
pub const MARK_MASK: &str = "MARK_MASK";
/// The wanted mark under [`MARK_MASK`].
pub const WANTED_MARK: &str = "WANTED_MARK";
/// 1 if sock_ops is attached, so that TCP_CONNECT shows the whole tuple.
pub const CONNECT_IS_SEEN: &str = "CONNECT_IS_SEEN";
/// How much the run needs of owners: [`NO_OWNERS`] and the others.
pub const OWNERS: &str = "OWNERS";
/// What lists show beside what is counted: [`LIST_TIME_WAIT`] and the others.
pub const LISTED: &str = "LISTED";
/// 1 if steps go into the ledger, [`crate::remote::BESIDE_COUNTS`] if remote addresses are counted, too.
pub const COUNTS_ON: &str = "COUNTS_ON";
/// Binary logarithm of the slots of [`SOCKET_STATES`] or [`COUNTED_STATES`], whichever the run uses, without the scratch
/// slots.
pub const TABLE_BITS: &str = "TABLE_BITS";
/// 1 if the programs may use compare-and-exchange, and so scratch slots and small ledger slots.
pub const HAS_EXCHANGE: &str = "HAS_EXCHANGE";
/// 1 if the run uses [`LEDGER_SLOTS`].
pub const LEDGER_HAS_TABLE: &str = "LEDGER_HAS_TABLE";
/// 1 if handshakes and lifetimes go into histograms.
pub const SPANS_ON: &str = "SPANS_ON";
/// What remote addresses are counted by, see [`crate::remote`].
pub const REMOTES_BY: &str = "REMOTES_BY";
/// 1 if only the ports in [`REMOTE_SLOTS`] count.
pub const REMOTES_OF_SLOTS: &str = "REMOTES_OF_SLOTS";
/// Offset of a system call's result in the record of its exit.
pub const SYSCALL_RESULT: &str = "SYSCALL_RESULT";
/// The seeds of the two hashes of flows.
pub const FLOW_SEEDS: [&str; 2] = ["FLOW_SEED", "FLOW_SEED_2"];
/// 1 if flows are counted in [`FLOW_COUNTS`].
pub const FLOWS_COUNTED: &str = "FLOWS_COUNTED";
/// Binary logarithm of the buckets of [`FLOW_TAGS`].
pub const FLOW_BITS: &str = "FLOW_BITS";
/// The idle time of a flow, in ticks.
pub const FLOW_TIMEOUT: &str = "FLOW_TIMEOUT";
/// The idle time of a stream, in ticks.
pub const FLOW_STREAM_TIMEOUT: &str = "FLOW_STREAM_TIMEOUT";
/// Ticks after which a packet makes a stream of a flow with a reply.
pub const FLOW_STREAM_AFTER: &str = "FLOW_STREAM_AFTER";
/// Ticks for which the slot of a flow that has ended stays.
pub const FLOW_GRACE: &str = "FLOW_GRACE";
/// Nanoseconds of a tick.
pub const FLOW_TICK_NS: &str = "FLOW_TICK_NS";
/// How many shards the ledger has, less one; a power of two less one.
pub const SHARD_MASK: &str = "SHARD_MASK";

/// No owners: a run that only counts.
pub const NO_OWNERS: u8 = 0;
/// The tasks that connect and listen.
pub const OPENERS: u8 = 1;
/// Also the tasks that accepted or hold a connection: hooks without the socket's lock note them as pending owners.
pub const HOLDERS: u8 = 2;

/// Closed connections in TIME_WAIT, and those that await the peer's FIN without a process.
pub const LIST_TIME_WAIT: u8 = 1;
/// Connections whose handshake a peer has begun and not finished.
pub const LIST_HALF_OPEN: u8 = 1 << 1;
/// The traffic of each TCP socket.
pub const LIST_TRAFFIC: u8 = 1 << 2;
/// The inode number of each socket, by which its holders are found.
pub const LIST_INODES: u8 = 1 << 5;
/// UDP sockets with a peer.
pub const LIST_CONNECTED: u8 = 1 << 3;
/// UDP sockets without a peer.
pub const LIST_UNCONNECTED: u8 = 1 << 4;
/// Unix domain sockets, and no others.
pub const LIST_UNIX: u8 = 1 << 6;

/// The one value of the map [`SWITCHES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Switches {
    /// 0 until every program is attached: before, nothing is counted.
    pub enabled: u32,
}
