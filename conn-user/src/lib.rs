//! conntrace's user side: from the command line to the kernel programs, and from their events to
//! lines of text. Data flows one way: `probe` → `source` → `decode` → `render` → `sink`.

pub mod audit;
pub mod cli;
pub mod clock;
pub mod count;
pub mod counters;
pub mod decode;
pub mod error;
pub mod event;
pub mod host;
pub mod kind;
pub mod layout;
pub mod ledger;
pub mod namespace;
pub mod plan;
pub mod poll;
pub mod port;
pub mod probe;
pub mod ready;
pub mod render;
pub mod repair;
pub mod report;
pub mod sanitize;
pub mod service;
pub mod session;
pub mod settings;
pub mod sink;
pub mod snapshot;
pub mod source;
pub mod span;
pub mod stats;
pub mod stop;
pub mod table;
pub mod walk;
pub mod watch;
