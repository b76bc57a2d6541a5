//! Every map of the programs.

use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, SkStorage};
use aya_ebpf::macros::btf_map;
use conn_common::assoc_table::TableSlot;
use conn_common::attempt::PortAttempts;
use conn_common::connection::{Connection, Counted, Displaced};
use conn_common::event::EventRecord;
use conn_common::filter::Value;
use conn_common::flow::{Flow, FlowSocket, SocketOwner};
use conn_common::flow_counts::{FlowCounts, FlowTraffic};
use conn_common::flow_table::BUCKET;
use conn_common::histogram::Durations;
use conn_common::ledger::{RepairKey, Slot, Totals};
use conn_common::listener::{CAPACITY, ListenerKey, ListenerNote, MptcpNote};
use conn_common::name::Switches;
use conn_common::owner::{Owner, PendingOwner};
use conn_common::remote::{RemoteCounts, RemoteKey};
use conn_common::small_slot::SmallSlot;

/// `BPF_F_NO_PREALLOC`: memory for what is used, not for what could be.
const ON_DEMAND: usize = 1;
/// `BPF_F_MMAPABLE`: user space may map the array into its memory (since 5.5).
const MAPPED: usize = 1 << 10;

/// Socket states, see `storage::socket_state`: the first hook of a socket acquires a slot, all hooks read and change it,
/// the end of the socket releases it. Behind them are the scratch slots of each CPU. The loader sets the size.
#[btf_map]
pub(crate) static SOCKET_STATES: Array<TableSlot<Connection>, 1> = Array::new();

/// The same in a run that only counts.
#[btf_map]
pub(crate) static COUNTED_STATES: Array<TableSlot<Counted>, 1> = Array::new();

/// States of sockets whose ways were all taken, by the address of the socket: inserted by the first hook of the socket,
/// deleted at its end. Its memory is conntrace's, not the observed process's. The loader sets the size.
#[btf_map]
pub(crate) static OVERFLOW_STATES: HashMap<u64, Connection, 1, ON_DEMAND> = HashMap::new();

/// The same in a run that only counts.
#[btf_map]
pub(crate) static OVERFLOW_COUNTED: HashMap<u64, Counted, 1, ON_DEMAND> = HashMap::new();

/// How many states are elsewhere: changed with `OVERFLOW_STATES`, and by steps of sockets without a state.
#[btf_map]
pub(crate) static DISPLACED: Array<Displaced, 1> = Array::new();

/// Connections that were counted and have no kept state, by network namespace. Inserted at the first of them.
#[btf_map]
pub(crate) static STATELESS: HashMap<u32, u64, 4_096, ON_DEMAND> = HashMap::new();

/// States of sockets for which the overflow map has no room, and of all sockets in a run without a table. The kernel
/// frees them with the socket. It has no capacity, but the kernel charges it to the socket (`optmem_max` of the socket's
/// network namespace, `omem_charge()` of `net/core/bpf_sk_storage.c`).
#[btf_map]
pub(crate) static STORED_STATES: SkStorage<Connection> = SkStorage::new();

/// The same in a run that only counts.
#[btf_map]
pub(crate) static STORED_COUNTED: SkStorage<Counted> = SkStorage::new();

/// Events: `emit` writes them, the reader drains them. The loader sets the size.
#[btf_map]
pub(crate) static EVENTS: RingBuf<EventRecord, { 8 << 20 }> = RingBuf::new();

/// Whole ledger slots behind the table, inserted when a (direction, port) on a shard has more steps or cells than a small
/// slot takes, never deleted. The loader sets the size.
#[btf_map]
pub(crate) static LEDGER: HashMap<u32, Slot, 1, ON_DEMAND> = HashMap::new();

/// Small slots, inserted at the first step of a (namespace, direction, port), never deleted. May fill up.
#[btf_map]
pub(crate) static SMALL_SLOTS: HashMap<u64, SmallSlot, 1, ON_DEMAND> = HashMap::new();

/// Small slots of (direction, port) in all namespaces that found no room in `SMALL_SLOTS`, never deleted. The loader sets
/// the size to all keys, so it cannot fill up.
#[btf_map]
pub(crate) static SHARED_SLOTS: HashMap<u32, SmallSlot, 1, ON_DEMAND> = HashMap::new();

/// Ledger slots that are found without a hash lookup, acquired by a (namespace, direction, port) on a shard once it
/// has many steps, and never released. The loader sets the size for all shards.
#[btf_map]
pub(crate) static LEDGER_SLOTS: Array<TableSlot<Slot>, 1> = Array::new();

/// Histograms by shard, direction and port, inserted at the first duration, never deleted. May fill up. The loader sets the
/// size if the run asks for histograms.
#[btf_map]
pub(crate) static SPANS: HashMap<u32, Durations, 1, ON_DEMAND> = HashMap::new();

/// Attempts by local port. The loader sets the size to all ports if the run counts. User space maps it into memory: a
/// copy of so many entries would take milliseconds.
#[btf_map]
pub(crate) static ATTEMPTS: Array<PortAttempts, 1, MAPPED> = Array::new();

/// Counts by remote address and direction, inserted at the first event, never deleted. May fill up. The memory is allocated
/// with the map, so an insertion fails only if the map is full. The loader sets the size of this map and the next ones
/// if the run counts remote addresses.
#[btf_map]
pub(crate) static REMOTES: HashMap<RemoteKey, RemoteCounts, 1> = HashMap::new();

/// The same of all remote addresses together.
#[btf_map]
pub(crate) static REMOTE_TOTALS: PerCpuArray<RemoteCounts, 1> = PerCpuArray::new();

/// 1 once an address found no room in `REMOTES`. Insertions into a full map would take long on a host with many CPUs.
#[btf_map]
pub(crate) static REMOTES_FULL: Array<u32, 1> = Array::new();

/// The directions and service ports whose remote addresses are counted, if the run has a filter.
#[btf_map]
pub(crate) static REMOTE_SLOTS: Array<u64, 1> = Array::new();

/// Durations of ports that found no room in `SPANS`, see `conn_common::ledger::rest_index`. The loader sets the size.
#[btf_map]
pub(crate) static SPANS_REST: Array<Durations, 1> = Array::new();

/// Steps whose slot could not be created, by direction, so that the totals stay exact.
#[btf_map]
pub(crate) static UNATTRIBUTED: Array<Slot, 4> = Array::new();

/// Inserted at the first connection of a namespace, never deleted: inode numbers are used again. The loader sets
/// the size.
#[btf_map]
pub(crate) static NETNS: HashMap<u32, Totals, 1, ON_DEMAND> = HashMap::new();

/// Ends that no hook saw. Inserted and changed by the user side, touched by no program: it is here to live as long as
/// the ledger that it corrects.
#[btf_map]
pub(crate) static REPAIRS: HashMap<RepairKey, u64, 65_536, ON_DEMAND> = HashMap::new();

/// Namespaces whose sockets the loader has walked, by inode number. A socket without a state there has missed its
/// beginning; anywhere else it existed before the start.
#[btf_map]
pub(crate) static WALKED: HashMap<u32, u8, 65_536, ON_DEMAND> = HashMap::new();

/// Pending owners whose ways were all taken, by the address of the socket. Inserted by hooks without the socket's lock;
/// deleted by the next step of the socket, and when a new life begins at the address. The loader sets the size.
#[btf_map]
pub(crate) static PENDING_OVERFLOW: HashMap<u64, Owner, 1, ON_DEMAND> = HashMap::new();

/// Pending owners that are found without a hash lookup. The loader sets the size.
#[btf_map]
pub(crate) static PENDING_OWNERS: Array<TableSlot<PendingOwner>, 1> = Array::new();

/// Owners of listeners, by the address of the socket: inserted when a listener begins or is found, deleted when it ends.
/// The loader sets the size of this map and the next four, 1 in a run without owners.
#[btf_map]
pub(crate) static LISTENERS: HashMap<u64, ListenerNote, { CAPACITY as usize }, ON_DEMAND> = HashMap::new();

/// The listeners of a port, by namespace and port: inserted with the first one, deleted with the last one. Read when a
/// child is born.
#[btf_map]
pub(crate) static LISTENER_PORTS: HashMap<u64, ListenerNote, { CAPACITY as usize }, ON_DEMAND> =
    HashMap::new();

/// The same by address and port. Read when a child is born at a port with listeners at several addresses.
#[btf_map]
pub(crate) static LISTENER_ADDRESSES: HashMap<ListenerKey, ListenerNote, { CAPACITY as usize }, ON_DEMAND> =
    HashMap::new();

/// Owners of MPTCP connections, by the address of the socket: inserted when it connects or is found, deleted when it
/// closes. Read when the kernel adds a subflow.
#[btf_map]
pub(crate) static MPTCP_OWNERS: HashMap<u64, MptcpNote, { CAPACITY as usize }, ON_DEMAND> = HashMap::new();

/// How many entries of `LISTENERS` and `MPTCP_OWNERS` a user has. Inserted at a user's first one, never deleted.
#[btf_map]
pub(crate) static NOTES_OF_USERS: HashMap<u32, u64, { CAPACITY as usize }, ON_DEMAND> = HashMap::new();

/// Counted by all programs, read by the user side.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<[u64; conn_common::counter::CELLS], 1> = PerCpuArray::new();

/// Written by the loader, read by every hook.
#[btf_map]
pub(crate) static SWITCHES: Array<Switches, 1> = Array::new();

/// 1 while the reader sleeps: the reader sets it, the event that wakes the reader clears it.
#[btf_map]
pub(crate) static READER_SLEEPS: Array<u32, 1> = Array::new();

/// Prefixes of initiators' addresses. Inserted by the loader, which also sets the size, like the next two.
#[btf_map]
pub(crate) static SOURCES: LpmTrie<[u8; 16], u8, 1> = LpmTrie::new();

/// Prefixes of responders' addresses.
#[btf_map]
pub(crate) static DESTINATIONS: LpmTrie<[u8; 16], u8, 1> = LpmTrie::new();

/// Single values of the other sets of the filter.
#[btf_map]
pub(crate) static VALUES: HashMap<Value, u8, 1> = HashMap::new();

/// Flows of UDP, see `storage::flow_table`: a slot is filled by the first packet of a flow, changed by each of its packets, and
/// given back by the user side, which maps the array into its memory, or used again by another flow. The loader sets the size,
/// as of the next two: 1 in a run without UDP.
#[btf_map]
pub(crate) static FLOWS: Array<Flow, 1, MAPPED> = Array::new();

/// The tags of `FLOWS`, by bucket.
#[btf_map]
pub(crate) static FLOW_TAGS: Array<[u64; BUCKET as usize], 1, MAPPED> = Array::new();

/// Sockets with flows, by the hash of the cookie: written at the first flow of a socket, freed at the socket's end.
#[btf_map]
pub(crate) static FLOW_SOCKETS: Array<FlowSocket, 1, MAPPED> = Array::new();

/// Sockets that closed and had no entry in `FLOW_SOCKETS`, by cookie: inserted at the close, deleted by the user side.
#[btf_map]
pub(crate) static FLOW_CLOSED: HashMap<u64, u64, 1, ON_DEMAND> = HashMap::new();

/// Counts of flows per direction and service port. The loader sets the size: 1 in a run that counts no flows.
#[btf_map]
pub(crate) static FLOW_COUNTS: Array<FlowCounts, 1, MAPPED> = Array::new();

/// Packets of flows that ended, by network namespace and CPU, see `flow_counts::netns_key`: inserted at the first end, never
/// deleted.
#[btf_map]
pub(crate) static FLOW_NETNS: HashMap<u64, FlowTraffic, 1, ON_DEMAND> = HashMap::new();

/// Owners of UDP sockets, see `owner::socket_owner`. The kernel frees them with the socket.
#[btf_map]
pub(crate) static FLOW_OWNERS: SkStorage<SocketOwner> = SkStorage::new();

/// Owners of the UDP sockets that existed before the start, by cookie: inserted by the loader's walk, never deleted.
#[btf_map]
pub(crate) static FLOW_HOLDERS: HashMap<u64, Owner, 1, ON_DEMAND> = HashMap::new();
