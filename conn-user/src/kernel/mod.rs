//! The kernel programs: load, attach, and access to their maps and iterators.

pub mod counters;
pub mod filter_maps;
pub mod iterator;
pub mod load_options;
pub mod map_batch;
pub mod probe;
pub mod session;
pub mod sockets;
pub mod thread_pool;
