//! The settings of the daemon from the options of `serve`.

use std::path::{Path, PathBuf};

use crate::cli::ServeArgs;
use crate::complaint::Complaint;
use crate::error::UsageError;

/// The socket for clients, unless another one is chosen.
pub const DEFAULT_SOCKET: &str = "/run/conntrace/conntrace.sock";
/// The directory of pins, unless another one is chosen.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf/conntrace";
/// The longest path of a socket, `sun_path` in include/uapi/linux/un.h without its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The settings of `conntrace serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeSettings {
    /// The socket for clients: an absolute path.
    pub socket: PathBuf,
    /// The directory for pins: an absolute path.
    pub pins: PathBuf,
    /// Nothing is pinned.
    pub transient: bool,
    /// Only take the pins away.
    pub detach: bool,
}

impl ServeSettings {
    /// Validates the options.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub(super) fn new(args: &ServeArgs) -> Result<Self, UsageError> {
        let socket = absolute("--socket", args.socket.as_deref(), DEFAULT_SOCKET)?;
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            let complaint = "the path of a Unix socket has at most 107 bytes";
            return Err(UsageError::value("--socket", &socket.to_string_lossy(), complaint));
        }
        let pins = absolute("--bpffs", args.bpffs.as_deref(), DEFAULT_PINS)?;
        Ok(Self { socket, pins, transient: args.transient, detach: args.detach })
    }
}

/// A path that does not depend on the working directory.
fn absolute(option: &'static str, typed: Option<&Path>, default: &str) -> Result<PathBuf, UsageError> {
    let path = typed.unwrap_or(Path::new(default));
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let complaint = Complaint::from("the path must be absolute: begin it with /");
    Err(UsageError::value(option, &path.to_string_lossy(), complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: ServeArgs) -> Result<ServeSettings, String> {
        ServeSettings::new(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_have_defaults_and_are_absolute() {
        let usual = settings(ServeArgs::default()).unwrap();
        assert_eq!((usual.socket, usual.pins), (DEFAULT_SOCKET.into(), DEFAULT_PINS.into()));
        let socket = |path: &str| settings(ServeArgs { socket: Some(path.into()), ..ServeArgs::default() });
        assert_eq!(socket("/tmp/a").unwrap().socket, Path::new("/tmp/a"));
        let long = format!("/{}", "a".repeat(MAX_SOCKET_PATH));
        assert_eq!(socket("a").unwrap_err(), "--socket: the path must be absolute: begin it with /");
        assert_eq!(socket(&long).unwrap_err(), "--socket: the path of a Unix socket has at most 107 bytes");
        assert!(socket(&long[..MAX_SOCKET_PATH]).is_ok());
    }
}
