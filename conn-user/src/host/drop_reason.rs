//! The numbers of the kernel's reasons to drop a packet. They differ between kernels, so they come from the kernel's types.

use btf_rs::{Backend, Btf, Type};

use crate::host::facts::KERNEL_BTF;

/// The enumeration of reasons, since 5.17.
const REASONS: &str = "skb_drop_reason";
/// The enumeration of reasons to send a reset, since 6.10. A kernel that has it shows resets without a socket.
const RESET_REASONS: &str = "sk_rst_reason";

/// The reasons that attempts have. 0 for a reason that the kernel lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DropReasons {
    /// No socket listens on the port, on kernels that do not show the reset itself.
    pub no_socket: u32,
    /// The accept queue is full (since 6.15).
    pub queue_full: u32,
}

impl DropReasons {
    /// Looks into the running kernel's types. A kernel that cannot be read has no reasons.
    pub(crate) fn probe() -> Self {
        let types =
            Btf::from_file_with_backend(KERNEL_BTF, Backend::Mmap).or_else(|_| Btf::from_file(KERNEL_BTF));
        types.map_or_else(|_| Self::default(), |types| Self::find(&types))
    }

    fn find(types: &Btf) -> Self {
        let reason = |name| enumerator(types, REASONS, name).unwrap_or(0);
        let shows_resets = enumeration(types, RESET_REASONS).is_some();
        Self {
            no_socket: if shows_resets { 0 } else { reason("SKB_DROP_REASON_NO_SOCKET") },
            queue_full: reason("SKB_DROP_REASON_TCP_LISTEN_OVERFLOW"),
        }
    }
}

fn enumeration(types: &Btf, name: &str) -> Option<btf_rs::Enum> {
    let found = types.resolve_types_by_name(name).ok()?;
    found.into_iter().find_map(|found| if let Type::Enum(found) = found { Some(found) } else { None })
}

fn enumerator(types: &Btf, of: &str, name: &str) -> Option<u32> {
    let members = enumeration(types, of)?.members;
    let named = members.iter().find(|member| types.resolve_name(*member).is_ok_and(|found| found == name));
    named.map(btf_rs::EnumMember::val)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_without_reasons_have_none() {
        let types = Btf::from_bytes(include_bytes!("../../tests/kernel/6.1.btf")).unwrap();
        assert_eq!(DropReasons::find(&types), DropReasons::default());
    }

    /// The test host's kernel, whichever it is, describes its reasons if it has any.
    #[test]
    fn running_kernel_has_one_way_to_show_refused_syns() {
        let Ok(types) = Btf::from_file(KERNEL_BTF) else { return };
        let found = DropReasons::find(&types);
        let shows_resets = enumeration(&types, RESET_REASONS).is_some();
        let has_reasons = enumeration(&types, REASONS).is_some();
        assert_eq!(found.no_socket != 0, has_reasons && !shows_resets, "{found:?}");
    }
}
