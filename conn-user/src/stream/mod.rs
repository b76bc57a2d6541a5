//! The stream of events: from a source through the pipeline to a consumer.

pub(crate) mod accounting;
pub(crate) mod consumer;
pub(crate) mod flow_owners;
pub(crate) mod flow_sweep;
pub(crate) mod flow_walk;
pub(crate) mod forwarded;
pub(crate) mod kept;
pub(crate) mod live;
pub(crate) mod losses;
pub(crate) mod notice;
pub(crate) mod pipeline;
pub mod ready;
pub(crate) mod ring;
pub(crate) mod shutdown;
pub(crate) mod source;
pub(crate) mod text;
mod time_wait;
pub(crate) mod top_n;
pub(crate) mod walk;
