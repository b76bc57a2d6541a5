//! From the typed arguments to the arguments that clap parses.

use std::ffi::{OsStr, OsString};

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::environment::{self, OPTIONS};
use crate::cli::{Cli, conntrack_compat, migration};
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
/// program. Returns the arguments with the command in front, too.
///
/// # Errors
/// Why the command line was refused.
pub fn read(args: Vec<OsString>, options: Option<&OsStr>) -> Result<(Cli, Vec<OsString>), Refusal> {
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
    if asks_for_flows(&args) {
        take_source_nat(&mut args);
    }
    let apart = args.windows(2).filter(|pair| pair[0] == "-n").filter_map(|pair| pair[1].to_str());
    let words = args.iter().filter_map(|arg| arg.to_str()).filter(|arg| is_short(arg));
    let joined = words.filter_map(|word| Some(word.split_once('n')?.1));
    if let Some(why) = apart.chain(joined).find_map(conntrack_compat::source_nat) {
        return Err(Refusal::Usage(UsageError::Unknown(why)));
    }
    match Cli::try_parse_from(&args) {
        Ok(cli) => Ok((cli, args)),
        Err(error) => Err(refuse(error, &args)),
    }
}

/// True if the run is of connection tracking, where conntrack's meaning of `-n ADDRESS` is taken.
fn asks_for_flows(args: &[OsString]) -> bool {
    let is_forward = |pair: &[OsString]| pair[0] == "--direction" && pair[1] == "forward";
    args.iter().any(|arg| arg == "--forwarded" || arg == "--forwarded=all" || arg == "--direction=forward")
        || args.windows(2).any(is_forward)
}

/// Turns conntrack's `-n ADDRESS` into `--src-nat=ADDRESS`. `-n` alone shows numbers.
fn take_source_nat(args: &mut Vec<OsString>) {
    let is_address = |word: &OsString| word.to_str().is_some_and(conntrack_compat::is_address);
    let mut at = 1;
    while at + 1 < args.len() {
        if args[at] == "-n" && is_address(&args[at + 1]) {
            let address = args.remove(at + 1);
            let mut option = OsString::from("--src-nat=");
            option.push(address);
            args[at] = option;
        }
        at += 1;
    }
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
        Err(error) => match refuse(error, words) {
            Refusal::Usage(error) => wrong(complaint!("{OPTIONS}: {error}")),
            Refusal::Clap(error) => {
                let text = error.render().to_string();
                let first = text.lines().next().unwrap_or_default();
                wrong(complaint!("{OPTIONS}: {}", first.strip_prefix("error: ").unwrap_or(first)))
            }
        },
    }
}

/// Explains options of conntrack and of other tools that conntrace does not have. clap reports other unknown options.
fn refuse(mut error: clap::Error, args: &[OsString]) -> Refusal {
    // clap would suggest `--`, which makes the option a filter.
    error.remove(ContextKind::Suggested);
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
    {
        let why = match (conntrack_compat::why(option), hint(option, args)) {
            (Some(why), Some(hint)) => Some(complaint!("{why}. {hint}")),
            (why, None) => why,
            (None, Some(hint)) => Some(complaint!("there is no {option}. {hint}")),
        };
        if let Some(why) = why {
            return Refusal::Usage(UsageError::Unknown(why));
        }
    }
    // A value is missing: the option has none in other tools (`ss -s`).
    if error.kind() == ErrorKind::InvalidValue
        && matches!(error.get(ContextKind::InvalidValue), Some(ContextValue::String(value)) if value.is_empty())
        && let Some(option) = args.last().and_then(|arg| arg.to_str()).filter(|arg| is_short(arg))
        && let Some(hint) = hint(option, args)
    {
        return Refusal::Usage(UsageError::Unknown(complaint!("{option} takes a value. {hint}")));
    }
    Refusal::Clap(Box::new(error))
}

/// The commands for what a short option means to other tools.
fn hint(option: &str, args: &[OsString]) -> Option<String> {
    let letter = option.strip_prefix('-').filter(|_| is_short(option))?.chars().next()?;
    let words = args.iter().filter_map(|arg| arg.to_str());
    let cluster = words.filter(|arg| is_short(arg)).find(|arg| arg.contains(letter)).unwrap_or(option);
    migration::hint(letter, cluster)
}

/// True for a word of short options.
fn is_short(arg: &str) -> bool {
    arg.len() > 1 && arg.starts_with('-') && !arg.starts_with("--")
}

/// conntrack's command flags, and the command of each. `--count` is an option of `events`, so only a `--count` without
/// a number is conntrack's `-C`.
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
    let flag = options.clone().find_map(|at| Some((at, command_flag(&args[at])?)));
    let alone = || options.clone().find(|&at| is_count_alone(&args, at)).map(|at| (at, ("count", None)));
    if let Some((at, (command, rest))) = flag.or_else(alone) {
        args.remove(at);
        if let Some(rest) = rest {
            args.insert(at, rest);
        } else if let Some(table) = args.get(at).and_then(|arg| arg.to_str()) {
            // `tcplife -L 80`; no filter begins with a number.
            if let Some(hint) = hint(LIST, &[LIST.into()]).filter(|_| is_port(command, table)) {
                return Err(complaint!("conntrack's -L prints the list and takes no port. {hint}"));
            }
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
    let asks_for_help = word.is_some_and(|at| args[at] == "-h" || args[at] == "--help");
    if !asks_for_help {
        args.insert(first, "events".into());
    }
    Ok(args)
}

/// conntrack's flag of `list`.
const LIST: &str = "-L";

/// True if a port follows conntrack's flag of `list`, as with bcc's tools.
fn is_port(command: &str, word: &str) -> bool {
    command == "list" && word.split(',').all(|part| part.parse::<u16>().is_ok())
}

/// True if `--count` stands without a number, as conntrack's long form of `-C`.
fn is_count_alone(args: &[OsString], at: usize) -> bool {
    let next = args.get(at + 1).and_then(|arg| arg.to_str());
    args[at] == "--count"
        && next.is_none_or(|next| {
            let is_option = next.starts_with('-') && next.parse::<i64>().is_err();
            is_option || next == "conntrack" || conntrack_compat::table(next).is_some()
        })
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
