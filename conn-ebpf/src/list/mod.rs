//! Iterators that write rows for user space. They change nothing.

pub mod file;
pub mod namespace;
pub mod tcp;
