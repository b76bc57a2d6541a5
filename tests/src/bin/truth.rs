//! `cargo xtask truth`: the ledger beside the generator that made the connections, with the planned
//! hooks and with each hook by itself. Prints a table; fails if the planned hooks miss anything.

#![expect(clippy::disallowed_macros, reason = "the output is a table for `cargo xtask truth`")]
#![expect(clippy::expect_used, reason = "a measurement that cannot go on says so by panicking")]

use std::fs;
use std::process::ExitCode;

use clap::Parser;
use conn_tests::flood::{Ending, Flood};
use conn_tests::ledger::{Report, last_report};
use conn_tests::netns::NetNs;
use conn_tests::port::Port;
use conn_tests::tracer::Setup;
use conn_tests::truth::{Direction, Truth};

/// Turns on the kernel's own clock of BPF programs.
const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// How the connections end, an equal share each.
const ENDINGS: [Ending; 5] =
    [Ending::ClientFirst, Ending::ServerFirst, Ending::ClientReset, Ending::ServerReset, Ending::Mixed];

/// The hooks that conntrace plans by itself.
const PLANNED: &str = "planned";
/// The hooks that it plans without cgroup v2.
const TWICE: &str = "set_state twice, destroy_sock";

/// The sets of hooks that are compared. The first is the one that conntrace plans by itself.
const SETS: [(&str, Option<&str>); 6] = [
    (PLANNED, None),
    ("set_state", Some("set_state")),
    ("set_state, destroy_sock", Some("set_state,destroy_sock")),
    (TWICE, Some("set_state,set_state_again,destroy_sock")),
    ("sock_ops", Some("sock_ops")),
    ("sock_ops, destroy_sock", Some("sock_ops,destroy_sock")),
];

#[derive(Parser)]
struct Arguments {
    /// Connections for each set of hooks
    #[arg(long, default_value_t = 200_000)]
    connections: u64,
    /// This is a stock kernel, which hides nothing from tracing programs: two of them must be exact, too
    #[arg(long)]
    stock: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let stats = Stats::on();
    println!(
        "| hooks | connections made | ledger: opened out + in | ended out + in | difference | skipped by the \
         kernel | made good | events per connection | ns per event | ns per connection |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut exact = true;
    for (name, hooks) in SETS {
        let row = Row::measure(hooks, arguments.connections);
        let judged = name == PLANNED || (arguments.stock && name == TWICE);
        exact &= !judged || row.difference() == 0;
        row.print(name);
    }
    drop(stats);
    if exact {
        return ExitCode::SUCCESS;
    }
    eprintln!("truth: hooks that must not miss anything did");
    ExitCode::FAILURE
}

/// One set of hooks under load.
struct Row {
    port: u16,
    truth: Truth,
    report: Report,
}

impl Row {
    fn measure(hooks: Option<&str>, connections: u64) -> Self {
        let port = Port::claim();
        let filter = port.to_string();
        let mut args = vec!["stats", "-o", "json", "--dport", &filter];
        args.extend(hooks.iter().flat_map(|&list| ["--witnesses", list]));
        let tracer = Setup::new(args).start();
        let mut truth = Truth::default();
        let share = connections.div_ceil(ENDINGS.len() as u64);
        for ending in ENDINGS {
            let ns = NetNs::new().expect("a network namespace");
            // Packets on every CPU interrupt the programs: that is what makes the kernel skip them.
            ns.spread().expect("packets spread over the CPUs");
            let flood = Flood { threads: 8, open: 20, ..Flood::new(port.number(), share, ending) };
            truth += ns.run(|| flood.run());
        }
        Self { port: port.number(), truth, report: last_report(&tracer.stop()) }
    }

    /// Connections that the ledger has too many or too few, opened and ended, on both sides.
    fn difference(&self) -> u64 {
        [Direction::Out, Direction::In]
            .into_iter()
            .map(|direction| {
                let (ledger, truth) =
                    (self.report.numbers(direction, self.port), self.truth.get(direction, self.port));
                ledger.opened.abs_diff(truth.opened)
                    + ledger.established.abs_diff(truth.established)
                    + ledger.closed.abs_diff(truth.closed)
                    + ledger.failed.abs_diff(truth.failed() + truth.died)
            })
            .sum()
    }

    /// What only an audit or a later hook found.
    fn made_good(&self) -> u64 {
        let late = ["steps_repaired", "adopted_late", "closed_late"];
        late.iter().filter_map(|name| self.report.witness.get(*name)).sum::<u64>() + self.report.repaired
    }

    fn print(&self, name: &str) {
        let made = self.truth.outgoing(self.port).opened;
        let [out, back] =
            [Direction::Out, Direction::In].map(|direction| self.report.numbers(direction, self.port));
        let programs = self.report.programs.values();
        let (runs, run_ns) = programs.clone().fold((0, 0), |sum, one| (sum.0 + one.runs, sum.1 + one.run_ns));
        let skipped: Vec<_> = self
            .report
            .programs
            .iter()
            .filter(|(_, program)| program.missed > 0)
            .map(|(name, program)| format!("{name} {}", program.missed))
            .collect();
        println!(
            "| {name} | {made} | {} + {} | {} + {} | {} | {} | {} | {:.1} | {:.0} | {:.0} |",
            out.opened,
            back.opened,
            out.closed + out.failed,
            back.closed + back.failed,
            self.difference(),
            if skipped.is_empty() { "none".to_owned() } else { skipped.join(", ") },
            self.made_good(),
            runs as f64 / made as f64,
            run_ns as f64 / runs.max(1) as f64,
            run_ns as f64 / made as f64,
        );
    }
}

/// The kernel's clock of BPF programs, on while this lives. It costs each run about 25 ns, which are
/// in the numbers.
struct Stats {
    before: String,
}

impl Stats {
    fn on() -> Self {
        let before = fs::read_to_string(BPF_STATS).expect("kernel.bpf_stats_enabled");
        fs::write(BPF_STATS, "1").expect("kernel.bpf_stats_enabled can be set by root");
        Self { before }
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        let _ = fs::write(BPF_STATS, self.before.trim());
    }
}
