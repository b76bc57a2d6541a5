//! The kernel's types as aya knows them: by their numbers the kernel is told which function or tracepoint a
//! program is for.

use aya::Btf;

use crate::error::Error;
use crate::host::KERNEL_BTF;

/// The types, while somebody needs them: they take some 15 MB.
#[derive(Debug)]
pub struct Types(Option<Btf>);

impl Types {
    /// Those of the running kernel.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn of_kernel() -> Result<Self, Error> {
        let btf = Btf::from_sys_fs().map_err(|error| Error::Refused {
            what: format!("reading {KERNEL_BTF}: {error}"),
            errno: None,
        })?;
        Ok(Self(Some(btf)))
    }

    /// The types, read again if they were forgotten.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn get(&mut self) -> Result<&Btf, Error> {
        if self.0.is_none() {
            *self = Self::of_kernel()?;
        }
        self.0.as_ref().ok_or_else(|| Error::Internal("the kernel's types are not there".into()))
    }

    /// For whoever goes on without loading programs.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}
