//! The stream of events: from the ring to a consumer.

pub mod accounting;
pub mod losses;
pub mod ready;
pub mod ring;
pub mod shutdown;
pub mod top_n;
