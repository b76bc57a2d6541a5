//! The syntax of values, and sets of values.

pub mod list;
pub mod port;
pub mod prefix;
pub mod ranges;
