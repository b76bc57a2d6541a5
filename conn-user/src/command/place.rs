//! Where a command runs: in this process, or in the daemon.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::cli::serve::DEFAULT_SOCKET;
use crate::cli::{Cli, Command};
use crate::complaint::complaint;
use crate::error::{Error, UsageError};
use crate::host::facts::Host;
use crate::serve::client;
use crate::serve::endpoint::Endpoint;

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
    let socket = match &cli.place.daemon {
        Some(socket) => socket.clone(),
        None if cli.place.local || host.missing_capabilities().is_empty() => return Ok(false),
        None => match present(Path::new(DEFAULT_SOCKET)) {
            Some(socket) => socket,
            None => return Ok(false),
        },
    };
    log::debug!("the daemon at {} answers", socket.display());
    match client::run(&socket, args)? {
        0 => Ok(true),
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
