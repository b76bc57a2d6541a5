//! `conntrace`: reads the command line, runs the command, and turns its error into an exit status.

use std::process::ExitCode;

use conntrace::cli::Cli;
use conntrace::cli::args::{self, Refusal};
use conntrace::cli::environment::OPTIONS;
use conntrace::command::{count, doctor, events, help, list, stats};
use conntrace::error::Error;
use conntrace::host::allocator;
use conntrace::host::lookup::HostNames;
use conntrace::output::stdout;
use conntrace::settings::Settings;
use conntrace::settings::style::{Color, Terminal};

fn main() -> ExitCode {
    allocator::return_free_memory();
    let args: Vec<_> = std::env::args_os().collect();
    let is_short = help::is_short(&args);
    let done = match args::read(args, std::env::var_os(OPTIONS).as_deref()) {
        _ if is_short => stdout::print(help::short()),
        Ok(cli) => {
            init_log(cli.verbose);
            run(&cli)
        }
        Err(Refusal::Clap(error)) if error.use_stderr() => error.exit(),
        // Help and version are answers, which standard output may have no room for.
        Err(Refusal::Clap(error)) => stdout::print(answer(&error)),
        Err(Refusal::Usage(error)) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conntrace: {}", error.report());
            if matches!(error, Error::Usage(_)) {
                eprintln!("conntrace: --help shows all options");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// What clap answers, in colour where that is wanted.
fn answer(error: &clap::Error) -> String {
    let text = error.render();
    if Terminal::stdout(Color::Auto).color { text.ansi().to_string() } else { text.to_string() }
}

fn run(cli: &Cli) -> Result<(), Error> {
    match Settings::from_cli(cli, &HostNames::load())? {
        Settings::Events(settings) => events::run(&settings),
        Settings::Count(settings) => count::run(&settings),
        Settings::Help(args) => help::run(&args),
        Settings::Completions(args) => help::complete(&args),
        Settings::List(settings) => list::run(&settings),
        Settings::Stats(settings) => stats::run(&settings),
        Settings::Doctor(format) => doctor::run(format),
    }
}

/// Warnings always; with `-v` what was decided, with `-vv` also what the programs say. `RUST_LOG` overrides.
fn init_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "conntrace=debug",
        _ => "conntrace=debug,conn_ebpf=trace,aya_log=trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level))
        .format_timestamp(None)
        .init();
}
