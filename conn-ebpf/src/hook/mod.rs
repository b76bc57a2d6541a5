//! One file per hook. A hook for steps enters through `gate`; the hook for accepts notes a pending owner.

pub mod accept;
pub mod destroy_sock;
pub mod set_state;
pub mod sock_ops;
