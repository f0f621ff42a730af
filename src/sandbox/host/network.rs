//! The host's network: a loopback device of its own with the addresses of the services, and no way out.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::control::Making;
use super::error::{Failure, Stage};

/// Brings the loopback device up, adds the addresses, and opens the listeners in the order given. A socket keeps the network
/// namespace it was made in, so the parent can serve them from outside.
pub(super) fn make(making: &Making) -> Result<Vec<OwnedFd>, Failure> {
    let failed = |what: String| move |error: io::Error| Failure::new(Stage::Network, what, error);
    let control = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(|error| Failure::new(Stage::Network, "open a socket in the host", error))?;
    bring_up(&control).map_err(failed("bring the loopback device up".into()))?;
    for (index, address) in making.addresses.iter().enumerate() {
        // 127.0.0.0/8 is there with the device.
        if !address.is_loopback() {
            add_address(&control, index, *address)
                .map_err(failed(format!("add the address {address}")))?;
        }
    }
    making
        .listeners
        .iter()
        .map(|address| {
            let listener =
                TcpListener::bind(address).map_err(failed(format!("listen on {address}")))?;
            Ok(listener.into())
        })
        .collect()
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: all zeroes is a valid ifreq: an empty name and an empty union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn ioctl(socket: &OwnedFd, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the kernel reads and writes one ifreq at most.
    match unsafe { libc::ioctl(socket.as_raw_fd(), number, std::ptr::from_mut(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn bring_up(socket: &OwnedFd) -> io::Result<()> {
    let mut lo = request("lo");
    ioctl(socket, libc::SIOCGIFFLAGS, &mut lo)?;
    let up = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).expect("flags fit");
    // SAFETY: SIOCGIFFLAGS has just filled the flags of the union.
    unsafe { lo.ifr_ifru.ifru_flags |= up };
    ioctl(socket, libc::SIOCSIFFLAGS, &mut lo)
}

/// Adds `address`/32. The old ioctl interface holds one address a name; further ones get an alias (`lo:0`, `lo:1`, …).
fn add_address(socket: &OwnedFd, index: usize, address: Ipv4Addr) -> io::Result<()> {
    let mut alias = request(&format!("lo:{index}"));
    alias.ifr_ifru.ifru_addr = sockaddr(address);
    ioctl(socket, libc::SIOCSIFADDR, &mut alias)?;
    alias.ifr_ifru.ifru_netmask = sockaddr(Ipv4Addr::BROADCAST);
    ioctl(socket, libc::SIOCSIFNETMASK, &mut alias)
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let [a, b, c, d] = address.octets().map(u8::cast_signed);
    let mut data = [0; 14];
    // The port takes the first two bytes of a sockaddr_in, the address the next four.
    data[2..6].copy_from_slice(&[a, b, c, d]);
    libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_INET).expect("an address family"),
        sa_data: data,
    }
}
