//! One file per hook. A hook for steps enters through `gate`; the hook for accepts notes a pending owner.

pub(crate) mod accept;
pub(crate) mod datagram;
pub(crate) mod destroy_sock;
pub(crate) mod discarded;
pub(crate) mod flow_drop;
pub(crate) mod flow_error;
pub(crate) mod flow_socket;
pub(crate) mod refused;
pub(crate) mod request;
pub(crate) mod set_state;
pub(crate) mod sock_ops;
