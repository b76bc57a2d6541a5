//! Errors of a run: causes, remedies, and exit statuses.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::complaint::Complaint;
use crate::conntrack::tracker::TrackError;
use crate::filter::syntax_error::SyntaxError;
use crate::host::plan::PlanError;
use crate::host::refusal::chain;
use crate::kernel::iterator::WalkError;
use crate::kernel::map::MapError;
use crate::kernel::pin::error::PinError;
use crate::kernel::probe::ProbeError;
use crate::kernel::session::StartError;
use crate::ledger::auditor::AuditError;

/// Why a run ends early. `Display` names the failure, [`Error::report`] adds causes and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The host lacks what conntrace needs.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel programs cannot be used.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A map cannot be used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A walk of sockets or files failed.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The pins cannot be used.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Connection tracking cannot be watched.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The ledger could not be compared with the sockets.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The sockets of a network namespace cannot be seen.
    #[error("conntrace cannot enter {what}, so it cannot count the connections there")]
    Hidden {
        /// The namespace.
        what: String,
    },
    /// Nothing was found, and `--exit-code` makes that an exit status. There is nothing to print.
    #[error("nothing was found")]
    NothingFound,
    /// The doctor printed findings that are not all good.
    #[error("{}", if *broken { "conntrace does not work here" } else { "conntrace works, with the degradations above" })]
    Unwell {
        /// conntrace does not work at all.
        broken: bool,
    },
    /// The configuration file of the daemon is wrong.
    #[error("{}: {why}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// The mistake, with line and column where one is known.
        why: String,
    },
    /// Another daemon has the socket.
    #[error("another conntrace serve has the socket {}", socket.display())]
    Taken {
        /// The path of the socket.
        socket: PathBuf,
    },
    /// The daemon cannot listen on an address.
    #[error("listening on {address} failed")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
        /// What to do about it.
        remedy: String,
    },
    /// The daemon refuses the request of a client.
    #[error("{text}")]
    Daemon {
        /// The status of HTTP.
        status: u16,
        /// Why, and the remedy in a line of its own.
        text: String,
    },
    /// A command ended so in the daemon, and its messages were printed.
    #[error("the command ended with status {0}")]
    Exited(u8),
    /// Reading or writing failed.
    #[error("{context} failed")]
    Io {
        /// The action that failed.
        context: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Something was lost, and `--strict` makes a loss an error. The text names the loss.
    #[error("{0}, and --strict was given")]
    Lost(String),
    /// A stream of the daemon cannot go on. The text says why.
    #[error("the stream cannot go on, and how many events are missing is unknown{0}")]
    Stream(String),
    /// conntrace contradicts itself.
    #[error("{0}: this is a bug in conntrace, please report it")]
    Internal(String),
}

/// A mistake in the command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// An option has a value that conntrace cannot take.
    #[error("{option}: {complaint}")]
    Value {
        /// The option, with its hyphens.
        option: &'static str,
        /// The value as typed.
        typed: String,
        /// The mistake and the remedy.
        complaint: Complaint,
    },
    /// An option contradicts another one.
    #[error("{option}: {complaint}")]
    Conflict {
        /// The option to leave out, with its hyphens.
        option: &'static str,
        /// The option that it contradicts.
        complaint: Complaint,
    },
    /// The filter expression is wrong at one place.
    #[error("{}", error.show(typed))]
    Expression {
        /// The expression as typed.
        typed: String,
        /// The mistake and its place.
        error: SyntaxError,
    },
    /// The filter expression asks for a field that the command does not know.
    #[error("filter: {0}")]
    Field(Complaint),
    /// conntrace does not have this option, table or topic.
    #[error("{0}")]
    Unknown(Complaint),
    /// The options in an environment variable are wrong.
    #[error("{0}")]
    Environment(Complaint),
}

impl UsageError {
    /// The value of an option is wrong.
    pub fn value(option: &'static str, typed: &str, complaint: impl Into<Complaint>) -> Self {
        Self::Value { option, typed: typed.to_owned(), complaint: complaint.into() }
    }

    /// An option contradicts another one.
    pub fn conflict(option: &'static str, complaint: impl Into<Complaint>) -> Self {
        Self::Conflict { option, complaint: complaint.into() }
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Plan(error) => error.into(),
            StartError::Probe(error) => error.into(),
            StartError::Walk(error) => error.into(),
            StartError::Pin(error) => error.into(),
        }
    }
}

impl Error {
    /// The exit status: as in conntrack 2 for wrong usage and 1 for other errors; 3 for a loss.
    pub const fn exit_code(&self) -> u8 {
        match self {
            _ if self.is_usage() => 2,
            Self::Lost(_) => 3,
            Self::Exited(code) => *code,
            _ => 1,
        }
    }

    /// True if the command line is at fault.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Usage(_) | Self::Plan(PlanError::NoCgroupForSockOps) | Self::Daemon { status: 400, .. }
        )
    }

    /// The remedy, if one is known.
    pub fn remedy(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Plan(error) => error.remedy().map(Cow::from),
            Self::Probe(error) => error.remedy(),
            Self::Walk(error) => error.remedy(),
            Self::Audit(error) => error.remedy(),
            Self::Hidden { .. } => {
                Some("run conntrace as root on the host, or add CAP_SYS_ADMIN and CAP_SYS_PTRACE".into())
            }
            Self::Map(error) => error.remedy().map(Cow::from),
            Self::Track(error) => error.remedy().map(Cow::from),
            Self::Taken { .. } => Some("stop it first, or choose another path with --socket".into()),
            Self::Listen { remedy, .. } => Some(remedy.clone().into()),
            Self::Pin(error) => error.remedy().map(Cow::from),
            Self::Usage(_)
            | Self::Config { .. }
            | Self::Daemon { .. }
            | Self::Exited(_)
            | Self::NothingFound
            | Self::Unwell { .. }
            | Self::Io { .. }
            | Self::Lost(_)
            | Self::Stream(_)
            | Self::Internal(_) => None,
        }
    }

    /// The whole message: failure and causes, and the remedy in a line of its own.
    pub fn report(&self) -> String {
        match self.remedy() {
            Some(remedy) => format!("{}\n{remedy}", chain(self)),
            None => chain(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;
    use crate::host::offsets::OffsetsError;
    use crate::host::refusal::Refusal;

    #[test]
    fn texts_name_cause_and_remedy() {
        let errors = [
            PlanError::MissingCapabilities { missing: vec!["CAP_BPF", "CAP_PERFMON"] }.into(),
            PlanError::NoBtf.into(),
            ProbeError::from(OffsetsError::MissingField { structure: "sock_common", member: "skc_num" })
                .into(),
            ProbeError::from(Refusal::with_errno("loading program set_state", Some(libc::EPERM))).into(),
            ProbeError::from(Refusal::new("attaching sock_ops")).into(),
            Error::Io {
                context: "writing to standard output".into(),
                source: io::Error::from_raw_os_error(libc::ENOSPC),
            },
        ];
        let texts: Vec<String> =
            errors.iter().map(|error| format!("[{}] {}", error.exit_code(), error.report())).collect();
        insta::assert_snapshot!(texts.join("\n\n"), @"
        [1] conntrace needs root (or CAP_BPF and CAP_PERFMON, better with CAP_NET_ADMIN): run it with sudo
        missing here: CAP_BPF, CAP_PERFMON

        [1] this kernel has no type information (/sys/kernel/btf/vmlinux): conntrace needs it to read kernel structures
        use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all current distributions do, and have /sys mounted

        [1] this kernel's struct sock_common has no field skc_num in the expected size: conntrace does not know this kernel
        please report it with the output of uname -r

        [1] the kernel refused loading program set_state: Operation not permitted (os error 1)
        a container's seccomp profile, kernel lockdown or a security module may forbid it: run conntrace on the host, or in a container with --privileged

        [1] the kernel refused attaching sock_ops
        run with -vv for details

        [1] writing to standard output failed: No space left on device (os error 28)
        ");
    }

    #[test]
    fn only_wrong_usage_exits_with_2() {
        let usage = UsageError::conflict("--count", "it contradicts --top");
        assert_eq!(Error::from(usage).exit_code(), 2);
        assert_eq!(Error::from(PlanError::NoCgroupForSockOps).exit_code(), 2);
        assert_eq!(Error::Lost(String::new()).exit_code(), 3);
        assert_eq!(Error::Internal(String::new()).exit_code(), 1);
    }
}
