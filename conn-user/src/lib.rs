//! conntrace's user side: from the command line to the kernel programs, and from their events to text.
//! Each folder is a stage; data flows one way.

pub mod cli;
pub mod column;
pub mod command;
pub mod enrich;
pub mod error;
pub mod event;
pub mod filter;
pub mod host;
pub mod kernel;
pub mod ledger;
pub mod output;
pub mod render;
pub mod settings;
pub mod stream;
