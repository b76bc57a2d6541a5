//! Descriptors that text leaves through.

pub(crate) mod async_fd;
pub mod journal;
pub(crate) mod queue;
pub mod stderr;
pub mod stdout;
pub mod terminal;
pub(crate) mod textfile;
