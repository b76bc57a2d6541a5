//! The values that a filter compares with, as people type them.

pub mod list;
pub mod port;
pub mod prefix;
pub mod ranges;
