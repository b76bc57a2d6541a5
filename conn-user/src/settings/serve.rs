//! The settings of the daemon from the options of `serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::cli::serve::DEFAULT_SOCKET;
use crate::cli::{RulesArgs, RulesTask, ServeArgs};
use crate::complaint::Complaint;
use crate::error::UsageError;
use crate::event::sort_key::SourceGroup;
use crate::settings::otlp::Otlp;
use crate::settings::rule::Rule;

/// The mount point of the BPF file system for pins, unless another one is chosen.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf";
/// The group whose members may ask, unless another one is chosen.
pub const DEFAULT_GROUP: &str = "conntrace";
/// The configuration file, unless another one is chosen.
pub const DEFAULT_CONFIG: &str = "/etc/conntrace/conntrace.toml";
/// The directory for what outlives the daemon, unless another one is chosen.
const DEFAULT_STATE: &str = "/var/lib/conntrace";
/// The program that takes mail, unless another one is chosen.
const DEFAULT_SENDMAIL: &str = "/usr/sbin/sendmail";
/// The most clients at the same time, and those of one user other than root.
const CLIENTS: usize = 256;
const CLIENTS_OF_A_USER: usize = 16;
/// How many addresses the daemon listens on at the most.
pub const MAX_ADDRESSES: usize = 8;
/// How many ports may have metrics of their own for outgoing connections.
pub const MAX_PORTS: usize = 512;
/// The longest path of a socket, `sun_path` in include/uapi/linux/un.h without its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Who may ask the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Root and the members of the group.
    #[default]
    Group,
    /// Other users, too. They see the processes of their own only.
    Everyone,
}

/// Which settings are those of the command line: the file does not change them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// The socket.
    pub socket: bool,
    /// The group.
    pub group: bool,
    /// The mount point for pins.
    pub pins: bool,
}

/// The settings of `conntrace serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub struct ServeSettings {
    /// The socket for clients: an absolute path.
    pub socket: PathBuf,
    /// The group whose members may ask: a name or a number.
    pub group: String,
    /// Who may ask beside root and the group.
    pub access: Access,
    /// The mount point of the BPF file system for pins: an absolute path.
    pub pins: PathBuf,
    /// Nothing is pinned.
    pub transient: bool,
    /// Handshakes and lifetimes are counted in histograms, too.
    pub lifetimes: bool,
    /// Remote addresses are counted, too, or their prefixes.
    pub sources: Option<SourceGroup>,
    /// The addresses on which metrics are to be had, [`MAX_ADDRESSES`] at the most.
    pub listen: Vec<SocketAddr>,
    /// Ranges of ports whose outgoing connections have metrics of their own, both ends included.
    pub ports: Vec<(u16, u16)>,
    /// The most clients at the same time.
    pub clients: usize,
    /// The most clients of one user other than root.
    pub clients_per_user: usize,
    /// The directory for what outlives the daemon: an absolute path.
    pub state: PathBuf,
    /// The program that takes mail: an absolute path.
    pub sendmail: PathBuf,
    /// Where metrics go by OTLP.
    pub otlp: Option<Otlp>,
    /// The rules of alarms.
    pub rules: Vec<Rule>,
    /// The configuration file: an absolute path.
    pub config: PathBuf,
    /// The command line names the file, so it must be there.
    pub is_config_chosen: bool,
    /// What the command line chooses.
    pub typed: Typed,
    /// Only check the configuration file.
    pub check: bool,
    /// Only take the pins away.
    pub detach: bool,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl ServeSettings {
    /// Validates the options.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub(crate) fn new(args: &ServeArgs, verbose: u8) -> Result<Self, UsageError> {
        let socket = absolute("--socket", args.socket.as_deref(), DEFAULT_SOCKET)?;
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            let complaint = "the path of a Unix socket has at most 107 bytes";
            return Err(UsageError::value("--socket", &socket.to_string_lossy(), complaint));
        }
        let pins = absolute("--bpffs", args.bpffs.as_deref(), DEFAULT_PINS)?;
        let group = args.group.clone().unwrap_or_else(|| DEFAULT_GROUP.into());
        Ok(Self {
            socket,
            group,
            access: Access::Group,
            pins,
            transient: args.transient,
            lifetimes: false,
            sources: None,
            listen: Vec::new(),
            ports: Vec::new(),
            clients: CLIENTS,
            clients_per_user: CLIENTS_OF_A_USER,
            state: DEFAULT_STATE.into(),
            sendmail: DEFAULT_SENDMAIL.into(),
            otlp: None,
            rules: Vec::new(),
            config: absolute("--config", args.config.as_deref(), DEFAULT_CONFIG)?,
            is_config_chosen: args.config.is_some(),
            typed: Typed {
                socket: args.socket.is_some(),
                group: args.group.is_some(),
                pins: args.bpffs.is_some(),
            },
            check: args.check,
            detach: args.detach,
            verbose,
        })
    }
}

/// The settings of `conntrace rules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesSettings {
    /// The rule to test; none explains all.
    pub test: Option<String>,
    /// The settings of the daemon, without its file.
    pub serve: ServeSettings,
    /// The socket of the daemon that the command line names.
    pub socket: Option<PathBuf>,
}

impl RulesSettings {
    /// Validates the options.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub(crate) fn new(args: &RulesArgs, daemon: Option<&Path>) -> Result<Self, UsageError> {
        let test = match (args.task, &args.rule) {
            (RulesTask::Test, None) => {
                return Err(UsageError::conflict("RULE", "conntrace rules test needs the name of a rule"));
            }
            (RulesTask::List, Some(_)) => {
                return Err(UsageError::conflict(
                    "RULE",
                    "conntrace rules list explains all rules: leave the name out",
                ));
            }
            (_, rule) => rule.clone(),
        };
        let serve =
            ServeSettings::new(&ServeArgs { config: args.config.clone(), ..ServeArgs::default() }, 0)?;
        Ok(Self { test, serve, socket: daemon.map(Path::to_owned) })
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

    fn settings(args: &ServeArgs) -> Result<ServeSettings, String> {
        ServeSettings::new(args, 0).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_have_defaults_and_are_absolute() {
        let usual = settings(&ServeArgs::default()).unwrap();
        assert_eq!((usual.socket, usual.pins), (DEFAULT_SOCKET.into(), DEFAULT_PINS.into()));
        let socket = |path: &str| settings(&ServeArgs { socket: Some(path.into()), ..ServeArgs::default() });
        assert_eq!(socket("/tmp/a").unwrap().socket, Path::new("/tmp/a"));
        let long = format!("/{}", "a".repeat(MAX_SOCKET_PATH));
        assert_eq!(socket("a").unwrap_err(), "--socket: the path must be absolute: begin it with /");
        assert_eq!(socket(&long).unwrap_err(), "--socket: the path of a Unix socket has at most 107 bytes");
        assert!(socket(&long[..MAX_SOCKET_PATH]).is_ok());
    }
}
