//! Storage of socket states between hooks.

pub(crate) mod assoc_table;
pub(crate) mod flow_table;
pub(crate) mod overflow;
pub(crate) mod pending_owner;
pub(crate) mod socket_state;
