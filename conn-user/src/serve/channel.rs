//! The socket pair between the two halves of the daemon. A packet is a message, with descriptors or without.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::output::async_fd::register;
use crate::serve::message::MAX_PACKET;
use crate::settings::MAX_ADDRESSES;

/// How many descriptors come with a message at the most: the sockets of a setup.
pub(crate) const DESCRIPTORS: usize = 1 + MAX_ADDRESSES;

/// One end, which sends `S` and receives `R`.
#[derive(Debug)]
pub(crate) struct Channel<S, R> {
    socket: AsyncFd<File>,
    types: PhantomData<fn(S) -> R>,
}

/// Both ends of a new socket pair.
///
/// # Errors
/// The system's answer.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

impl<S: Serialize, R: DeserializeOwned> Channel<S, R> {
    /// Takes an end over. Needs a tokio runtime.
    ///
    /// # Errors
    /// The descriptor cannot be polled.
    pub(crate) fn new(end: OwnedFd) -> io::Result<Self> {
        nix::fcntl::fcntl(end.as_fd(), nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Self { socket: register(File::from(end), interest)?, types: PhantomData })
    }

    /// Sends a message with its descriptors: [`DESCRIPTORS`] at the most.
    ///
    /// # Errors
    /// The other half is gone.
    pub(crate) async fn send(&self, message: &S, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        self.socket
            .async_io(Interest::WRITABLE, |socket| {
                let part = [IoSlice::new(&bytes)];
                Ok(sendmsg::<()>(socket.as_raw_fd(), &part, control, flags, None).map(drop)?)
            })
            .await
    }

    /// Receives a message and its descriptors; none at the end.
    ///
    /// # Errors
    /// The packet is no message.
    pub(crate) async fn receive(&self) -> io::Result<Option<(R, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_PACKET];
        let (length, descriptors) =
            self.socket.async_io(Interest::READABLE, |socket| receive(socket, &mut bytes)).await?;
        if length == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..length])?, descriptors)))
    }
}

/// Receives a packet. Descriptors of a packet that is cut are closed.
fn receive(socket: &File, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut parts = [IoSliceMut::new(bytes)];
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            descriptors.extend(raw.into_iter().map(own));
        }
    }
    if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet between the halves is too long"));
    }
    Ok((received.bytes, descriptors))
}

/// A descriptor that the kernel has just made for this process.
#[expect(unsafe_code, reason = "recvmsg(2) gives descriptors as numbers")]
fn own(raw: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd as _;
    // SAFETY: SCM_RIGHTS installed the descriptor for this packet alone, so nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::serve::message::{Reply, Request};

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn messages_and_descriptors_arrive_whole() {
        block_on(async {
            let (front, back) = pair().unwrap();
            let front = Channel::<Request, Reply>::new(front).unwrap();
            let back = Channel::<Reply, Request>::new(back).unwrap();
            front.send(&Request::Leave { id: 7 }, &[]).await.unwrap();
            front.send(&Request::Ready, &[]).await.unwrap();
            assert_eq!(back.receive().await.unwrap().unwrap().0, Request::Leave { id: 7 });
            assert_eq!(back.receive().await.unwrap().unwrap().0, Request::Ready);

            let (reader, writer) = io::pipe().unwrap();
            let ends = [reader.as_fd(); DESCRIPTORS];
            back.send(&Reply::Started { id: 7, is_kept: true }, &ends).await.unwrap();
            let (reply, descriptors) = front.receive().await.unwrap().unwrap();
            assert_eq!((reply, descriptors.len()), (Reply::Started { id: 7, is_kept: true }, DESCRIPTORS));
            drop(writer);
            let mut file = File::from(descriptors.into_iter().next().unwrap());
            assert_eq!(file.read(&mut [0]).unwrap(), 0);

            drop(back);
            assert!(front.receive().await.unwrap().is_none());
            assert!(front.send(&Request::Ready, &[]).await.is_err());
        });
    }

    #[test]
    fn a_packet_without_a_message_is_an_error() {
        block_on(async {
            let (front, back) = pair().unwrap();
            let back = Channel::<Reply, Request>::new(back).unwrap();
            for garbage in [&b"{"[..], b"\0", b"{\"Run\":{}}"] {
                nix::unistd::write(&front, garbage).unwrap();
                assert!(back.receive().await.is_err());
            }
        });
    }
}
