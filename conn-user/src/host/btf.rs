//! The kernel's types (BTF) for aya: type numbers name the function or tracepoint of a program.

use std::thread;

use aya::Btf;

use crate::host::facts::KERNEL_BTF;

/// The kernel's types cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused reading {KERNEL_BTF}")]
pub struct BtfError(#[source] aya::BtfError);

/// The types, in memory while programs are loaded: some 15 MB.
#[derive(Debug)]
pub struct KernelBtf(Option<Btf>);

impl KernelBtf {
    /// Reads the types of the running kernel.
    ///
    /// # Errors
    /// The types cannot be read.
    pub fn read() -> Result<Self, BtfError> {
        Ok(Self(Some(read()?)))
    }

    /// The types. After [`Self::forget`], they are read again.
    ///
    /// # Errors
    /// The types cannot be read.
    pub fn get(&mut self) -> Result<&Btf, BtfError> {
        let types = match self.0.take() {
            Some(types) => types,
            None => read()?,
        };
        Ok(self.0.insert(types))
    }

    /// Frees the types on another thread, since that takes some milliseconds.
    pub fn forget(&mut self) {
        if let Some(types) = self.0.take() {
            // Without a thread, the failed `spawn` drops the types.
            let _ = thread::Builder::new().name("forget".into()).spawn(move || drop(types));
        }
    }
}

fn read() -> Result<Btf, BtfError> {
    Btf::from_sys_fs().map_err(BtfError)
}
