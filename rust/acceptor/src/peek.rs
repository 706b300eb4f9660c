//! Looks at the first bytes of a connection without taking them, and later takes exactly the header.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::sys;

/// What a look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// So many bytes, which are now at the start of the buffer. 0 if none has come yet.
    Bytes(usize),
    /// The peer has closed and no byte is left.
    Closed,
    /// The connection is broken: reset, or timed out.
    Broken,
}

/// Copies the bytes that are there into `buffer` and leaves them where they are.
pub(crate) fn look(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Look {
    loop {
        return match recv(fd, &mut *buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Look::Closed,
            Ok((_, count)) => Look::Bytes(count.min(buffer.len())),
            Err(Errno::AGAIN) => Look::Bytes(0),
            Err(Errno::INTR) => continue,
            Err(_) => Look::Broken,
        };
    }
}

/// Takes the header off the connection, and not one byte more (R28). A look has shown its `length` bytes.
pub(crate) fn consume(fd: BorrowedFd<'_>, length: usize, is_tcp: bool, buffer: &mut [u8]) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let taken = if is_tcp { sys::discard(fd, left) } else { discard_by_copy(fd, left, buffer) };
        match taken {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// For UNIX sockets. There `MSG_TRUNC` does not discard.
fn discard_by_copy(fd: BorrowedFd<'_>, count: usize, buffer: &mut [u8]) -> io::Result<usize> {
    let room = count.min(buffer.len());
    let Some(buffer) = buffer.get_mut(..room) else { return Ok(0) };
    let (_, taken) = recv(fd, buffer, RecvFlags::DONTWAIT)?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[expect(clippy::disallowed_methods, reason = "a test's own thread may block")]
    fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    fn look_until_there(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Look {
        sys::set_receive_low_water(fd, 1).unwrap();
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        look(fd, buffer)
    }

    #[test]
    fn a_look_takes_nothing_and_consume_takes_exactly_the_header() {
        let (mut server, mut client) = tcp_pair();
        let mut buffer = [0; 64];
        assert_eq!(look(server.as_fd(), &mut buffer), Look::Bytes(0));
        client.write_all(b"headerpayload").unwrap();
        assert_eq!(look_until_there(server.as_fd(), &mut buffer), Look::Bytes(13));
        assert_eq!(look(server.as_fd(), &mut buffer[..4]), Look::Bytes(4));
        consume(server.as_fd(), 6, true, &mut buffer).unwrap();
        drop(client);
        let mut rest = String::new();
        server.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "payload");
        assert_eq!(look(server.as_fd(), &mut buffer), Look::Closed);
    }

    #[test]
    fn a_unix_socket_is_consumed_by_copy() {
        let (mut server, mut client) = UnixStream::pair().unwrap();
        client.write_all(b"headerpayload").unwrap();
        drop(client);
        let mut buffer = [0; 4];
        consume(server.as_fd(), 6, false, &mut buffer).unwrap();
        let mut rest = String::new();
        server.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "payload");
    }
}
