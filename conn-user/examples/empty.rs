//! Programs that do nothing, on the hooks that conntrace plans here, until SIGINT: what the hooks themselves
//! cost. With `--remember` they make a memory for each socket, as conntrace must. For `cargo xtask bench`.

use std::error::Error;
use std::fs::File;

use aya::programs::{BtfTracePoint, CgroupAttachMode, SockOps};
use aya::{Btf, Ebpf};
use conntrace::host::facts::Host;
use conntrace::host::plan::plan;
use conntrace::stream::ready::{self, Ready};
use nix::sys::signal::{SigSet, Signal};

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/empty"));

fn main() -> Result<(), Box<dyn Error>> {
    ready::inherit()?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.thread_block()?;

    let plan = plan(&Host::probe(), None)?;
    let btf = Btf::from_sys_fs()?;
    let mut ebpf = Ebpf::load(OBJECT)?;
    let mut attach = |name: &str, tracepoint: &str| -> Result<(), Box<dyn Error>> {
        let program: &mut BtfTracePoint = ebpf.program_mut(name).ok_or("no such program")?.try_into()?;
        program.load(tracepoint, &btf)?;
        program.attach()?;
        Ok(())
    };
    attach("empty_destroy", "tcp_destroy_sock")?;
    let remembers = std::env::args().any(|word| word == "--remember");
    attach(if remembers { "remember_state" } else { "empty_state" }, "inet_sock_set_state")?;
    if let Some(root) = &plan.cgroup_root {
        let program: &mut SockOps = ebpf.program_mut("empty_ops").ok_or("no such program")?.try_into()?;
        program.load()?;
        program.attach(File::open(root)?, CgroupAttachMode::Single)?;
    }
    Ready::take().signal();
    signals.wait()?;
    Ok(())
}
