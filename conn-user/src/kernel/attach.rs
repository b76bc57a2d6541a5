//! Attaching the planned hooks.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::Ebpf;
use aya::programs::{BtfTracePoint, CgroupAttachMode, Program, ProgramError, SockOps};
use conn_common::name;

use crate::host::plan::Plan;
use crate::kernel::probe::{Probe, ProbeError, refused};
use crate::kernel::syscall;

/// Bytes of one BPF instruction (`struct bpf_insn`).
const INSTRUCTION: u32 = 8;

impl Probe {
    /// Attaches the hooks of the plan, whose programs are loaded. Nothing is counted before [`Self::enable`].
    ///
    /// # Errors
    /// What the kernel refuses, with the remedy.
    pub fn attach_hooks(&self, plan: &Plan) -> Result<(), ProbeError> {
        let hooks = plan.hooks;
        let ebpf = &mut *self.ebpf();
        // `destroy_sock` first: a socket that another hook remembers must not be freed unseen.
        if hooks.destroy_sock {
            attach_tracepoint(ebpf, name::DESTROY_SOCK)?;
        }
        if hooks.set_state {
            attach_tracepoint(ebpf, name::SET_STATE)?;
        }
        if hooks.set_state_again {
            attach_tracepoint(ebpf, name::SET_STATE_AGAIN)?;
        }
        if let Some(root) = plan.cgroup_root.as_ref().filter(|_| hooks.sock_ops) {
            attach_sock_ops(ebpf, root)?;
        }
        log_sizes(ebpf);
        Ok(())
    }
}

/// Logs how many instructions the verifier left of each loaded program.
fn log_sizes(ebpf: &Ebpf) {
    for (name, program) in ebpf.programs() {
        if let Some(bytes) = program.info().ok().and_then(|info| info.size_translated()) {
            log::debug!("program {name}: {} instructions", bytes / INSTRUCTION);
        }
    }
}

fn attach_tracepoint(ebpf: &mut Ebpf, name: &'static str) -> Result<(), ProbeError> {
    let program: &mut BtfTracePoint = program(ebpf, name)?;
    program.attach().map(drop).map_err(|error| ProbeError::Program {
        name,
        refusal: refused(format!("attaching {name}"), &error),
        is_taken: false,
    })
}

fn attach_sock_ops(ebpf: &mut Ebpf, root: &Path) -> Result<(), ProbeError> {
    let cgroup = File::open(root)
        .map_err(|source| ProbeError::CgroupRoot { path: root.display().to_string(), source })?;
    let program: &mut SockOps = program(ebpf, name::SOCK_OPS)?;
    // A link always lets other programs of the same kind run, too.
    program.attach(&cgroup, CgroupAttachMode::Single).map(drop).map_err(|error| ProbeError::Program {
        name: name::SOCK_OPS,
        refusal: refused(format!("sock_ops on {}", root.display()), &error),
        is_taken: syscall::sock_ops_are_taken(cgroup.as_fd()),
    })
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, ProbeError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(ProbeError::Missing { name })?
        .try_into()
        .map_err(|error: ProgramError| ProbeError::Mismatch { name, reason: error.to_string() })
}
