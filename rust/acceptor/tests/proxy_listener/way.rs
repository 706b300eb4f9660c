//! What `accept` returns for each kind of client.

use std::io::ErrorKind;
use std::path::PathBuf;

use proxyproto_acceptor::{
    Approach, BindOptions, LocalAddr, OptionError, Options, Outcome, PeerAddr, ProxyListener, ProxyProtocol,
    Setting, Socket, Untrusted,
};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Handle};

use crate::pair::{
    V1, V2_LOCAL, accept, count, listen, networks, options, peer, read_all, soon, until_closed,
};

#[tokio::test]
async fn the_client_is_whom_the_header_names() {
    let listener = listen(options()).await;
    let mut proxy = peer(&listener, V1).await;
    let (stream, client) = soon(listener.accept()).await.unwrap();
    assert_eq!(client.to_string(), "192.0.2.1:12345");
    assert_eq!(stream.client_addr(), client);
    assert_eq!(stream.destination_addr().unwrap().to_string(), "198.51.100.1:1883");
    assert_eq!(*stream.peer_addr(), PeerAddr::Ip(proxy.local_addr().unwrap()));
    assert_eq!(stream.local_addr().unwrap(), LocalAddr::Ip(listener.local_addr().unwrap()));
    assert_eq!(stream.header().unwrap().raw(), V1);
    proxy.write_all(b"payload").await.unwrap();
    drop(proxy);
    assert_eq!(read_all(stream).await, b"payload");
}

#[tokio::test]
async fn who_is_named_by_nobody_is_the_peer() {
    let direct = options().trusted(networks(&[])).untrusted(Untrusted::Direct);
    let off = options().proxy_protocol(ProxyProtocol::Off);
    let unix = [b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".as_slice(), b"/run/client", &[0; 205]].concat();
    let cases: [(Options, &[u8], bool); 5] = [
        (options(), V2_LOCAL, true),
        (options(), b"PROXY UNKNOWN\r\n", true),
        (options(), &unix, true),
        (direct, b"hello", false),
        (off, b"hello", false),
    ];
    for (options, bytes, has_header) in cases {
        let listener = listen(options).await;
        let peer = peer(&listener, bytes).await;
        let (stream, client) = soon(listener.accept()).await.unwrap();
        assert_eq!(client, peer.local_addr().unwrap());
        assert_eq!(stream.destination_addr().unwrap(), stream.local_addr().unwrap());
        assert_eq!(stream.header().is_some(), has_header);
    }
}

#[tokio::test]
async fn on_a_unix_socket_who_has_no_address_is_nobody() {
    let path = PathBuf::from(format!("\0proxyproto-acceptor-{}", std::process::id()));
    let socket = Socket::bind_unix(&path, 16, None).unwrap();
    let listener = ProxyListener::from_socket(socket, options()).unwrap();
    assert_eq!(listener.local_addr().unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(matches!(listener.local_name(), LocalAddr::Unix(name) if name.is_abstract));
    for (bytes, expected) in [(V1, "192.0.2.1:12345"), (V2_LOCAL, "0.0.0.0:0")] {
        let mut peer = UnixStream::connect(&path).await.unwrap();
        peer.write_all(&[bytes, b"payload"].concat()).await.unwrap();
        let (stream, client) = soon(listener.accept()).await.unwrap();
        assert_eq!(client.to_string(), expected);
        assert!(matches!(stream.peer_addr(), PeerAddr::Unix(_)));
        stream.set_nodelay(true).unwrap();
        drop(peer);
        assert_eq!(read_all(stream).await, b"payload");
    }
}

#[tokio::test]
async fn refused_connections_are_passed_over() {
    let listener = listen(options().deny(networks(&["203.0.113.0/24"]))).await;
    let stranger = peer(&listener, b"GET / HTTP/1.1\r\n\r\n").await;
    let denied = peer(&listener, b"PROXY TCP4 203.0.113.7 198.51.100.1 12345 1883\r\n").await;
    let _good = peer(&listener, V1).await;
    assert_eq!(accept(&listener).await.client_addr().to_string(), "192.0.2.1:12345");
    until_closed(stranger).await;
    until_closed(denied).await;
    assert_eq!(count(&listener, Outcome::MissingHeader), 1);
    assert_eq!(count(&listener, Outcome::Denied), 1);
}

#[tokio::test]
async fn a_policy_says_how_a_peer_begins() {
    for (approach, bytes, client) in [
        (Approach::Header, V1, Some("192.0.2.1")),
        (Approach::PerhapsHeader, b"hello", Some("127.0.0.1")),
        (Approach::Direct, V1, Some("127.0.0.1")),
        (Approach::Refuse, V1, None),
    ] {
        let listener = listen(Options::default().policy(move |_| approach)).await;
        let peer = peer(&listener, bytes).await;
        if let Some(client) = client {
            assert_eq!(accept(&listener).await.client_addr().ip().to_string(), client, "{approach:?}");
        } else {
            tokio::select! {
                accepted = listener.accept() => panic!("{accepted:?}"),
                () = until_closed(peer) => {}
            }
            assert_eq!(count(&listener, Outcome::Untrusted), 1);
        }
    }
}

#[tokio::test]
async fn other_options_hold_for_who_comes_then() {
    let listener = listen(options()).await;
    listener.update(options().proxy_protocol(ProxyProtocol::Off)).unwrap();
    assert_eq!(listener.options().proxy_protocol, ProxyProtocol::Off);
    let _peer = peer(&listener, b"hello").await;
    assert!(accept(&listener).await.header().is_none());
    assert_eq!(
        listener.update(options().max_pending(0)),
        Err(OptionError::Zero { option: Setting::MaxPending })
    );
}

#[tokio::test]
async fn a_listener_of_std_is_served_as_it_is() {
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = ProxyListener::from_std(listening, options()).unwrap();
    let _peer = peer(&listener, V1).await;
    accept(&listener).await;
}

#[tokio::test]
async fn what_cannot_be_meant_or_bound_is_an_error() {
    let optional = Options::default().proxy_protocol(ProxyProtocol::Optional);
    let error = ProxyListener::bind("127.0.0.1:0", optional).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.downcast::<OptionError>().unwrap(), OptionError::OptionalWithoutTrusted);
    let listener = listen(options()).await;
    let error = ProxyListener::bind(listener.local_addr().unwrap(), options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_runtime_is_named_or_entered() {
    let socket = || Socket::bind("127.0.0.1:0".parse().unwrap(), BindOptions::default()).unwrap();
    assert_eq!(ProxyListener::from_socket(socket(), options()).unwrap_err().kind(), ErrorKind::Other);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let listener = ProxyListener::spawn_on(runtime.handle(), socket(), options()).unwrap();
    runtime.block_on(async {
        let _peer = peer(&listener, V1).await;
        accept(&listener).await;
        ProxyListener::spawn_on(&Handle::current(), socket(), options()).unwrap();
    });
}

#[test]
fn no_thread_is_started() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = listen(options()).await;
        let _peer = peer(&listener, V1).await;
        accept(&listener).await;
        let names = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        assert!(!names.into_iter().any(|name| name.trim() == "proxyproto-rs"));
    });
}
