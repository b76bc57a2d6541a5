//! Live tests: real kernel, real traffic, the real binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::unnecessary_wraps,
    reason = "test code: a panic is the failure report, and all tests have one signature"
)]
#![expect(clippy::disallowed_macros, reason = "tests print for the reader of their log")]

mod live {
    mod alarms;
    mod attacks;
    mod attempts;
    mod audit;
    mod coexistence;
    mod command_line;
    mod confinement;
    mod conntrack_parity;
    mod count;
    mod crash;
    mod dns;
    mod docs;
    mod doctor;
    mod durations;
    mod event;
    mod exit;
    mod family;
    mod fast_open;
    mod filter;
    mod filter_sets;
    mod filter_ss;
    mod filter_words;
    mod fleet;
    mod format;
    mod forwarded;
    mod hook_matrix;
    mod kernel_counters;
    mod kernel_refusal;
    mod ledger;
    mod life;
    mod list;
    mod listen_events;
    mod listener;
    mod load;
    mod loss;
    mod many_processes;
    mod metrics;
    mod mptcp;
    mod munin;
    mod namespace;
    mod otlp;
    mod owner;
    mod reader;
    mod reason;
    mod scenario;
    mod self_cost;
    mod serve;
    mod serve_access;
    mod serve_address;
    mod serve_kept;
    mod serve_load;
    mod serve_past;
    mod serve_pins;
    mod serve_prometheus;
    mod serve_streams;
    mod service;
    mod socket_state;
    mod sources;
    mod ss;
    mod start;
    mod time_wait;
    mod traffic;
    mod udp;
    mod udp_counts;
    mod udp_sockets;
    mod unix_sockets;
    mod usage;
    mod workload;
}

use std::process::ExitCode;

fn main() -> ExitCode {
    conn_tests::harness::run()
}
