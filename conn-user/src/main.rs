//! `conntrace`: reads the command line, runs the command, and turns its error into an exit status.

use std::ffi::OsString;
use std::process::ExitCode;

use conntrace::cli::args::{self, Refusal};
use conntrace::cli::environment::OPTIONS;
use conntrace::cli::{Cli, Command};
use conntrace::command::{count, doctor, events, help, list, munin, place, rules, serve, stats};
use conntrace::error::Error;
use conntrace::host::allocator;
use conntrace::host::descriptors;
use conntrace::host::facts::Host;
use conntrace::host::lookup::HostLookup;
use conntrace::output::journal::{self, Journal};
use conntrace::output::{stderr, stdout, terminal};
use conntrace::render::style::Color;
use conntrace::settings::Settings;
use conntrace::stream::ready;

fn main() -> ExitCode {
    let inherited = ready::inherit();
    allocator::return_free_memory();
    descriptors::raise_limit();
    let args: Vec<_> = std::env::args_os().collect();
    let is_short = help::is_short(&args);
    let mut wants_exit_code = false;
    let done = match args::read(args, std::env::var_os(OPTIONS).as_deref()) {
        _ if is_short => stdout::print(help::short()),
        Ok((cli, args)) => {
            init_log(cli.verbose, part(&cli.command));
            if let Err(complaint) = inherited {
                log::warn!("{complaint}");
            }
            wants_exit_code = cli.command.wants_exit_code();
            run(&cli, &args)
        }
        Err(Refusal::Clap(error)) if error.use_stderr() => error.exit(),
        // Help and version go to standard output, where writing may fail.
        Err(Refusal::Clap(error)) => stdout::print(answer(&error)),
        Err(Refusal::Usage(error)) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The answer is the status.
        Err(Error::NothingFound) => ExitCode::FAILURE,
        Err(Error::Exited(code)) => ExitCode::from(code),
        Err(error) => {
            stderr::print(format_args!("{}conntrace: {}\n", journal::error_mark(), error.report()));
            if error.is_usage() {
                stderr::print("conntrace: --help shows all options\n");
            }
            // As with grep, 1 says that nothing was found.
            let code = if wants_exit_code { error.exit_code().max(2) } else { error.exit_code() };
            ExitCode::from(code)
        }
    }
}

/// clap's answer as text, with colours on a terminal.
fn answer(error: &clap::Error) -> String {
    let text = error.render();
    if terminal::probe(Color::Auto).color { text.ansi().to_string() } else { text.to_string() }
}

fn run(cli: &Cli, args: &[OsString]) -> Result<(), Error> {
    match &cli.command {
        Command::Front(args) => return serve::front(args),
        Command::WatchRules(args) => return rules::watch(args),
        Command::ExportOtlp(args) => return serve::export(args),
        _ => {}
    }
    let host = Host::probe();
    if place::run_in_daemon(cli, args, &host)? {
        return Ok(());
    }
    match Settings::from_cli(cli, &HostLookup::new(&host))? {
        Settings::Events(settings) => events::run(&settings, &host),
        Settings::Count(settings) => count::run(&settings, &host),
        Settings::Help(args) => help::run(&args),
        Settings::Completions(args) => help::complete(&args),
        Settings::List(settings) => list::run(&settings, &host),
        Settings::Stats(settings) => stats::run(&settings, &host),
        Settings::Front(args) => serve::front(&args),
        Settings::WatchRules(args) => rules::watch(&args),
        Settings::ExportOtlp(args) => serve::export(&args),
        Settings::Rules(settings) => rules::run(&settings, &host),
        Settings::Munin(settings) => munin::run(&settings),
        Settings::Serve(settings) => serve::run(&settings, &host),
        Settings::Doctor(format) => doctor::run(format, &host),
    }
}

/// Which process of the daemon a command is, in the journal.
const fn part(command: &Command) -> &'static str {
    match command {
        Command::Front(_) => "front",
        Command::WatchRules(_) => "rules",
        Command::ExportOtlp(_) => "otlp",
        Command::Serve(_) => "back",
        _ => "command",
    }
}

/// The log has warnings, with `-v` decisions, with `-vv` also the log lines of the kernel programs. `RUST_LOG`
/// overrides.
fn init_log(verbose: u8, part: &'static str) {
    let level = match verbose {
        0 => "warn",
        1 => "conntrace=debug",
        _ => "conntrace=debug,conn_ebpf=trace,aya_log=trace",
    };
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level));
    match Journal::of_stderr(part) {
        Some(journal) => builder.format(move |rest, record| journal.write(record, rest)),
        None => builder.format_timestamp(None),
    };
    builder.init();
}
