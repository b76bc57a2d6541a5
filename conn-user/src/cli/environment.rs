//! Default options from the environment, for commands that have them.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command, CommandFactory as _};

use crate::cli::Cli;
use crate::complaint::{Complaint, as_typed, complaint};

/// The environment variable with default options.
pub const OPTIONS: &str = "CONNTRACE_OPTS";

/// The words of [`OPTIONS`], split like in a shell, without options that only other commands have.
///
/// # Errors
/// The text is not UTF-8, or a quote is never closed.
pub fn words(options: &OsStr, command: &OsStr) -> Result<Vec<OsString>, Complaint> {
    let text = options.to_str().ok_or_else(|| complaint!("{OPTIONS} is not UTF-8"))?;
    let words =
        shell_words::split(text).map_err(|error| complaint!("{OPTIONS}: {error} in {}", as_typed(text)))?;
    let mut cli = Cli::command();
    cli.build();
    let own = cli.get_subcommands().find(|known| known.get_name() == command);
    let mut kept = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let is_own = own.is_some_and(|own| option(own, &word).is_some());
        let of_others = cli.get_subcommands().find_map(|other| option(other, &word));
        match of_others {
            Some(arg) if !is_own => {
                // The value of a dropped option is dropped, too.
                let needs_value = arg.get_num_args().is_none_or(|count| count.min_values() > 0);
                if arg.get_action().takes_values() && needs_value && !has_value(&word) {
                    words.next();
                }
            }
            _ => kept.push(word.into()),
        }
    }
    Ok(kept)
}

/// The option of a command that a word names.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    if let Some(long) = word.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or(long);
        return command.get_arguments().find(|arg| {
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|names| names.contains(&name))
        });
    }
    let short = word.strip_prefix('-')?.chars().next()?;
    command.get_arguments().find(|arg| arg.get_short() == Some(short))
}

/// True if a word contains the value of its option.
fn has_value(word: &str) -> bool {
    if word.starts_with("--") { word.contains('=') } else { word.chars().count() > 2 }
}
