//! The kernel's types as aya knows them: by their numbers the kernel is told which function or tracepoint a
//! program is for.

use std::thread;

use aya::Btf;

use crate::host::facts::KERNEL_BTF;

/// The kernel's types cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused reading {KERNEL_BTF}")]
pub struct BtfError(#[source] aya::BtfError);

/// The types, while somebody needs them: they take some 15 MB.
#[derive(Debug)]
pub struct KernelBtf(Option<Btf>);

impl KernelBtf {
    /// Those of the running kernel.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read() -> Result<Self, BtfError> {
        Ok(Self(Some(read()?)))
    }

    /// The types, read again if they were forgotten.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn get(&mut self) -> Result<&Btf, BtfError> {
        let types = match self.0.take() {
            Some(types) => types,
            None => read()?,
        };
        Ok(self.0.insert(types))
    }

    /// For whoever goes on without loading programs, and need not wait for it: it takes some milliseconds.
    pub fn forget(&mut self) {
        if let Some(types) = self.0.take() {
            // Where there can be no more threads, they are dropped here.
            let _ = thread::Builder::new().name("forget".into()).spawn(move || drop(types));
        }
    }
}

fn read() -> Result<Btf, BtfError> {
    Btf::from_sys_fs().map_err(BtfError)
}
