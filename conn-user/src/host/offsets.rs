//! Offsets of the kernel fields that the programs read, from the running kernel's BTF.

use std::collections::HashMap;

use btf_rs::{Backend, Btf, Type};
use conn_common::layout::{ACCEPT, BIT, FIELDS, Field, LOCKED_WALK, OPTIONAL};

use crate::host::facts::{KERNEL_BTF, release};

/// Why the layout of the running kernel is unknown.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// The kernel's BTF cannot be read.
    #[error("the kernel refused reading {KERNEL_BTF}")]
    Unreadable(#[source] btf_rs::Error),
    /// The kernel is older than all kernels that conntrace supports.
    #[error("Linux {} is too old: {lacks}", release())]
    TooOld {
        /// The missing feature of the kernel.
        lacks: &'static str,
    },
    /// A kernel structure differs from what the programs expect.
    #[error(
        "this kernel's struct {structure} has no field {member} in the expected size: conntrace does not know \
         this kernel"
    )]
    MissingField {
        /// The structure.
        structure: &'static str,
        /// The member, with dots through nested structures.
        member: &'static str,
    },
}

impl OffsetsError {
    /// The remedy.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "run with -vv for details",
            Self::TooOld { .. } => "conntrace needs Linux 5.15 or later",
            Self::MissingField { .. } => "please report it with the output of uname -r",
        }
    }
}

/// Offsets and signatures of the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offsets {
    /// The offset of each of [`FIELDS`], in bytes, in the same order, then of each of [`OPTIONAL`].
    fields: Vec<(&'static str, u32)>,
    /// Number of parameters of `inet_csk_accept()`; `None` if BTF does not describe the function.
    pub accept_parameters: Option<u32>,
}

impl Offsets {
    /// Finds all fields in the running kernel.
    ///
    /// # Errors
    /// The kernel's BTF cannot be read, or lacks a field.
    pub(crate) fn probe() -> Result<Self, OffsetsError> {
        // Looking up a dozen names in the mapped file is much faster than parsing the file. Kernels before 6.16
        // cannot map the file.
        let types = Btf::from_file_with_backend(KERNEL_BTF, Backend::Mmap)
            .or_else(|_| Btf::from_file(KERNEL_BTF))
            .map_err(OffsetsError::Unreadable)?;
        Self::find(&types)
    }

    /// Finds all fields in `btf`.
    ///
    /// # Errors
    /// [`OffsetsError::TooOld`] if the kernel lacks a feature. [`OffsetsError::MissingField`] names the first field
    /// that the kernel lacks or has in another size.
    pub(crate) fn find(btf: &Btf) -> Result<Self, OffsetsError> {
        if structure(btf, LOCKED_WALK).is_none() {
            return Err(OffsetsError::TooOld { lacks: "it walks TCP sockets without locking them" });
        }
        let mut structures = Structures::new(btf);
        let mut find = |field: &Field| offset(btf, structures.find(field.structure)?, field);
        let mut fields = Vec::new();
        for field in FIELDS {
            let offset = find(field)
                .ok_or(OffsetsError::MissingField { structure: field.structure, member: field.path })?;
            fields.push((field.global, offset));
        }
        fields.extend(OPTIONAL.iter().map(|field| (field.global, find(field).unwrap_or(0))));
        Ok(Self { fields, accept_parameters: parameters(btf, ACCEPT) })
    }

    /// The global of each field and its offset in bytes.
    pub(crate) fn globals(&self) -> impl Iterator<Item = (&'static str, &u32)> {
        self.fields.iter().map(|(name, offset)| (*name, offset))
    }
}

/// The structures with fields that the programs read. A search by name visits all of the kernel's 150,000 unsorted
/// types. Most structures are found faster, as members of others or behind their pointers.
struct Structures<'a> {
    btf: &'a Btf,
    found: HashMap<&'static str, Option<Type>>,
}

/// Structures that lead to most others.
const ROOTS: [&str; 2] = ["tcp_sock", "task_struct"];

impl<'a> Structures<'a> {
    fn new(btf: &'a Btf) -> Self {
        let mut structures = Self { btf, found: HashMap::new() };
        for root in ROOTS {
            let root = structure(btf, root);
            structures.note(root.as_ref());
        }
        structures
    }

    fn find(&mut self, name: &'static str) -> Option<Type> {
        self.found.entry(name).or_insert_with(|| structure(self.btf, name)).clone()
    }

    /// Adds a structure with needed fields, and the structures that its members lead to.
    fn note(&mut self, of_type: Option<&Type>) {
        let Some(Type::Struct(structure)) = of_type else { return };
        let Ok(name) = self.btf.resolve_name(structure) else { return };
        let mut needed = FIELDS.iter().chain(OPTIONAL).map(|field| field.structure);
        let Some(name) = needed.find(|&needed| needed == name) else { return };
        if self.found.contains_key(name) {
            return;
        }
        self.found.insert(name, of_type.cloned());
        for member in &structure.members {
            let member = self.btf.resolve_chained_type(member).ok();
            let member = member.and_then(|member| strip(self.btf, member));
            match member {
                Some(Type::Ptr(pointer)) => {
                    let target = self.btf.resolve_chained_type(&pointer).ok();
                    self.note(target.and_then(|target| strip(self.btf, target)).as_ref());
                }
                member => self.note(member.as_ref()),
            }
        }
    }
}

/// The structure of this name.
fn structure(btf: &Btf, name: &str) -> Option<Type> {
    let named = btf.resolve_types_by_name(name).ok()?;
    named.into_iter().find(|candidate| matches!(candidate, Type::Struct(_)))
}

/// The offset in bytes of a field of `structure`, or the number of a bit. `None` if the kernel lacks the field or has it in
/// another size.
fn offset(btf: &Btf, structure: Type, field: &Field) -> Option<u32> {
    let mut current = structure;
    let mut bits = 0;
    for name in field.path.split('.') {
        let (at, member) = find_member(btf, &current, name, field.size == BIT)?;
        bits += at;
        current = member;
    }
    if field.size == BIT {
        return Some(bits);
    }
    (size(btf, &current)? == field.size && bits % 8 == 0).then_some(bits / 8)
}

/// The number of parameters of a function.
fn parameters(btf: &Btf, function: &str) -> Option<u32> {
    let functions = btf.resolve_types_by_name(function).ok()?;
    functions.iter().find_map(|found| {
        let Type::Func(found) = found else { return None };
        match btf.resolve_chained_type(found).ok()? {
            Type::FuncProto(prototype) => u32::try_from(prototype.parameters.len()).ok(),
            _ => None,
        }
    })
}

/// Offset in bits and type of a member, looked for in nested structures without a name, too. Either a field of one bit is
/// looked for, or one that is none.
fn find_member(btf: &Btf, structure: &Type, name: &str, is_bit: bool) -> Option<(u32, Type)> {
    let (Type::Struct(members) | Type::Union(members)) = structure else { return None };
    for member in &members.members {
        let of_type = strip(btf, btf.resolve_chained_type(member).ok()?)?;
        match btf.resolve_name(member) {
            Ok(found) if found == name => {
                // Bit fields have no address; 0 stands for none in a structure that has some.
                let width = member.bitfield_size().unwrap_or(0);
                return (width == u32::from(is_bit)).then(|| (member.bit_offset(), of_type));
            }
            Ok(found) if !found.is_empty() => {}
            _ => {
                if let Some((at, inner)) = find_member(btf, &of_type, name, is_bit) {
                    return Some((member.bit_offset() + at, inner));
                }
            }
        }
    }
    None
}

/// Removes typedefs, qualifiers and type tags.
fn strip(btf: &Btf, mut of_type: Type) -> Option<Type> {
    loop {
        let next = match &of_type {
            Type::Typedef(inner) => btf.resolve_chained_type(inner),
            Type::Const(inner) | Type::Volatile(inner) => btf.resolve_chained_type(inner),
            Type::TypeTag(inner) => btf.resolve_chained_type(inner),
            _ => return Some(of_type),
        };
        of_type = next.ok()?;
    }
}

/// Size of a type in bytes, on a 64-bit kernel.
fn size(btf: &Btf, of_type: &Type) -> Option<u32> {
    Some(match of_type {
        Type::Int(int) => int.size() as u32,
        Type::Ptr(_) => 8,
        Type::Struct(inner) | Type::Union(inner) => inner.size() as u32,
        Type::Enum(inner) => inner.size() as u32,
        Type::Array(array) => {
            let item = strip(btf, btf.resolve_chained_type(array).ok()?)?;
            array.len() as u32 * size(btf, &item)?
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
