//! The frame of netlink: messages with a header, and attributes in them (`include/uapi/linux/netlink.h`).

pub(crate) mod addresses;
pub(crate) mod conntrack;
pub(crate) mod conntrack_stats;

use bytes::Buf as _;

/// `NLMSG_ERROR`.
pub(crate) const ERROR: u16 = 2;
/// `NLMSG_DONE`.
pub(crate) const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: the table changed its shape while it was dumped, so entries may be missing.
pub(crate) const INTERRUPTED: u16 = 0x10;
/// The length of `struct nlmsghdr`, and of the header of an attribute.
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// The bits of an attribute's type that name it; the others say how it is written.
const TYPE_MASK: u16 = 0x3fff;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a netlink message ends too early")]
pub struct Cut;

/// The end of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was shown.
    Done,
    /// The kernel refused, with this errno number; 0 for an acknowledgement.
    Refused(i32),
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// The type.
    pub kind: u16,
    /// The flags.
    pub flags: u16,
    /// What follows the header.
    pub body: &'a [u8],
}

impl Message<'_> {
    /// The end of a dump that the message is; `None` of a message with contents.
    pub(crate) fn end(&self) -> Option<End> {
        let mut body = self.body;
        match self.kind {
            DONE => Some(End::Done),
            ERROR => Some(End::Refused(body.try_get_i32_ne().map_or(0, i32::wrapping_neg))),
            _ => None,
        }
    }
}

/// The messages of one read. After an error there are no more.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Cut>> {
    parts(bytes, |bytes| {
        let mut head = bytes.get(..HEADER)?;
        let (length, kind, flags) = (head.get_u32_ne() as usize, head.get_u16_ne(), head.get_u16_ne());
        Some((Message { kind, flags, body: bytes.get(HEADER..length)? }, length))
    })
}

/// The attributes of a message or of an attribute, by type. After an error there are no more.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Cut>> {
    parts(bytes, |bytes| {
        let mut head = bytes.get(..ATTRIBUTE_HEADER)?;
        let (length, kind) = (usize::from(head.get_u16_ne()), head.get_u16_ne() & TYPE_MASK);
        Some(((kind, bytes.get(ATTRIBUTE_HEADER..length)?), length))
    })
}

/// The parts that `one` takes from the front of the bytes, each with its length. Each part is aligned to four bytes.
fn parts<'a, T>(
    mut bytes: &'a [u8],
    one: impl Fn(&'a [u8]) -> Option<(T, usize)>,
) -> impl Iterator<Item = Result<T, Cut>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        // A part has a header, so it is not empty, and the rest becomes shorter.
        let Some((part, length)) = one(bytes) else {
            bytes = &[];
            return Some(Err(Cut));
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(part))
    })
}
