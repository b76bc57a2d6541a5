//! Programs that do nothing, on the hooks that conntrace plans here, until SIGINT: what the hooks themselves
//! cost. With `--remember` they make a memory for each socket, as conntrace must; with `--udp` they are on the hooks of flows of
//! UDP. For `cargo xtask bench`.

use std::error::Error;
use std::fs::File;

use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, SockOps};
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
    if std::env::args().any(|word| word == "--udp") {
        attach("empty_error", "inet_sk_error_report")?;
        let root = plan.cgroup_root.as_ref().ok_or("no cgroup v2 root")?;
        attach_to_packets(&mut ebpf, &File::open(root)?)?;
        Ready::take().signal();
        signals.wait()?;
        return Ok(());
    }
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

/// The hooks of packets, binds and closes.
fn attach_to_packets(ebpf: &mut Ebpf, root: &File) -> Result<(), Box<dyn Error>> {
    for (name, way) in
        [("empty_ingress", CgroupSkbAttachType::Ingress), ("empty_egress", CgroupSkbAttachType::Egress)]
    {
        let program: &mut CgroupSkb = ebpf.program_mut(name).ok_or("no such program")?.try_into()?;
        program.load()?;
        program.attach(root, way, CgroupAttachMode::Single)?;
    }
    for name in ["empty_release", "empty_bind4", "empty_bind6"] {
        let program: &mut CgroupSock = ebpf.program_mut(name).ok_or("no such program")?.try_into()?;
        program.load()?;
        program.attach(root, CgroupAttachMode::Single)?;
    }
    Ok(())
}
