//! One file per iterator. `tcp_adopt` and `file_claim` note what existed before the start, the others only write rows.

pub(crate) mod context;
pub(crate) mod file_claim;
pub(crate) mod file_list;
pub(crate) mod flow_claim;
pub(crate) mod foreign_list;
pub(crate) mod namespace_list;
pub(crate) mod tcp_adopt;
pub(crate) mod tcp_list;
pub(crate) mod udp_list;
