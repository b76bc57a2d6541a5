//! One section of docs/overhead.md, measured here and now and printed as Markdown. `cargo xtask bench` runs it.

#![expect(clippy::disallowed_macros, reason = "the output is a table for `cargo xtask bench`")]
#![expect(clippy::expect_used, reason = "a measurement that cannot go on says so by panicking")]

mod crowd;
mod daemon;
mod flood;
mod forwarded;
mod kernel;
mod latency;
mod live_flows;
mod load;
mod machine;
mod page;
mod scale;
mod tool;
mod traffic;
mod udp;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

#[derive(Parser)]
struct Arguments {
    /// What to measure
    section: Section,
    /// As little as possible: to see that it works, not for numbers
    #[arg(long)]
    quick: bool,
    /// The program that puts empty programs on conntrace's hooks
    #[arg(long)]
    empty: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Section {
    Traffic,
    Kernel,
    Scale,
    Latency,
    Flood,
    Udp,
    Forwarded,
    Daemon,
}

fn main() {
    let Arguments { section, quick, empty } = Arguments::parse();
    machine::warn_of_others();
    let _untimed = machine::Untimed::begin();
    let text = match section {
        Section::Traffic => traffic::measure(&empty, quick),
        Section::Kernel => kernel::measure(&empty, quick),
        Section::Scale => scale::measure(quick),
        Section::Latency => latency::measure(quick),
        Section::Flood => flood::measure(quick),
        Section::Udp => udp::measure(&empty, quick),
        Section::Forwarded => forwarded::measure(quick),
        Section::Daemon => daemon::measure(quick),
    };
    println!("{}", text.trim_end());
}
