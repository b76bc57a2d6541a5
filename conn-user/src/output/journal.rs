//! The journal of systemd: log lines with fields, by its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use log::{Level, Record};

/// The variable by which systemd names the stream that standard error is connected to (systemd.exec(5)).
pub const VARIABLE: &str = "JOURNAL_STREAM";
/// The socket that takes records.
const SOCKET: &str = "/run/systemd/journal/socket";

/// When counting began, as records have it.
static EPOCH: OnceLock<String> = OnceLock::new();

/// A connection to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    part: &'static str,
}

/// True if standard error is the journal.
pub fn is_stderr() -> bool {
    let named = std::env::var(VARIABLE).unwrap_or_default();
    let own =
        io::stderr().as_fd().try_clone_to_owned().and_then(|stderr: OwnedFd| File::from(stderr).metadata());
    own.is_ok_and(|facts| is_stream(&named, facts.dev(), facts.ino()))
}

/// The variable names device and inode of a stream in decimal.
fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    named.split_once(':') == Some((&device.to_string(), &inode.to_string()))
}

/// Notes when counting began, for all later records.
pub fn set_epoch(epoch: &str) {
    // The first one stays: a process has one epoch.
    let _ = EPOCH.set(epoch.to_owned());
}

/// In front of a line of standard error that is an error, if the journal reads it (sd-daemon(3)).
pub fn error_mark() -> &'static str {
    if is_stderr() { "<3>" } else { "" }
}

/// The journal's number of a level (syslog(3)).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

impl Journal {
    /// The journal, if it is standard error. `part`: which process of the daemon this is.
    pub fn of_stderr(part: &'static str) -> Option<Self> {
        if !is_stderr() {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, part })
    }

    /// Writes a record, or a line with its priority into `rest` if the journal does not take the record.
    ///
    /// # Errors
    /// The line cannot be written.
    pub fn write(&self, record: &Record<'_>, rest: &mut dyn io::Write) -> io::Result<()> {
        let message = record.args().to_string();
        let epoch = EPOCH.get().map(String::as_str);
        match self.socket.send(&encoded(record, &message, self.part, epoch)) {
            Ok(_) => Ok(()),
            Err(_) => writeln!(rest, "<{}>{message}", priority(record.level())),
        }
    }
}

/// A record as the journal reads it.
fn encoded(record: &Record<'_>, message: &str, part: &str, epoch: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let line = record.line().map(|line| line.to_string());
    let level = priority(record.level()).to_string();
    let fields = [
        ("MESSAGE", Some(message)),
        ("PRIORITY", Some(&level)),
        ("SYSLOG_IDENTIFIER", Some("conntrace")),
        ("CODE_FILE", record.file()),
        ("CODE_LINE", line.as_deref()),
        ("CONNTRACE_VERSION", Some(env!("CARGO_PKG_VERSION"))),
        ("CONNTRACE_MODULE", Some(record.target())),
        ("CONNTRACE_PART", Some(part)),
        ("CONNTRACE_EPOCH", epoch),
    ];
    for (name, value) in fields {
        let Some(value) = value else { continue };
        bytes.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_by_device_and_inode() {
        assert!(is_stream("8:123", 8, 123));
        for other in ["", "8", "8:12", "08:123", "8:123:4", "123:8"] {
            assert!(!is_stream(other, 8, 123), "{other}");
        }
        // The tests' standard error is no journal.
        assert_eq!(error_mark(), "");
    }

    #[test]
    fn a_record_has_fields_and_keeps_its_lines() {
        let record = Record::builder()
            .level(Level::Warn)
            .target("conntrace::serve")
            .file(Some("a.rs"))
            .line(Some(7))
            .build();
        let text = |message, epoch| {
            String::from_utf8_lossy(&encoded(&record, message, "back", epoch))
                .replace(env!("CARGO_PKG_VERSION"), "V")
        };
        assert_eq!(
            text("one", Some("then")),
            "MESSAGE=one\nPRIORITY=4\nSYSLOG_IDENTIFIER=conntrace\nCODE_FILE=a.rs\nCODE_LINE=7\nCONNTRACE_VERSION=V\n\
             CONNTRACE_MODULE=conntrace::serve\nCONNTRACE_PART=back\nCONNTRACE_EPOCH=then\n"
        );
        assert!(text("a=b\nc", None).starts_with("MESSAGE\n\u{5}\0\0\0\0\0\0\0a=b\nc\nPRIORITY=4\n"));
        assert!(!text("one", None).contains("EPOCH"));
    }
}
