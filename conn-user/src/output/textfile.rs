//! A file that always holds one whole text: each text comes as a new file under the old name.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Everybody may read metrics; the collector has another user.
const MODE: u32 = 0o644;

/// The file.
#[derive(Debug)]
pub(crate) struct TextFile {
    path: PathBuf,
    /// The new file, until it has its name: in the same directory, since a name moves within a file system only.
    fresh: PathBuf,
}

impl TextFile {
    /// The file at a path. Nothing is written yet.
    pub(crate) fn new(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Collectors read files by the end of their names.
        let fresh = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
        Self { path: path.to_owned(), fresh }
    }

    /// Replaces the text. The old one stays if that fails.
    ///
    /// # Errors
    /// The new file cannot be made, written or named.
    pub(crate) fn replace(&self, text: &[u8]) -> Result<(), Error> {
        self.write(text).map_err(|source| {
            // A part of a text is of no use.
            let _ = fs::remove_file(&self.fresh);
            Error::Io { context: format!("writing {}", self.path.display()), source }
        })
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        // A new file only: neither a link nor a file of another user in a directory of theirs is opened.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&self.fresh)?;
        file.write_all(text)?;
        fs::rename(&self.fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("conntrace-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_text_replaces_the_one_before() {
        let directory = directory("textfile");
        let path = directory.join("a.prom");
        let file = TextFile::new(&path);
        for text in ["one\n", "two\n"] {
            file.replace(text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn no_link_is_followed_and_the_old_text_stays() {
        let directory = directory("textfile-link");
        let path = directory.join("a.prom");
        let file = TextFile::new(&path);
        file.replace(b"old\n").unwrap();
        let elsewhere = directory.join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, &file.fresh).unwrap();
        let refused = file.replace(b"new\n").unwrap_err().to_string();
        assert!(refused.contains("a.prom"), "{refused}");
        assert!(!elsewhere.exists());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
        // The link is gone, so the next text finds its way.
        file.replace(b"new\n").unwrap();
        fs::remove_dir_all(directory).unwrap();
    }
}
