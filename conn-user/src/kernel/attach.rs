//! Attaching the planned hooks.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, CgroupAttachMode, Program, ProgramError, SockOps};
use conn_common::name;

use crate::host::plan::{HookSet, Plan};
use crate::kernel::probe::{Probe, ProbeError, refused};
use crate::kernel::syscall;

/// Bytes of one BPF instruction (`struct bpf_insn`).
const INSTRUCTION: u32 = 8;

impl Probe {
    /// Attaches the hooks of the plan, whose programs are loaded, and the one of refused attempts, if it is loaded, too.
    /// Nothing is counted before [`Self::enable`].
    ///
    /// # Errors
    /// What the kernel refuses, with the remedy.
    pub fn attach_hooks(&self, plan: &Plan) -> Result<(), ProbeError> {
        let mut links = self.links();
        for name in tracepoints(plan.hooks) {
            links.insert(name, self.attach_tracepoint(name)?);
        }
        if self.is_loaded(name::REFUSED) {
            links.insert(name::REFUSED, self.attach_tracepoint(name::REFUSED)?);
        }
        if let Some(root) = plan.cgroup_root.as_ref().filter(|_| plan.hooks.sock_ops) {
            links.insert(name::SOCK_OPS, attach_sock_ops(&mut self.ebpf(), root)?);
        }
        log_sizes(&self.ebpf());
        Ok(())
    }

    /// True if the program is loaded.
    pub(super) fn is_loaded(&self, name: &str) -> bool {
        self.ebpf().program(name).is_some_and(|program| program.fd().is_ok())
    }

    /// Attaches one program on a tracepoint.
    pub(super) fn attach_tracepoint(&self, name: &'static str) -> Result<FdLink, ProbeError> {
        let ebpf = &mut *self.ebpf();
        let program: &mut BtfTracePoint = program(ebpf, name)?;
        let link = program.attach().and_then(|id| program.take_link(id));
        link.map(FdLink::from).map_err(|error| ProbeError::Program {
            name,
            refusal: refused(format!("attaching {name}"), &error),
            is_taken: false,
        })
    }
}

/// The hooks of a set that are tracepoints, in the order of attaching. `destroy_sock` first: a socket that another hook
/// remembers must not be freed unseen.
pub(super) fn tracepoints(hooks: HookSet) -> impl Iterator<Item = &'static str> {
    [
        (hooks.destroy_sock, name::DESTROY_SOCK),
        (hooks.set_state, name::SET_STATE),
        (hooks.set_state_again, name::SET_STATE_AGAIN),
    ]
    .into_iter()
    .filter_map(|(wanted, name)| wanted.then_some(name))
}

/// Logs how many instructions the verifier left of each loaded program.
fn log_sizes(ebpf: &Ebpf) {
    for (name, program) in ebpf.programs() {
        if let Some(bytes) = program.info().ok().and_then(|info| info.size_translated()) {
            log::debug!("program {name}: {} instructions", bytes / INSTRUCTION);
        }
    }
}

fn attach_sock_ops(ebpf: &mut Ebpf, root: &Path) -> Result<FdLink, ProbeError> {
    let cgroup = File::open(root)
        .map_err(|source| ProbeError::CgroupRoot { path: root.display().to_string(), source })?;
    let program: &mut SockOps = program(ebpf, name::SOCK_OPS)?;
    // A link always lets other programs of the same kind run, too.
    let link = program
        .attach(&cgroup, CgroupAttachMode::Single)
        .and_then(|id| program.take_link(id))
        .map_err(|error| ProbeError::Program {
            name: name::SOCK_OPS,
            refusal: refused(format!("sock_ops on {}", root.display()), &error),
            is_taken: syscall::sock_ops_are_taken(cgroup.as_fd()),
        })?;
    // Before 5.7 there were no links of cgroups.
    FdLink::try_from(link)
        .map_err(|error| ProbeError::Mismatch { name: name::SOCK_OPS, reason: error.to_string() })
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
