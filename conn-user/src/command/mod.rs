//! The commands: each one turns its settings into output and an exit status.

pub mod count;
pub mod doctor;
pub mod events;
mod flow_list;
mod flow_stats;
mod forwarded;
pub mod help;
mod hint;
pub mod list;
pub mod munin;
pub mod place;
pub mod rules;
pub mod serve;
pub mod stats;
mod unix_list;
