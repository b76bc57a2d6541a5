//! Where the programs keep what they know of sockets between hooks.

pub mod assoc_table;
pub mod pending_owner;
pub mod socket_state;
