//! Descriptors that text leaves through.

pub mod async_fd;
pub mod queue;
pub mod stderr;
pub mod stdout;
pub mod terminal;
