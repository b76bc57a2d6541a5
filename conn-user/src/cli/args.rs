//! From the typed arguments to the arguments that clap parses.

use std::ffi::{OsStr, OsString};

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::environment::{self, OPTIONS};
use crate::cli::{Cli, conntrack_compat};
use crate::complaint::{Complaint, complaint};
use crate::error::UsageError;
use crate::filter::expression::parser;

/// Why a command line was refused.
#[derive(Debug)]
pub enum Refusal {
    /// clap's error, or clap's answer to `--help` and `--version`.
    Clap(Box<clap::Error>),
    /// An error of conntrace's.
    Usage(UsageError),
}

/// Reads the command line. The options of [`OPTIONS`] precede the typed ones. `args` begins with the name of the
/// program.
///
/// # Errors
/// Why the command line was refused.
pub fn read(args: Vec<OsString>, options: Option<&OsStr>) -> Result<Cli, Refusal> {
    let mut args = rewrite_args(args).map_err(|why| Refusal::Usage(UsageError::Unknown(why)))?;
    if let Some(options) = options
        && args.len() > 1
        && !args[1].as_encoded_bytes().starts_with(b"-")
    {
        let words = environment::words(options, &args[1])
            .map_err(|why| Refusal::Usage(UsageError::Environment(why)))?;
        check_options(&args[..2], &words)?;
        args.splice(2..2, words);
    }
    Cli::try_parse_from(args).map_err(refuse)
}

/// Refuses unknown options and filters in [`OPTIONS`]. The message names the variable.
fn check_options(command: &[OsString], words: &[OsString]) -> Result<(), Refusal> {
    let wrong = |complaint| Err(Refusal::Usage(UsageError::Environment(complaint)));
    match Cli::try_parse_from(command.iter().chain(words)) {
        Ok(cli) if cli.command.expression().is_empty() => Ok(()),
        Ok(_) => wrong(complaint!(
            "{OPTIONS} takes options only, no filter expression: use options like --dport 22"
        )),
        // An unknown command is not a mistake in the variable.
        Err(error) if error.kind() == ErrorKind::InvalidSubcommand => Ok(()),
        Err(error) => match refuse(error) {
            Refusal::Usage(error) => wrong(complaint!("{OPTIONS}: {error}")),
            Refusal::Clap(error) => {
                let text = error.render().to_string();
                let first = text.lines().next().unwrap_or_default();
                wrong(complaint!("{OPTIONS}: {}", first.strip_prefix("error: ").unwrap_or(first)))
            }
        },
    }
}

/// Explains options of conntrack that conntrace does not have. clap reports other unknown options.
fn refuse(mut error: clap::Error) -> Refusal {
    // clap would suggest `--`, which makes the option a filter.
    error.remove(ContextKind::Suggested);
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
        && let Some(why) = conntrack_compat::why(option)
    {
        return Refusal::Usage(UsageError::Unknown(why));
    }
    Refusal::Clap(Box::new(error))
}

/// conntrack's command flags, and the command of each. `--count` is an option of `events`, so `-C` has no long form.
const COMMAND_FLAGS: [(&str, &str, &str); 4] = [
    ("-L", "--dump", "list"),
    ("-E", "--event", "events"),
    ("-C", "-C", "count"),
    ("-S", "--stats", "stats"),
];

/// Moves the command to the front, where clap expects it. conntrack's commands are flags (`-E`) at any position. The
/// default is `events`. `args` begins with the name of the program.
///
/// # Errors
/// conntrace does not have this table of conntrack's.
pub fn rewrite_args(mut args: Vec<OsString>) -> Result<Vec<OsString>, Complaint> {
    let options_end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let first = 1.min(args.len());
    let options = first..options_end.max(first);
    if args[options.clone()].iter().any(|arg| arg == "-V" || arg == "--version") {
        args.truncate(first);
        args.push("--version".into());
        return Ok(args);
    }
    // A word before all options except -v names the command, unless a filter begins there. clap checks the name.
    let word = options.clone().find(|&at| !is_verbose(&args[at]));
    if let Some(at) = word.filter(|&at| !args[at].as_encoded_bytes().starts_with(b"-"))
        && !args[at].to_str().is_some_and(parser::begins)
    {
        let command = args.remove(at);
        args.insert(first, command);
        return Ok(args);
    }
    for at in options {
        if let Some((command, rest)) = command_flag(&args[at]) {
            args.remove(at);
            if let Some(rest) = rest {
                args.insert(at, rest);
            } else if let Some(table) = args.get(at).and_then(|arg| arg.to_str()) {
                if let Some(why) = conntrack_compat::table(table) {
                    return Err(why);
                }
                // conntrack's own name for the table of connections.
                if table == "conntrack" {
                    args.remove(at);
                }
            }
            args.insert(first, command.into());
            if command == "list" {
                args.insert(first + 1, "--dump".into());
            }
            return Ok(args);
        }
    }
    let asks_for_help = word.is_some_and(|at| args[at] == "-h" || args[at] == "--help");
    if !asks_for_help {
        args.insert(first, "events".into());
    }
    Ok(args)
}

/// The command of a flag, and the rest of a cluster of short options (`-Ee NEW`).
fn command_flag(arg: &OsString) -> Option<(&'static str, Option<OsString>)> {
    let arg = arg.to_str()?;
    COMMAND_FLAGS.iter().find_map(|&(short, long, command)| {
        if arg == short || arg == long {
            return Some((command, None));
        }
        arg.strip_prefix(short).map(|rest| (command, Some(format!("-{rest}").into())))
    })
}

fn is_verbose(arg: &OsString) -> bool {
    let bytes = arg.as_encoded_bytes();
    arg == "--verbose"
        || bytes.strip_prefix(b"-").is_some_and(|vs| !vs.is_empty() && vs.iter().all(|&byte| byte == b'v'))
}
