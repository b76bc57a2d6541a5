//! Export of events as log records.
//!
//! `stream` asks the daemon for events like any other client, and opens the stream again when it ends. `record` makes a log
//! record of each line, with the names of `-o json-otel`. `batch` collects them. `export` sends batches, and says in records of
//! its own what is missing; `progress` knows up to when nothing is.

pub(crate) mod batch;
pub(crate) mod counts;
pub(crate) mod export;
pub(crate) mod progress;
pub(crate) mod record;
pub(crate) mod stream;
pub mod table;
