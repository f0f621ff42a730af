//! The control socket between m8trx and a host's first process: one JSON message a packet, with listeners attached.
//!
//! Whoever holds the other end knows when this one is gone: the host ends when its control socket does.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, setsockopt, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::HostConditions;
use super::error::Failure;

/// Far above any host's specification (a few KB), and below the default socket buffer.
const LARGEST_MESSAGE: usize = 128 * 1024;
/// The kernel passes at most 253 descriptors at once; a host has a handful of listeners.
const MOST_LISTENERS: usize = 32;

/// What the parent says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Make the host.
    Make(Box<Making>),
    /// Start the boot: the listeners are served now.
    Boot,
}

/// The owned form of [`super::HostSpec`] that crosses the socket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Making {
    pub instance_id: String,
    pub hostname: String,
    pub hosts: Vec<(IpAddr, String)>,
    pub addresses: Vec<Ipv4Addr>,
    pub listeners: Vec<SocketAddr>,
    pub ca_certificate_pem: String,
    pub conditions: HostConditions,
}

/// What the host says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Namespaces, files and network stand; the listeners are attached, in the order of the specification.
    Made,
    /// Process 1 runs and waits for [`Order::Boot`].
    Up,
    /// The set-up failed and the child is ending.
    Failed(Failure),
}

/// One end of a control socket.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    pub fn pair() -> io::Result<(Channel, Channel)> {
        let (a, b) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Channel(a), Channel(b)))
    }

    /// The end that a re-executed child got as its standard input.
    pub fn from_stdin() -> io::Result<Channel> {
        Ok(Channel(io::stdin().as_fd().try_clone_to_owned()?))
    }

    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Ends the conversation for both sides, even where a copy of the descriptor is still open.
    pub fn hang_up(&self) {
        // It fails only where the other side has hung up already.
        let _ = nix::sys::socket::shutdown(self.0.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }

    pub fn time_out_after(&self, limit: Duration) -> io::Result<()> {
        let limit = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        Ok(setsockopt(&self.0, sockopt::ReceiveTimeout, &limit)?)
    }

    pub fn send(&self, message: &impl Serialize, attached: &[OwnedFd]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > LARGEST_MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the host's specification is too large",
            ));
        }
        let fds: Vec<_> = attached.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights: &[ControlMessage] = if fds.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            rights,
            flags,
            None,
        )?;
        Ok(())
    }

    /// The next message with what was attached to it; `None` when the other side has gone.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; LARGEST_MESSAGE];
        let mut rights = cmsg_space!([i32; MOST_LISTENERS]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received = loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut rights), flags) {
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::ECONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let mut attached = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = message {
                for fd in fds {
                    // SAFETY: the kernel has just made this descriptor for us and nothing else holds it.
                    attached.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        let length = received.bytes;
        if length == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&buffer[..length])?, attached)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_cross_the_socket_and_an_end_is_noticed() {
        let (ours, theirs) = Channel::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        theirs.send(&Report::Made, &[listener.into()]).unwrap();
        let (report, mut attached) = ours.receive::<Report>().unwrap().unwrap();
        assert!(matches!(report, Report::Made));
        let same = std::net::TcpListener::from(attached.remove(0));
        assert_eq!(same.local_addr().unwrap(), address);
        drop(theirs);
        assert!(ours.receive::<Report>().unwrap().is_none());
    }
}
