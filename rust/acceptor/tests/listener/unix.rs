//! UNIX sockets: peers are trusted, files come and go, nothing spins.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use proxyproto_acceptor::{Listener, PeerAddr, Socket};
use rustix::event::{PollFd, PollFlags, poll};

use crate::pair::{V1, networks, options};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("proxyproto-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_peer_is_trusted_and_its_header_consumed_even_in_pieces() {
    let directory = Directory::new("pieces");
    let trusted = networks(&[]);
    let socket = Socket::bind_unix(&directory.socket(), 16, Some(0o600)).unwrap();
    let mode = std::fs::metadata(directory.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listener = Listener::start(socket, options().trusted(trusted)).unwrap();
    let mut peer = UnixStream::connect(directory.socket()).unwrap();
    for byte in V1 {
        peer.write_all(&[*byte]).unwrap();
    }
    peer.write_all(b"payload").unwrap();
    drop(peer);
    let connection = loop {
        let wake = listener.wake_fd().unwrap();
        let mut fds = [PollFd::new(&wake, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        if let Some(connection) = listener.take(1).unwrap().pop() {
            break connection;
        }
    };
    assert!(matches!(connection.peer, PeerAddr::Unix(_)));
    let mut stream = UnixStream::from(connection.fd);
    stream.set_nonblocking(false).unwrap();
    let mut payload = String::new();
    stream.read_to_string(&mut payload).unwrap();
    assert_eq!(payload, "payload");
}

#[test]
fn a_stale_file_is_replaced_a_served_one_is_not_and_ours_goes_with_us() {
    let directory = Directory::new("files");
    let path = directory.socket();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::start(Socket::bind_unix(&path, 16, None).unwrap(), options()).unwrap();
    let in_use = std::io::ErrorKind::AddrInUse;
    assert_eq!(Socket::bind_unix(&path, 16, None).unwrap_err().kind(), in_use);
    listener.close();
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(Socket::bind_unix(&path, 16, None).unwrap_err().kind(), in_use);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
