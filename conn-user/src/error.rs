//! What can go wrong, in words that name the cause and the remedy.

use std::borrow::Cow;
use std::io;

use crate::host::facts::release;
use crate::host::refusal::{Refusal, chain};
use crate::kernel::iterator::WalkError;
use crate::kernel::map::MapError;
use crate::kernel::probe::ProbeError;
use crate::ledger::auditor::AuditError;

/// Why conntrace ends before its time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line: names the option, what is wrong with it and what to write instead.
    #[error("{0}")]
    Usage(String),
    /// A privilege is missing.
    #[error(
        "this needs root (or CAP_BPF and CAP_PERFMON, better with CAP_NET_ADMIN): run it with sudo\n\
         missing here: {missing}"
    )]
    NotRoot {
        /// The capabilities that this process lacks, separated by commas.
        missing: String,
    },
    /// The kernel does not describe its types.
    #[error(
        "this kernel has no type information (/sys/kernel/btf/vmlinux): conntrace needs it to find its way \
         in kernel structures\nuse a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all current distributions do, \
         and have /sys mounted"
    )]
    NoBtf,
    /// The kernel is older than all that conntrace knows.
    #[error("Linux {} is too old: {lacks}\nconntrace needs Linux 5.15 or later", release())]
    TooOld {
        /// What it cannot do.
        lacks: &'static str,
    },
    /// A kernel structure is not as the programs expect it.
    #[error(
        "this kernel's struct {structure} has no field {member} in the expected size: conntrace does not know \
         this kernel\nplease report it with the output of uname -r"
    )]
    MissingField {
        /// The structure.
        structure: &'static str,
        /// The member, with dots through nested structures.
        member: &'static str,
    },
    /// The kernel refused to describe its types.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel programs cannot be used.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A map cannot be used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A walk of sockets or files failed.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The ledger could not be compared with the sockets.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A namespace whose sockets cannot be seen.
    #[error(
        "{what} cannot be entered, so its connections cannot be counted\nrun conntrace as root in the initial \
         user namespace (or with CAP_SYS_ADMIN and CAP_SYS_PTRACE, too)"
    )]
    Hidden {
        /// Which.
        what: String,
    },
    /// The doctor found something; it has been told.
    #[error("{}", if *broken { "conntrace does not work here" } else { "conntrace works, with the degradations above" })]
    Unwell {
        /// It does not work at all.
        broken: bool,
    },
    /// Reading or writing failed.
    #[error("{context}: {source}")]
    Io {
        /// What was to be read, written or done.
        context: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Something was lost, and `--strict` makes that an error. Says what.
    #[error("{0}, and --strict was given")]
    Lost(String),
    /// conntrace contradicts itself.
    #[error("{0}: this is a bug in conntrace, please report it")]
    Internal(String),
}

impl Error {
    /// The exit status of the process, as conntrack has it: 2 for wrong usage, 1 for the rest; and 3 for a loss.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Lost(_) => 3,
            _ => 1,
        }
    }

    /// What helps, if anything is known to.
    pub fn remedy(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Refused(refusal) => Some(refusal.remedy()),
            Self::Probe(error) => error.remedy(),
            Self::Walk(error) => error.remedy(),
            Self::Audit(error) => error.remedy(),
            _ => None,
        }
    }

    /// The whole message: what failed, its causes, and in a line of its own the remedy.
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

    #[test]
    fn texts_name_cause_and_remedy() {
        let errors = [
            Error::NotRoot { missing: "CAP_BPF, CAP_PERFMON".into() },
            Error::NoBtf,
            Error::MissingField { structure: "sock_common", member: "skc_num" },
            Refusal::with_errno("loading program set_state", Some(libc::EPERM)).into(),
            Refusal::new("attaching sock_ops").into(),
            Error::Io { context: "writing".into(), source: io::Error::from_raw_os_error(libc::ENOSPC) },
        ];
        let texts: Vec<String> =
            errors.iter().map(|error| format!("[{}] {}", error.exit_code(), error.report())).collect();
        insta::assert_snapshot!(texts.join("\n\n"), @"
        [1] this needs root (or CAP_BPF and CAP_PERFMON, better with CAP_NET_ADMIN): run it with sudo
        missing here: CAP_BPF, CAP_PERFMON

        [1] this kernel has no type information (/sys/kernel/btf/vmlinux): conntrace needs it to find its way in kernel structures
        use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all current distributions do, and have /sys mounted

        [1] this kernel's struct sock_common has no field skc_num in the expected size: conntrace does not know this kernel
        please report it with the output of uname -r

        [1] the kernel refused loading program set_state: Operation not permitted (os error 1)
        a container's seccomp profile, kernel lockdown or a security module forbids it: run conntrace on the host, or with --privileged

        [1] the kernel refused attaching sock_ops
        see -vv for details

        [1] writing: No space left on device (os error 28)
        ");
    }

    #[test]
    fn only_wrong_usage_exits_with_2() {
        assert_eq!(Error::Usage(String::new()).exit_code(), 2);
        assert_eq!(Error::Internal(String::new()).exit_code(), 1);
    }
}
