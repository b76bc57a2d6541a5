//! One file per iterator. `tcp_adopt` and `file_claim` note what existed before the start, the others only write rows.

pub mod context;
pub mod file_claim;
pub mod file_list;
pub mod namespace_list;
pub mod tcp_adopt;
pub mod tcp_list;
