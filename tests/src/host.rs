//! What this machine allows the live tests to do.

#![expect(unsafe_code, reason = "bpf() is a raw system call")]

use crate::netns::NetNs;
use nix::unistd::Uid;
use std::{io, path::Path};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// The machine that live tests run on.
#[derive(Debug)]
pub struct Host {
    namespaces: Result<(), String>,
    tracing: Result<(), String>,
}

/// What a live test needs of the [`Host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing but the program.
    Nothing,
    /// To make network namespaces.
    Namespaces,
    /// That, and to load BPF programs.
    Tracing,
}

impl Host {
    /// Finds out by trying.
    pub fn probe() -> Self {
        let namespaces = namespaces();
        let tracing = namespaces.clone().and_then(|()| tracing());
        Self { namespaces, tracing }
    }

    /// Why a test with this need cannot run here, if so.
    pub fn lacks(&self, need: Need) -> Option<&str> {
        let found = match need {
            Need::Nothing => return None,
            Need::Namespaces => &self.namespaces,
            Need::Tracing => &self.tracing,
        };
        found.as_ref().err().map(String::as_str)
    }
}

fn namespaces() -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Err(format!("needs root, runs as uid {}", Uid::effective()));
    }
    match NetNs::new() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot make a network namespace: {error}")),
    }
}

fn tracing() -> Result<(), String> {
    create_map().map_err(|error| format!("cannot make a BPF map: {error}"))?;
    if Path::new(BTF).exists() { Ok(()) } else { Err(format!("this kernel has no {BTF}")) }
}

/// The smallest thing only a BPF-capable process may do.
fn create_map() -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }
    let attributes = Attributes { map_type: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
    // SAFETY: the attributes are a valid prefix of `union bpf_attr` of the given length.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const attributes, size_of::<Attributes>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for this function alone.
    unsafe { libc::close(fd as i32) };
    Ok(())
}
