//! A server as lean as the kernel allows, for what there is to reach: one thread, epoll, no interpreter. It reads the
//! header with our codec, out of the same segment as the request, and can ask for deferred accept as we do.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use proxyproto_codec::{Options, Status, decode};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use socket2::{Domain, Protocol, Socket, Type};

use crate::header::{Kind, REPLY};

/// A connection whose request is not complete.
struct Waiting {
    fd: OwnedFd,
    received: Vec<u8>,
}

pub(crate) fn run(kind: Kind, defers: bool) -> io::Result<()> {
    let listening = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    listening.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    listening.set_nonblocking(true)?;
    if defers {
        defer_accept(&listening)?;
    }
    listening.listen(1024)?;
    let address = listening.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    println!("{address}");
    io::stdout().flush()?;

    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listening, epoll::EventData::new_u64(LISTENING), epoll::EventFlags::IN)?;
    let mut waiting = HashMap::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = [0; 4096];
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let data = event.data;
            if data.u64() == LISTENING {
                while let Ok(fd) = accept_with(&listening, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    let new = Waiting { fd, received: Vec::new() };
                    if let Some(new) = serve(new, kind, &mut buffer) {
                        let key = u64::try_from(new.fd.as_raw_fd()).unwrap_or_default();
                        let flags = epoll::EventFlags::IN;
                        epoll::add(&epoll, new.fd.as_fd(), epoll::EventData::new_u64(key), flags)?;
                        waiting.insert(key, new);
                    }
                }
            } else if let Some(woken) = waiting.remove(&data.u64())
                && let Some(woken) = serve(woken, kind, &mut buffer)
            {
                waiting.insert(data.u64(), woken);
            }
        }
    }
}

fn defer_accept(listening: &Socket) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&seconds)).unwrap_or_default();
    // SAFETY: the socket is open, the pointer is to a live `c_int` of that length, and the kernel only reads it.
    let status = unsafe {
        let value = (&raw const seconds).cast();
        libc::setsockopt(listening.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, length)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const LISTENING: u64 = u64::MAX;

/// Answers a complete request and closes; gives the connection back if it is not complete.
fn serve(mut waiting: Waiting, kind: Kind, buffer: &mut [u8]) -> Option<Waiting> {
    match recv(&waiting.fd, &mut *buffer, RecvFlags::DONTWAIT) {
        Ok((_, 0)) => return None,
        Ok((_, count)) if waiting.received.is_empty() && is_complete(kind, &buffer[..count]) => {}
        Ok((_, count)) => {
            waiting.received.extend(&buffer[..count]);
            if !is_complete(kind, &waiting.received) {
                return Some(waiting);
            }
        }
        Err(Errno::AGAIN) => return Some(waiting),
        Err(_) => return None,
    }
    let _ = send(&waiting.fd, REPLY, SendFlags::NOSIGNAL);
    None
}

fn is_complete(kind: Kind, received: &[u8]) -> bool {
    let request = if kind == Kind::None {
        received
    } else {
        match decode(received, &Options::default()) {
            Ok(Status::Complete(header)) => &received[header.raw().len()..],
            _ => return false,
        }
    };
    request.ends_with(b"\n")
}
