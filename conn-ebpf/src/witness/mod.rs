//! One file per hook: what it sees, in the words of `transition`.

pub mod destroy_sock;
pub mod set_state;
pub mod sock_ops;
pub mod tcp_adopt;
