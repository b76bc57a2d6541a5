//! The commands: each one turns its settings into output and an exit status.

pub mod count;
pub mod doctor;
pub mod events;
pub mod help;
mod hint;
pub mod list;
pub mod stats;
mod unix_list;
