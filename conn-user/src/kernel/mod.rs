//! The kernel programs: load, attach, and access to their maps and iterators. Only this folder imports aya;
//! other folders get typed handles.

mod accept_search;
mod attach;
mod btf;
pub mod counters;
mod filter_maps;
pub mod iterator;
mod layout_hash;
mod load;
pub mod load_options;
pub mod map;
pub mod map_batch;
pub mod plain;
pub mod probe;
pub mod program_log;
pub mod program_stats;
pub mod ring;
pub mod session;
pub mod sockets;
pub mod supported;
mod syscall;
mod thread_pool;
