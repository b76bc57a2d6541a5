//! The kernel's types as aya reads them. A program is loaded for a function or tracepoint by the number of its
//! type. The types are here, not in host/, so that only this folder imports aya.

use std::thread;

use aya::Btf;

use crate::host::facts::KERNEL_BTF;
use crate::host::refusal::Refusal;

/// The types while programs are loaded. They take some 15 MB.
#[derive(Debug)]
pub(super) struct KernelBtf(Option<Btf>);

impl KernelBtf {
    /// Reads the types of the running kernel.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn probe() -> Result<Self, Refusal> {
        Ok(Self(Some(read()?)))
    }

    /// The types, read again after [`Self::release`].
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn get(&mut self) -> Result<&Btf, Refusal> {
        let types = match self.0.take() {
            Some(types) => types,
            None => read()?,
        };
        Ok(self.0.insert(types))
    }

    /// Frees the memory, which takes some milliseconds, on a thread of its own.
    pub(super) fn release(&mut self) {
        if let Some(types) = self.0.take() {
            // If no thread can be made, the closure is dropped here, and the types with it.
            let _ = thread::Builder::new().name("release-btf".into()).spawn(move || drop(types));
        }
    }
}

fn read() -> Result<Btf, Refusal> {
    Btf::from_sys_fs().map_err(|error| Refusal::new(format!("reading {KERNEL_BTF}: {error}")))
}
