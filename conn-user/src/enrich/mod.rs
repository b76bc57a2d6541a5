//! What the host knows about an event's owner and addresses.

pub mod background;
pub mod cgroup;
pub mod command_line;
pub mod container_names;
pub mod dns;
