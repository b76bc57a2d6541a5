//! conntrace in user space: from the command line to the kernel programs, and from their events to text.
//!
//! A folder imports only folders below itself, so no two folders import each other:
//!
//! ```text
//! command                 runs: settings in, output and exit status out
//! serve                   the daemon and its clients
//! settings                what the command line means
//! cli                     what was typed
//! stream     ledger       events from the ring; counts, and what proves them
//! kernel     conntrack    loads programs, reads maps and sockets; what connection tracking reports
//! output                  standard output
//! error                   every reason why a run ends
//! render     enrich       events as text; what the host knows of an event
//! column     filter       the one list of fields; which connections are wanted
//! event                   one event, decoded
//! host                    facts of this host, and the plan that follows from them
//! complaint               what is wrong with a value on the command line
//! ```

pub mod cli;
pub(crate) mod column;
pub mod command;
pub(crate) mod complaint;
pub mod conntrack;
pub(crate) mod enrich;
pub mod error;
pub mod event;
pub mod filter;
pub mod host;
pub mod kernel;
pub mod ledger;
pub mod output;
pub mod render;
pub mod serve;
pub mod settings;
pub mod stream;
