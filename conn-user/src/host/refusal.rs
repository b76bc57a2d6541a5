//! Refusals of the kernel, with the reason and a remedy.

use std::borrow::Cow;
use std::error::Error;
use std::io;

use nix::libc;

use crate::host::facts::release;

/// The kernel refused a program, a map or a hook. The error number decides whether a retry makes sense.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused {what}{reason}", reason = self.reason())]
pub struct Refusal {
    /// The refused action, as in "attaching `set_state`".
    what: String,
    /// The kernel's answer, if it gave an error number.
    source: Option<io::Error>,
}

impl Refusal {
    /// A refusal without an error number.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// A refusal with the error number that `errno` holds.
    pub fn with_errno(what: impl Into<String>, errno: Option<i32>) -> Self {
        Self { what: what.into(), source: errno.map(io::Error::from_raw_os_error) }
    }

    /// The kernel's error number, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }

    /// The system's text for the number, unless `what` contains it.
    fn reason(&self) -> String {
        self.source
            .as_ref()
            .map(ToString::to_string)
            .filter(|text| !self.what.contains(text))
            .map(|text| format!(": {text}"))
            .unwrap_or_default()
    }

    /// The usual remedy for a refusal.
    pub fn remedy(&self) -> Cow<'static, str> {
        match self.errno() {
            Some(libc::EPERM | libc::EACCES) => {
                "a container's seccomp profile, kernel lockdown or a security module may forbid it: run conntrace on \
                 the host, or in a container with --privileged"
                    .into()
            }
            errno @ Some(libc::EMFILE | libc::ENFILE) => without_descriptors(errno).unwrap_or_default().into(),
            Some(libc::ENOMEM | libc::E2BIG) => "the kernel has not enough memory: try a smaller --buffer-size".into(),
            // A kernel answers EINVAL to an unknown command or flag.
            Some(libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP) => format!(
                "conntrace needs Linux 5.15 or later with BTF; this is {}. Use another kernel, or run with -vv for \
                 details",
                release()
            )
            .into(),
            _ => "run with -vv for details".into(),
        }
    }
}

/// The remedy for a lack of file descriptors, if `errno` says so. conntrace has raised its soft limit before.
pub(crate) const fn without_descriptors(errno: Option<i32>) -> Option<&'static str> {
    match errno {
        Some(libc::EMFILE) => {
            Some("raise the hard limit of open files (ulimit -n): conntrace uses all of it")
        }
        Some(libc::ENFILE) => Some("all files of this host are in use: raise sysctl fs.file-max"),
        _ => None,
    }
}

/// The system's error number at the bottom of an error's sources.
pub(crate) fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        current = error.source();
    }
    None
}

/// An error's text with the texts of its sources, each once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut current = error.source();
    while let Some(error) = current {
        let source = error.to_string();
        if !text.contains(&source) {
            text = format!("{text}: {source}");
        }
        current = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_printed_once() {
        let refusal = |what: &str| Refusal::with_errno(what, Some(libc::EPERM)).to_string();
        assert_eq!(refusal("loading"), "the kernel refused loading: Operation not permitted (os error 1)");
        let twice = refusal("loading: Operation not permitted (os error 1)");
        assert_eq!(twice.matches("Operation not permitted").count(), 1);
    }

    #[test]
    fn errno_is_kept() {
        assert_eq!(Refusal::with_errno("loading", Some(libc::ENOMEM)).errno(), Some(libc::ENOMEM));
        assert_eq!(Refusal::new("loading").errno(), None);
        let nested = io::Error::other(Refusal::with_errno("loading", Some(libc::ENOMEM)));
        assert_eq!(errno(&Refusal::with_errno("loading", Some(libc::EIO))), Some(libc::EIO));
        assert!(chain(&nested).contains("Cannot allocate memory"));
    }
}
