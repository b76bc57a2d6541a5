//! The host: facts, the plan that follows from them, and what names on it stand for. Imports no other folder.

pub(crate) mod accept_hook;
pub mod allocator;
mod capabilities;
pub mod clock;
pub mod descriptors;
pub(crate) mod drop_reason;
pub mod facts;
pub mod flows;
pub(crate) mod io_uring;
pub mod lookup;
pub(crate) mod mounts;
pub(crate) mod name_service;
pub(crate) mod namespace;
pub(crate) mod offsets;
pub mod plan;
pub(crate) mod priority;
pub(crate) mod process;
pub(crate) mod refusal;
pub mod services;
pub mod ticks;
