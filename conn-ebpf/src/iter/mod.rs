//! Iterators: some write rows for user space, some make the programs remember what exists.

pub mod context;
pub mod file_claim;
pub mod file_list;
pub mod namespace_list;
pub mod tcp_adopt;
pub mod tcp_list;
