//! Files of container runtimes, opened so that their owner cannot point root elsewhere.
//!
//! A user may put anything into a home: links to files of root, pipes, devices, files that grow. So a path below a home
//! is resolved without links and other mounts, and a file is looked at before it is opened.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::libc;
use nix::sys::stat::Mode;

/// The largest file that is read, bytes. A real one has some kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// A directory below which a runtime keeps files, and the user whose files they are.
#[derive(Debug)]
pub(super) struct RuntimeFiles {
    directory: OwnedFd,
    path: PathBuf,
    owner: u32,
    /// A path below must lead neither out of the directory, nor through links or mounts.
    is_confined: bool,
}

impl RuntimeFiles {
    /// Files of the system below `root`, which belong to the owner of `root`. An administrator may have moved a
    /// directory elsewhere with links and mounts. `None` if there is no such directory.
    pub(super) fn of_system(root: &Path) -> Option<Self> {
        let owner = fs::metadata(root).ok()?.uid();
        Self::new(root, owner, false)
    }

    /// Files below the home of a user. `None` if there is no such directory.
    pub(super) fn of_user(home: &Path, user: u32) -> Option<Self> {
        Self::new(home, user, true)
    }

    fn new(path: &Path, owner: u32, is_confined: bool) -> Option<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(path, flags, Mode::empty()).ok()?;
        Some(Self { directory, path: path.to_owned(), owner, is_confined })
    }

    /// The path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the file `below`. `None` unless it is a regular file of the owner, of at most [`MAX_FILE`] bytes.
    pub(super) fn read(&self, below: &Path) -> Option<Vec<u8>> {
        let resolve = if self.is_confined {
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV
        } else {
            ResolveFlag::RESOLVE_NO_MAGICLINKS
        };
        // `O_PATH` opens no device and no pipe: the descriptor only stands for the file.
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
        let found = File::from(openat2(&self.directory, below, how).ok()?);
        let metadata = found.metadata().ok()?;
        if !metadata.is_file() || metadata.uid() != self.owner || metadata.len() > MAX_FILE {
            return None;
        }
        // The link leads to the file that was looked at, whatever its path leads to by now.
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY).open(link).ok()?;
        let mut bytes = Vec::new();
        // A file may grow after the look.
        let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes).ok()?;
        (read as u64 <= MAX_FILE).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::unistd::{Uid, chown, mkfifo};

    use super::*;

    /// A home, and a file of another owner beside it.
    struct Home(PathBuf);

    impl Home {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("conntrace-home-{}-{number}", std::process::id()));
            fs::create_dir_all(path.join("home/inner")).unwrap();
            fs::write(path.join("secret"), "secret").unwrap();
            fs::write(path.join("home/inner/file"), "mine").unwrap();
            Self(path)
        }

        fn home(&self) -> PathBuf {
            self.0.join("home")
        }

        fn read(&self, below: &str) -> Option<Vec<u8>> {
            let files = RuntimeFiles::of_user(&self.home(), Uid::current().as_raw()).unwrap();
            files.read(Path::new(below))
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn own_files_are_read() {
        let home = Home::new();
        assert_eq!(home.read("inner/file"), Some(b"mine".to_vec()));
        assert_eq!(home.read("inner/absent"), None);
        assert!(RuntimeFiles::of_user(&home.0.join("absent"), 0).is_none());
    }

    #[test]
    fn links_out_of_a_home_are_not_followed() {
        let home = Home::new();
        symlink(home.0.join("secret"), home.home().join("link")).unwrap();
        symlink("../secret", home.home().join("relative")).unwrap();
        symlink(&home.0, home.home().join("directory")).unwrap();
        symlink("inner/file", home.home().join("inside")).unwrap();
        for below in ["link", "relative", "directory/secret", "../secret", "inside"] {
            assert_eq!(home.read(below), None, "{below}");
        }
    }

    #[test]
    fn pipes_and_directories_are_not_opened() {
        let home = Home::new();
        mkfifo(&home.home().join("pipe"), Mode::S_IRWXU).unwrap();
        // To open the pipe would wait for a writer.
        assert_eq!(home.read("pipe"), None);
        assert_eq!(home.read("inner"), None);
    }

    #[test]
    fn files_of_other_owners_are_not_read() {
        let home = Home::new();
        let other = Uid::from_raw(Uid::current().as_raw() + 1);
        // Only root can give a file away.
        if chown(&home.home().join("inner/file"), Some(other), None).is_ok() {
            assert_eq!(home.read("inner/file"), None);
        }
        let files = RuntimeFiles::of_user(&home.home(), other.as_raw() + 1).unwrap();
        assert_eq!(files.read(Path::new("inner/file")), None);
    }

    #[test]
    fn large_files_are_not_read() {
        let home = Home::new();
        fs::write(home.home().join("large"), vec![b' '; 1 << 20]).unwrap();
        assert_eq!(home.read("large").map(|bytes| bytes.len()), Some(1 << 20));
        fs::write(home.home().join("large"), vec![b' '; (1 << 20) + 1]).unwrap();
        assert_eq!(home.read("large"), None);
    }

    #[test]
    fn system_files_may_be_behind_links() {
        let home = Home::new();
        symlink(home.home().join("inner"), home.0.join("moved")).unwrap();
        let files = RuntimeFiles::of_system(&home.0).unwrap();
        assert_eq!(files.read(Path::new("moved/file")), Some(b"mine".to_vec()));
    }
}
