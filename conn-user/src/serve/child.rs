//! A command of its own process for a client: its filter in the kernel, its losses and its slowness are its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::output::terminal;
use crate::serve::peer::Rights;
use crate::serve::query::Query;
use crate::serve::streams::Place;
use crate::stream::kept;
use crate::stream::ready::READY_FD;

/// This program, also after its file was replaced.
pub(crate) const SELF: &str = "/proc/self/exe";
/// How long a command may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the client may ask of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Ctrl-C: print what is left.
    Finish,
    /// End: there is no reader.
    Leave,
}

/// The ends of the pipes of a command that was started.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its standard output.
    pub(crate) stdout: OwnedFd,
    /// Its standard error.
    pub(crate) stderr: OwnedFd,
    /// Has a byte when the command traces; ends with it.
    pub(crate) ready: OwnedFd,
    /// Takes orders.
    pub(crate) orders: mpsc::UnboundedSender<Order>,
}

/// Starts a command that shows what `rights` allow, and whose stream may outlive it. `ended` gets its exit status, and whether
/// its client is known to have left.
///
/// # Errors
/// The system's answer.
pub(crate) fn start(
    query: &Query,
    rights: Rights,
    stream: Option<&Place>,
    ended: impl FnOnce(u8, bool) + Send + 'static,
) -> io::Result<Started> {
    let ((stdout, out), (stderr, err), (ready, signal)) = (io::pipe()?, io::pipe()?, io::pipe()?);
    let mut command = Command::new(SELF);
    command.arg0("conntrace");
    command.arg(query.endpoint.command().unwrap_or_default()).arg("--local");
    command
        .args(query.viewer(rights))
        .args(&query.args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env(READY_FD, signal.as_raw_fd().to_string());
    for (name, value) in [(terminal::VARIABLE, &query.terminal), ("TZ", &query.tz)] {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    if let Some(Place { point, from, .. }) = stream {
        command.env(kept::POINT, point).envs(from.map(|lines| (kept::FROM, lines.to_string())));
    }
    command.kill_on_drop(true);
    // The one child that is started now inherits the descriptor.
    set_inherited(&signal, true)?;
    let child = command.spawn();
    set_inherited(&signal, false)?;
    let child = child?;
    drop((command, signal));
    let (orders, received) = mpsc::unbounded_channel();
    tokio::spawn(watch(child, received, ended));
    Ok(Started { stdout: stdout.into(), stderr: stderr.into(), ready: ready.into(), orders })
}

fn set_inherited(descriptor: &impl AsFd, inherited: bool) -> io::Result<()> {
    let flags = if inherited { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(descriptor.as_fd(), FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Waits for the end, and passes orders on.
async fn watch(mut child: Child, mut orders: mpsc::UnboundedReceiver<Order>, ended: impl FnOnce(u8, bool)) {
    let mut has_client = true;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let status = loop {
        let order = tokio::select! {
            status = child.wait() => break status,
            order = orders.recv() => order,
        };
        has_client = order.is_some();
        // A process that has not been waited for keeps its number.
        let send = |signal| pid.map(|pid| kill(pid, signal));
        if order == Some(Order::Finish) {
            send(Signal::SIGINT);
            continue;
        }
        send(Signal::SIGTERM);
        tokio::select! {
            status = child.wait() => break status,
            () = sleep(PATIENCE) => {
                send(Signal::SIGKILL);
                break child.wait().await;
            }
        }
    };
    ended(status.map_or(1, code), has_client);
}

/// The exit status as a shell has it.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// An answer that is known as a whole, in place of a command: the descriptors of text and of nothing.
///
/// # Errors
/// The system's answer.
pub(crate) fn answer(text: &[u8]) -> io::Result<[OwnedFd; 3]> {
    use std::io::{Seek as _, Write as _};
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let mut file = File::from(nix::sys::memfd::memfd_create(c"conntrace-answer", flags)?);
    file.write_all(text)?;
    file.rewind()?;
    // The readers of both pipes see the end at once.
    let (stderr, ready) = (io::pipe()?.0, io::pipe()?.0);
    Ok([file.into(), stderr.into(), ready.into()])
}
