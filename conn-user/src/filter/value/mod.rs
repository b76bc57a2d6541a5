//! The syntax of values, and sets of values.

pub(crate) mod duration;
pub(crate) mod glob;
pub(crate) mod list;
pub(crate) mod port;
pub(crate) mod prefix;
pub(crate) mod quantity;
pub(crate) mod ranges;
