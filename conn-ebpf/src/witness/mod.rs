//! One file per hook: what it sees, in the words of `transition`, or of `claim` if it is about owners.

pub mod accept;
pub mod destroy_sock;
pub mod file_claim;
pub mod set_state;
pub mod sock_ops;
pub mod tcp_adopt;
