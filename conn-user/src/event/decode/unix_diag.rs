//! The answers of the kernel's diagnosis of Unix domain sockets (`include/uapi/linux/unix_diag.h`), as netlink messages.

use bytes::Buf as _;
use conn_common::owner::Owner;

use crate::event::process::until_zero;
use crate::event::unix::UnixSocket;

/// `NLMSG_ERROR` and `NLMSG_DONE`, `include/uapi/linux/netlink.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The attributes of a socket.
const NAME: u16 = 0;
const PEER: u16 = 2;
const QUEUES: u16 = 4;
const UID: u16 = 7;

/// The meaning of one read of the netlink socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// More messages follow.
    More,
    /// The last socket was shown.
    Done,
    /// The kernel refused, with this errno number.
    Refused(i32),
}

/// Why bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a netlink message ends too early")]
pub struct Cut;

/// Decodes the messages of one read. `each` gets the sockets, in the namespace with the inode number `netns`.
///
/// # Errors
/// The bytes end in the middle of a message.
pub fn messages(mut bytes: &[u8], netns: u32, mut each: impl FnMut(UnixSocket)) -> Result<Answer, Cut> {
    while !bytes.is_empty() {
        let mut head = bytes.get(..HEADER).ok_or(Cut)?;
        let (length, kind) = (head.get_u32_ne() as usize, head.get_u16_ne());
        let mut body = bytes.get(HEADER..length).ok_or(Cut)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        match kind {
            DONE => return Ok(Answer::Done),
            ERROR => return Ok(Answer::Refused(-body.try_get_i32_ne().map_err(|_| Cut)?)),
            _ => each(socket(body, netns)?),
        }
    }
    Ok(Answer::More)
}

/// Decodes `struct unix_diag_msg` and the attributes behind it.
fn socket(mut body: &[u8], netns: u32) -> Result<UnixSocket, Cut> {
    // Family, type, state, padding, inode number, two halves of the cookie.
    if body.len() < 16 {
        return Err(Cut);
    }
    body.advance(1);
    let (kind, state) = (body.get_u8(), body.get_u8());
    body.advance(1);
    let inode = body.get_u32_ne();
    let cookie = u64::from(body.get_u32_ne()) | u64::from(body.get_u32_ne()) << 32;
    let mut socket = UnixSocket {
        cookie,
        inode,
        peer: None,
        kind,
        state,
        receive_queue: 0,
        send_queue: 0,
        name: Vec::new(),
        uid: None,
        netns,
        owner: Owner::NONE,
    };
    while body.len() >= 4 {
        let mut head = body;
        let (length, kind) = (usize::from(head.get_u16_ne()), head.get_u16_ne());
        let mut value = body.get(4..length).ok_or(Cut)?;
        body = body.get(aligned(length)..).unwrap_or_default();
        match kind {
            // The kernel keeps the zero byte behind a path.
            NAME if value.first() == Some(&0) => socket.name = value.to_vec(),
            NAME => socket.name = until_zero(value).to_vec(),
            PEER => socket.peer = Some(value.try_get_u32_ne().map_err(|_| Cut)?).filter(|&peer| peer != 0),
            UID => socket.uid = Some(value.try_get_u32_ne().map_err(|_| Cut)?),
            QUEUES => {
                socket.receive_queue = value.try_get_u32_ne().map_err(|_| Cut)?;
                socket.send_queue = value.try_get_u32_ne().map_err(|_| Cut)?;
            }
            _ => {}
        }
    }
    Ok(socket)
}

/// A length rounded up to the alignment of messages and attributes.
const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (4 + value.len()) as u16;
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    #[test]
    fn socket_has_its_attributes() {
        let mut body = vec![1, 5, 10, 0];
        for word in [77_u32, 1, 2] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(attribute(NAME, b"\0a\nb"));
        body.extend(attribute(PEER, &9_u32.to_ne_bytes()));
        body.extend(attribute(QUEUES, &[3_u32.to_ne_bytes(), 128_u32.to_ne_bytes()].concat()));
        body.extend(attribute(6, &[0]));
        body.extend(attribute(UID, &1000_u32.to_ne_bytes()));
        let mut found = Vec::new();
        let bytes = [message(20, &body), message(DONE, &[0; 4])].concat();
        assert_eq!(messages(&bytes, 5, |socket| found.push(socket)), Ok(Answer::Done));
        let [socket] = &found[..] else { panic!("{found:?}") };
        assert_eq!((socket.cookie, socket.inode, socket.peer), (2 << 32 | 1, 77, Some(9)));
        assert_eq!((socket.kind_name(), socket.state, socket.netns), (Some("seqpacket"), 10, 5));
        assert_eq!((&socket.name[..], socket.receive_queue, socket.send_queue), (&b"\0a\nb"[..], 3, 128));
        assert_eq!(socket.uid, Some(1000));
        let refused = message(ERROR, &(-2_i32).to_ne_bytes());
        assert_eq!(messages(&refused, 5, |_| ()), Ok(Answer::Refused(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if bytes.len() > 4 {
                let length = (bytes.len() as u32).to_ne_bytes();
                bytes[..4].copy_from_slice(&length);
            }
            _ = messages(&bytes, 0, |_| ());
        }
    }
}
