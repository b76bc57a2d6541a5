//! The socket for clients.
//!
//! A lock file beside the socket is held for the life of a daemon, so a socket that no daemon answers on is replaced only
//! by the process that has the lock. The last part of both paths is never followed as a link.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Gid;

use crate::error::Error;
use crate::settings::Access;

/// How many clients may wait to be taken. The kernel has a limit of its own, `net.core.somaxconn`.
const WAITING: i32 = 1024;

/// The socket, for as long as the daemon runs.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The socket, on which the kernel takes connections.
    pub(crate) socket: OwnedFd,
    /// The path to remove at the end, if this process has made it; and the lock.
    made: Option<(PathBuf, Flock<File>)>,
}

impl Listener {
    /// The socket that systemd has made, or one at this path. Its group is `group`; `access` chooses its mode.
    ///
    /// # Errors
    /// Another daemon has the path, or the system's answer.
    pub(crate) fn open(path: &Path, group: Option<u32>, access: Access) -> Result<Self, Error> {
        if let Some(socket) = activated()? {
            if access == Access::Everyone {
                warn_of_mode(&socket);
            }
            return Ok(Self { socket, made: None });
        }
        let error = |source| Error::Io { context: format!("making the socket {}", path.display()), source };
        let lock = lock(path)?;
        remove_stale(path).map_err(error)?;
        let socket = made(path, group, access).map_err(|errno| error(errno.into()))?;
        Ok(Self { socket, made: Some((path.to_owned(), lock)) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, _lock)) = &self.made {
            // A socket that is left is replaced at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

/// Takes the lock, and makes the directory if it is missing.
fn lock(path: &Path) -> Result<Flock<File>, Error> {
    let context = |source| Error::Io { context: format!("locking the socket {}", path.display()), source };
    let directory = path.parent().unwrap_or(Path::new("/"));
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(context(error)),
        _ => {}
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(directory.join(name))
        .map_err(context)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => Error::Taken { socket: path.to_owned() },
        errno => context(errno.into()),
    })
}

/// Removes a socket that no process listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
    }
}

/// Makes the socket. No user that may not connect later can connect before: the mode is set by the umask, and
/// connections are refused until listen(2).
fn made(path: &Path, group: Option<u32>, access: Access) -> nix::Result<OwnedFd> {
    let forbidden = match access {
        Access::Group => 0o117,
        Access::Everyone => 0o111,
    };
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let before = umask(Mode::from_bits_truncate(forbidden));
    let bound = UnixAddr::new(path).and_then(|address| bind(socket.as_raw_fd(), &address));
    umask(before);
    bound?;
    if let Some(group) = group {
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::unistd::fchownat(nix::fcntl::AT_FDCWD, path, None, Some(Gid::from_raw(group)), flags)?;
    }
    listen(&socket.as_fd(), Backlog::new(WAITING)?)?;
    Ok(socket)
}

/// The first descriptor that a service manager passes, `SD_LISTEN_FDS_START` in sd-daemon.h.
const FIRST_PASSED: i32 = 3;

/// The socket that systemd passes, `sd_listen_fds(3)`: descriptor 3, if `LISTEN_PID` is this process.
fn activated() -> Result<Option<OwnedFd>, Error> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => return Ok(None),
        Some(1) => {}
        Some(more) => {
            let source = io::Error::other(format!("systemd passes {more} sockets, and conntrace takes one"));
            return Err(Error::Io { context: "taking the socket over".into(), source });
        }
    }
    let socket = passed();
    let address = nix::sys::socket::getsockname::<UnixAddr>(socket.as_raw_fd());
    let accepts = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::AcceptConn);
    if address.is_err() || accepts != Ok(true) {
        let source = io::Error::other("descriptor 3 is no Unix socket that listens: use ListenStream=");
        return Err(Error::Io { context: "taking the socket over".into(), source });
    }
    Ok(Some(socket))
}

/// Warns if the mode of a socket that systemd has made keeps users out that may ask.
fn warn_of_mode(socket: &OwnedFd) {
    let address = nix::sys::socket::getsockname::<UnixAddr>(socket.as_raw_fd()).ok();
    let path = address.as_ref().and_then(UnixAddr::path);
    let mode = path.and_then(|path| fs::metadata(path).ok()).map(|found| found.mode());
    if mode.is_some_and(|mode| mode & 0o006 != 0o006) {
        log::warn!(
            "access = \"everyone\" has no effect, since the mode of the socket keeps other users out: set SocketMode=0666 \
             in conntrace.socket"
        );
    }
}

/// The passed descriptor.
#[expect(unsafe_code, reason = "the service manager hands the descriptor over by its number")]
fn passed() -> OwnedFd {
    use std::os::fd::FromRawFd as _;
    // SAFETY: LISTEN_PID names this process, so descriptor 3 is inherited for it; the daemon takes it once, at its start.
    unsafe { OwnedFd::from_raw_fd(FIRST_PASSED) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A new directory, which is removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("conntrace-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn open(path: &Path) -> Result<Listener, String> {
        Listener::open(path, None, Access::Group).map_err(|error| error.report())
    }

    #[test]
    fn one_daemon_has_the_socket() {
        let directory = Directory::new("listener");
        let path = directory.0.join("s");
        let first = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(UnixStream::connect(&path).is_ok());
        assert!(open(&path).unwrap_err().contains("another conntrace"));
        drop(first);
        assert!(!path.exists());
        let open_to_all = Listener::open(&path, None, Access::Everyone).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        drop(open_to_all);
        // A daemon that was killed leaves its socket.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        drop(open(&path).unwrap());
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(open(&path).unwrap_err().contains("another program"));
        drop(other);
    }

    #[test]
    fn no_link_is_followed_and_no_file_is_replaced() {
        let directory = Directory::new("links");
        let (path, target) = (directory.0.join("s"), directory.0.join("target"));
        fs::write(&target, "kept").unwrap();
        symlink(&target, &path).unwrap();
        assert!(open(&path).unwrap_err().contains("no socket"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "kept").unwrap();
        assert!(open(&path).unwrap_err().contains("no socket"));
        fs::remove_file(&path).unwrap();
        let lock = directory.0.join("s.lock");
        fs::remove_file(&lock).unwrap();
        symlink(&target, &lock).unwrap();
        assert!(open(&path).is_err());
        assert_eq!(
            (fs::read_to_string(&target).unwrap().as_str(), fs::metadata(&target).unwrap().size()),
            ("kept", 4)
        );
    }
}
