//! Facts about this host, and the plan that follows from them.

pub mod accept_hook;
pub mod allocator;
pub mod clock;
pub mod facts;
pub mod lookup;
pub mod namespace;
pub mod offsets;
pub mod plan;
pub mod refusal;
pub mod services;
pub mod ticks;
