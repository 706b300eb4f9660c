//! UNIX sockets: peers are trusted, files come and go, nothing spins.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Barrier;

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

#[test]
fn of_servers_that_replace_a_stale_file_at_once_exactly_one_serves_the_path() {
    let directory = Directory::new("race");
    let path = directory.socket();
    for _ in 0..300 {
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let begin = Barrier::new(4);
        let start = || {
            begin.wait();
            Socket::bind_unix(&path, 16, None)
        };
        let started: Vec<_> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            starting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (served, refused): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
        assert_eq!(served.len(), 1, "{refused:?}");
        for error in refused {
            assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        }
        UnixStream::connect(&path).unwrap();
        drop(served);
        assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 0, "something is left");
    }
}

#[test]
fn a_server_that_starts_while_another_ends_is_not_turned_away() {
    let directory = Directory::new("restart");
    let path = directory.socket();
    let mut serving = Socket::bind_unix(&path, 16, None).unwrap();
    for _ in 0..300 {
        let ended = std::thread::scope(|scope| {
            let end = scope.spawn(move || drop(serving));
            let next = loop {
                let was_serving = !end.is_finished();
                match Socket::bind_unix(&path, 16, None) {
                    Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && was_serving => {}
                    next => break next,
                }
            };
            end.join().unwrap();
            next
        });
        serving = ended.unwrap();
        UnixStream::connect(&path).unwrap();
    }
}
