//! Descriptors that text leaves through.

pub mod async_fd;
pub mod stdout;
pub mod terminal;
