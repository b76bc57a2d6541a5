//! `cargo xtask bench`: the cost of conntrace, beside its peers.

mod speed;

use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::command::line;
use crate::{binary, page, setup};

/// The page with the numbers.
const PAGE: &str = "docs/overhead.md";

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these sections
    #[arg(long, value_name = "SECTION[,SECTION…]", value_delimiter = ',')]
    only: Vec<Section>,
    /// Measure as little as possible: a check that the benches run, not for numbers
    #[arg(long, conflicts_with = "write")]
    quick: bool,
    /// Put the numbers into docs/overhead.md
    #[arg(long)]
    write: bool,
}

/// A part of the page.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// The cost to the traffic, beside other tools
    Traffic,
    /// The cost of the programs in the kernel
    Kernel,
    /// The speed of user space
    User,
    /// Start, lists and memory with many connections
    Scale,
    /// The delay of events
    Latency,
    /// The cost to a listener under a flood of SYNs
    Flood,
    /// The cost to the traffic of UDP
    Udp,
    /// The cost to connections that a router passes on
    Forwarded,
    /// The cost of the daemon to the traffic, and how long its answers take
    Daemon,
}

impl Section {
    const fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Kernel => "kernel",
            Self::User => "user",
            Self::Scale => "scale",
            Self::Latency => "latency",
            Self::Flood => "flood",
            Self::Udp => "udp",
            Self::Forwarded => "forwarded",
            Self::Daemon => "daemon",
        }
    }
}

/// Builds everything first, then measures one section after the other.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    setup::ensure_bench_tools()?;
    let all = Section::value_variants();
    let chosen: Vec<_> =
        all.iter().filter(|one| arguments.only.is_empty() || arguments.only.contains(one)).collect();
    let (conntrace, empty, bench) = (binary::conntrace(false)?, binary::empty()?, binary::bench()?);
    if chosen.contains(&&Section::User) {
        speed::build()?;
    }
    let host = page::host()?;
    let mut failed = false;
    for section in chosen {
        let begin = Instant::now();
        let name = section.name();
        eprintln!("== {name}");
        let measured = if *section == Section::User {
            speed::measure(arguments.quick)
        } else {
            let mut command = Command::new(&bench);
            command.arg(name).arg("--empty").arg(&empty).env("CONNTRACE_BIN", &conntrace);
            if arguments.quick {
                command.arg("--quick");
            }
            output(&mut command)
        };
        eprintln!("== {name} took {:.0} s", begin.elapsed().as_secs_f64());
        // The other sections take minutes, and do not depend on this one.
        let text = match measured {
            Ok(text) => text,
            Err(error) => {
                eprintln!("error: {error:#}");
                failed = true;
                continue;
            }
        };
        std::io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")?;
        if arguments.write {
            page::replace(PAGE, name, &format!("\n{host}, `cargo xtask bench --only {name}`:\n\n{text}\n"))?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The output of a program that succeeds.
fn output(command: &mut Command) -> Result<String> {
    let started = command.stdout(Stdio::piped()).spawn();
    let output = started
        .and_then(std::process::Child::wait_with_output)
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line(command), output.status);
    }
    String::from_utf8(output.stdout).context("what was measured is no text")
}
