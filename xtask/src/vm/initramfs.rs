//! The file system that a virtual machine begins with: an archive of cpio's "newc" kind, which every kernel
//! unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// `/dev/console`: without it the first process would start with no open descriptors.
const CONSOLE: (u32, u32) = (5, 1);

/// The archive, as it grows.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Initramfs {
    /// An archive with the directories and the device that a system begins with.
    pub(crate) fn new() -> Self {
        let mut new = Self::default();
        for directory in ["bin", "dev", "etc", "modules", "proc", "sys", "tmp"] {
            new.directory(directory);
        }
        new.entry("dev/console", CHARACTER_DEVICE, CONSOLE, &[]);
        new
    }

    /// Adds an executable file with this content, and the directories that it is in.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) {
        for (end, _) in name.match_indices('/') {
            self.directory(&name[..end]);
        }
        self.entry(name, PROGRAM, (0, 0), content);
    }

    /// Adds a directory, unless it is there.
    fn directory(&mut self, name: &str) {
        if self.directories.insert(name.to_owned()) {
            self.entry(name, DIRECTORY, (0, 0), &[]);
        }
    }

    /// Adds a copy of a file.
    pub(crate) fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(name, &content);
        Ok(())
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let name_size = name.len() as u32 + 1;
        let fields = [
            self.entries,
            mode,
            0, // owner
            0, // group
            links,
            0, // time
            content.len() as u32,
            0, // device that it is on
            0,
            device.0,
            device.1,
            name_size,
            0, // no checksum
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_newc_format() {
        let mut archive = Initramfs::default();
        archive.file("init", b"hello");
        let expected = "070701\
                        00000001000081ED00000000000000000000000100000000\
                        0000000500000000000000000000000000000000\
                        0000000500000000init\0\0hello\0\0\0";
        assert_eq!(String::from_utf8(archive.bytes.clone()).expect("text"), expected);
        assert_eq!(archive.finish().len() % 4, 0);
    }

    #[test]
    fn directories_come_once_and_before_their_files() {
        let mut archive = Initramfs::new();
        for name in ["usr/sbin/nft", "usr/sbin/conntrack", "bin/live"] {
            archive.file(name, b"");
        }
        let text = String::from_utf8(archive.finish()).expect("text");
        let places =
            |name: &str| text.match_indices(&format!("{name}\0")).map(|(place, _)| place).collect::<Vec<_>>();
        let [usr, sbin, nft, bin] = ["usr", "usr/sbin", "usr/sbin/nft", "bin"].map(places);
        assert_eq!([&usr, &sbin, &nft].map(Vec::len), [1; 3], "{text:?}");
        assert!(usr < sbin && sbin < nft, "{text:?}");
        // One more is the end of "usr/sbin".
        assert_eq!(bin.len(), 2, "{text:?}");
    }

    #[test]
    fn the_archive_contains_a_console() {
        let text = String::from_utf8(Initramfs::new().finish()).expect("text");
        assert!(text.contains("dev/console\0") && text.ends_with("TRAILER!!!\0\0\0\0"), "{text:?}");
    }
}
