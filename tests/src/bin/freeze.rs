//! Writes a kernel's self-description that conntrace reads, for unit tests without a kernel: its BTF, cut to the types in
//! use, as hexadecimal digits, and the format of the accept tracepoint. `cargo xtask vm --freeze` keeps both in files. The
//! BTF is that of the running kernel, or of the file that an argument names.

#![expect(clippy::disallowed_macros, reason = "the output is the program's result")]
#![expect(clippy::expect_used, reason = "a tool of the tests: a panic is the failure report")]

use std::fs;
use std::path::Path;

use conn_common::layout::{ACCEPT, FIELDS, GRAFT, LOCKED_WALK, OPTIONAL};
use conn_tests::btf::{Types, Wanted};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const TRACEFS: &str = "/sys/kernel/tracing";
const FORMAT: &str = "/sys/kernel/tracing/events/syscalls/sys_exit_accept/format";
/// Bytes of a line.
const LINE: usize = 60;

fn main() {
    let path = std::env::args().nth(1).unwrap_or_else(|| BTF.to_owned());
    let types = Types::parse(&fs::read(&path).expect(BTF));
    let fields = FIELDS.iter().chain(OPTIONAL).map(|field| (field.structure, field.path)).collect();
    let wanted = Wanted { fields, structures: vec![LOCKED_WALK], functions: vec![ACCEPT, GRAFT] };
    for line in types.cut(&wanted).to_bytes().chunks(LINE) {
        print!("btf ");
        for byte in line {
            print!("{byte:02x}");
        }
        println!();
    }
    if !Path::new(FORMAT).exists() {
        mount_tracefs().expect(TRACEFS);
    }
    for line in fs::read_to_string(FORMAT).expect(FORMAT).lines() {
        println!("format {line}");
    }
}

/// For this process only.
fn mount_tracefs() -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), none)
}
