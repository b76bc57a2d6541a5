//! Where a command runs: in this process, or in the daemon.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::cli::serve::DEFAULT_SOCKET;
use crate::cli::{Cli, Command};
use crate::complaint::complaint;
use crate::error::{Error, UsageError};
use crate::host::facts::Host;
use crate::host::lookup::HostLookup;
use crate::serve::client;
use crate::serve::endpoint::Endpoint;
use crate::settings::Settings;

/// Runs a command in the daemon, if it belongs there; false if it belongs into this process. `args` is what `cli` was read
/// from.
///
/// # Errors
/// The daemon cannot be asked, or refuses; [`Error::Exited`] if the command failed there.
pub fn run_in_daemon(cli: &Cli, args: &[std::ffi::OsString], host: &Host) -> Result<bool, Error> {
    let command = args.get(1).and_then(|arg| arg.to_str()).unwrap_or_default();
    if matches!(cli.command, Command::Rules(_) | Command::Munin(_)) {
        // These commands ask the daemon themselves.
        return Ok(false);
    }
    if Endpoint::for_command(command).is_none() {
        return match &cli.place.daemon {
            Some(_) => {
                Err(UsageError::conflict("--daemon", complaint!("{command} runs in this process only"))
                    .into())
            }
            None => Ok(false),
        };
    }
    if let Command::Stats(stats) = &cli.command
        && stats.asks_for_history()
    {
        // A mistake in the options is the first thing to name.
        Settings::from_cli(cli, &HostLookup::new(host))?;
        return in_daemon(cli, args).map(|()| true);
    }
    let socket = match &cli.place.daemon {
        Some(socket) => socket.clone(),
        None if cli.place.local || host.missing_capabilities().is_empty() => return Ok(false),
        None => match present(Path::new(DEFAULT_SOCKET)) {
            Some(socket) => socket,
            None => return Ok(false),
        },
    };
    ask(&socket, args).map(|()| true)
}

/// Runs a command that the daemon alone can answer.
fn in_daemon(cli: &Cli, args: &[std::ffi::OsString]) -> Result<(), Error> {
    let only = "the daemon keeps the counts of each minute, and no other process does";
    if cli.place.local {
        return Err(UsageError::conflict("--local", complaint!("{only}: leave --local out")).into());
    }
    let socket = cli.place.daemon.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET));
    if let Err(error) = UnixStream::connect(socket)
        && error.kind() != io::ErrorKind::PermissionDenied
    {
        let why = complaint!("{only}, but none answers at {}: start conntrace serve", socket.display());
        return Err(UsageError::conflict("stats", why).into());
    }
    ask(socket, args)
}

fn ask(socket: &Path, args: &[std::ffi::OsString]) -> Result<(), Error> {
    log::debug!("the daemon at {} answers", socket.display());
    match client::run(socket, args)? {
        0 => Ok(()),
        code => Err(Error::Exited(code)),
    }
}

/// The socket, if a daemon listens there.
fn present(socket: &Path) -> Option<PathBuf> {
    match UnixStream::connect(socket) {
        Ok(_) => Some(socket.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            log::warn!("a daemon runs, which root and members of the group conntrace may ask");
            None
        }
        Err(error) => {
            log::debug!("no daemon answers at {}: {error}", socket.display());
            None
        }
    }
}
