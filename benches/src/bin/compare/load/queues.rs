//! The queues of a TCP connection on this machine, as the kernel counts them.
//!
//! Owns: [`unread`], which asks for the two sockets of one connection (`sock_diag(7)`). `/proc/net/tcp` lists all
//! sockets, which takes milliseconds, in which a server continues to send.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const FAMILY_INET: u8 = 2;
const FAMILY_INET6: u8 = 10;
const PROTOCOL_TCP: u8 = 6;
const ALL_STATES: u32 = u32::MAX;
/// `nlmsghdr`, then `inet_diag_req_v2`.
const REQUEST_BYTES: u32 = 16 + 56;
/// The state of a listener, which answers for a socket that is gone.
const LISTEN: u8 = 10;
/// Where the state and the lengths of the queues are in an answer: after `nlmsghdr`, and after the addresses and
/// `idiag_expires`.
const STATE_AT: usize = 16 + 1;
const RECEIVED_AT: usize = 16 + 4 + 48 + 4;
const SENT_AT: usize = RECEIVED_AT + 4;

/// Returns the bytes that the server at `server` has written and the client at `client` has not read: those that the
/// server's socket holds, and those in the client's.
pub fn unread(client: SocketAddr, server: SocketAddr) -> Result<u64, String> {
    let doing = |e| format!("open sock_diag: {e}");
    let kernel = socket(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        Some(netlink::SOCK_DIAG),
    )
    .map_err(doing)?;
    // What moves in between is counted twice, not missed.
    let sent = length(&kernel, server, client, SENT_AT)?;
    Ok(sent + length(&kernel, client, server, RECEIVED_AT)?)
}

fn length(kernel: &OwnedFd, own: SocketAddr, other: SocketAddr, at: usize) -> Result<u64, String> {
    let doing = |e| format!("ask for the queues of {own}: {e}");
    let address = SocketAddrNetlink::new(0, 0);
    let request = request(own, other);
    sendto(kernel, &request, SendFlags::empty(), &address).map_err(doing)?;
    let mut answer = [0; 512];
    let (length, _) = recv(kernel, &mut answer[..], RecvFlags::empty()).map_err(doing)?;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    let bytes = answer[..length].get(at..at + 4);
    match bytes.and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) if kind == SOCK_DIAG_BY_FAMILY && answer[STATE_AT] != LISTEN => {
            Ok(u32::from_ne_bytes(bytes).into())
        }
        _ => Err(format!("no socket from {own} to {other}")),
    }
}

fn request(own: SocketAddr, other: SocketAddr) -> Vec<u8> {
    let family = if own.is_ipv4() {
        FAMILY_INET
    } else {
        FAMILY_INET6
    };
    let mut request = Vec::new();
    request.extend(REQUEST_BYTES.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port, which answers to one question at a time do not need.
    request.extend([0; 8]);
    request.extend([family, PROTOCOL_TCP, 0, 0]);
    request.extend(ALL_STATES.to_ne_bytes());
    request.extend(own.port().to_be_bytes());
    request.extend(other.port().to_be_bytes());
    for address in [own.ip(), other.ip()] {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(four) => bytes[..4].copy_from_slice(&four.octets()),
            IpAddr::V6(six) => bytes = six.octets(),
        }
        request.extend(bytes);
    }
    // Any interface, and no cookie.
    request.extend([0; 4]);
    request.extend([0xff; 8]);
    request
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Guards: what was written and not read is counted, and nothing else.
    #[test]
    fn unread_bytes_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(at).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(&[1; 1000]).unwrap();
        client.read_exact(&mut [0; 400]).unwrap();
        let found = match unread(client.local_addr().unwrap(), at) {
            Ok(found) => found,
            Err(why) => {
                assert!(std::env::var_os("CI").is_none(), "{why}");
                // Not captured, unlike what `eprintln!` writes.
                let skipped =
                    format!("SKIPPED: unread bytes because sock_diag fails here: {why}\n");
                std::io::stderr().write_all(skipped.as_bytes()).unwrap();
                return;
            }
        };
        assert_eq!(found, 600);
        assert!(unread(([127, 0, 0, 1], 1).into(), at).is_err());
    }
}
