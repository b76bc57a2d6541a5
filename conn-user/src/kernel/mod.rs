//! The kernel programs: load, attach, and access to their maps and iterators. Only this folder imports aya;
//! other folders get typed handles.

mod accept_search;
mod attach;
pub mod attempt_hooks;
mod btf;
pub(crate) mod counters;
mod filter_maps;
mod flow_hooks;
pub(crate) mod flow_map;
pub(crate) mod iterator;
mod layout_hash;
mod load;
pub mod load_options;
pub(crate) mod map;
pub(crate) mod map_batch;
pub(crate) mod mapped;
pub(crate) mod plain;
pub(crate) mod probe;
pub(crate) mod program_log;
pub(crate) mod program_stats;
pub(crate) mod ring;
pub mod session;
pub(crate) mod sockets;
pub(crate) mod supported;
mod syscall;
mod thread_pool;
mod unix_diag;
