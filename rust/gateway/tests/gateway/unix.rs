//! UNIX sockets, in front and behind.

use std::sync::Arc;

use proxyproto_gateway::acceptor::{self, Listener, ProxyProtocol, Socket};
use proxyproto_gateway::mqtt::Version;
use proxyproto_gateway::{Admission, Event, Gateway, HeaderOut, ListenerOptions, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::packets::{connack, connect};
use crate::rig::soon;

#[tokio::test]
async fn a_client_of_a_unix_socket_comes_to_a_server_of_one() {
    let version = Version::Mqtt311;
    let folder = std::env::temp_dir().join(format!("gateway-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (front, back) = (folder.join("front"), folder.join("back"));
    for abstract_name in [None, Some(format!("gateway-{}", std::process::id()))] {
        let server = match &abstract_name {
            None => UnixListener::bind(&back).unwrap(),
            Some(name) => UnixListener::bind(format!("\0{name}")).unwrap(),
        };
        let name = abstract_name.map_or(format!("unix:{}", back.display()), |name| format!("unix:@{name}"));
        let mut options = Options::default();
        options.upstream.servers = vec![name.parse().unwrap()];
        options.upstream.header = HeaderOut::V1;
        let gateway = Gateway::start(options).unwrap();
        let listening = acceptor::Options::default().proxy_protocol(ProxyProtocol::Off);
        let listener = Listener::start(Socket::bind_unix(&front, 16, None).unwrap(), listening).unwrap();
        gateway.serve(Arc::new(listener), ListenerOptions::new("local")).unwrap();

        let mut client = UnixStream::connect(&front).await.unwrap();
        client.write_all(&connect(version, "dev")).await.unwrap();
        let Some(Event::Login(login)) = soon(gateway.next()).await else { panic!("no login") };
        assert_eq!(login.arrival.client().to_string(), "0.0.0.0:0");
        gateway.admit(login.token, Admission::default());
        let expected = [b"PROXY TCP4 127.0.0.1 127.0.0.1 0 0\r\n", &connect(version, "dev")[..]].concat();
        let mut got = vec![0; expected.len()];
        let mut upstream = loop {
            let (mut stream, _) = soon(server.accept()).await.unwrap();
            // A check says nothing.
            if soon(stream.read_exact(&mut got)).await.is_ok() {
                break stream;
            }
        };
        assert_eq!(got.escape_ascii().to_string(), expected.escape_ascii().to_string());
        upstream.write_all(&connack(version, 0)).await.unwrap();
        let mut answer = [0; 4];
        soon(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer[..], connack(version, 0));
        let Some(Event::Welcomed(welcomed)) = soon(gateway.next()).await else { panic!("no welcome") };
        assert_eq!(&*welcomed.server.unwrap().address, name);
        drop(upstream);
        assert_eq!(soon(client.read(&mut answer)).await.unwrap(), 0);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
