//! What the kernel programs and the user side of conntrace share: record layouts, TCP states and the lifecycle, the
//! algorithm of tables, the cells of the ledger, and the names of programs, maps and globals. No code here touches the
//! kernel or allocates, so all of it is tested on the host.

#![cfg_attr(not(test), no_std)]

pub mod assoc_table;
pub mod attempt;
pub mod cause;
pub mod connection;
pub mod counter;
pub mod event;
pub mod filter;
pub mod flow;
pub mod flow_counts;
pub mod flow_table;
pub mod histogram;
pub mod layout;
pub mod layout_hash;
pub mod ledger;
pub mod lifecycle;
pub mod listener;
pub mod name;
pub mod owner;
pub mod pin;
pub mod protocol;
pub mod quic;
pub mod remote;
pub mod reset;
pub mod row;
pub mod small_slot;
pub mod state;
pub mod traffic;
