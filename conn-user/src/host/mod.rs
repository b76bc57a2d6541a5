//! The host: facts, the plan that follows from them, and what names on it stand for. Imports no other folder.

pub mod accept_hook;
pub mod allocator;
pub mod clock;
pub mod facts;
pub mod lookup;
pub mod mounts;
pub mod namespace;
pub mod offsets;
pub mod plan;
pub mod refusal;
pub mod services;
pub mod ticks;
