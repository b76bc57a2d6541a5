//! The stream of events: from a source through the pipeline to a consumer.

pub mod accounting;
pub mod consumer;
pub mod live;
pub mod losses;
pub mod notice;
pub mod pipeline;
pub mod ready;
pub mod ring;
pub mod shutdown;
pub mod source;
pub mod text;
pub mod top_n;
pub mod walk;
