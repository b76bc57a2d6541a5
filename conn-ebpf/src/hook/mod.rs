//! One file per hook: what it sees, in the words of `socket`, or of `pending_owner` if it is about owners.

pub mod accept;
pub mod destroy_sock;
pub mod set_state;
pub mod sock_ops;
