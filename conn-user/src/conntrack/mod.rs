//! The kernel's connection tracking: flows that pass through this host, as netlink reports them.
//!
//! A network namespace has a socket for each group of messages (NEW, UPDATE, DESTROY), one for dumps of its table, and one
//! for its addresses. The kernel counts for each socket how many messages found it full, so what was received and what was
//! lost are together what the kernel sent, for each group. A dump every few seconds evicts what has expired, and finds the
//! end of flows that never report one: since Linux 5.19 those from before the first listener
//! (`nf_conntrack_ecache_ext_add()`, `net/netfilter/nf_conntrack_ecache.c`).
//!
//! Nothing here switches tracking on.

pub(crate) mod account;
mod addresses;
pub(crate) mod counts;
mod drops;
mod dump;
mod group;
mod lives;
mod losses;
mod order;
pub(crate) mod owners;
pub mod plan;
mod socket;
pub(crate) mod table;
pub(crate) mod tables;
pub mod tracker;
mod watch;
