//! Which servers a client believes.

use super::super::{TlsClientOptions, TlsServer};
use super::files::Files;
use super::peers::client_of;
use crate::channel::{Channel, Stage};

#[test]
fn a_server_is_believed_by_its_name() {
    let files = Files::new();
    let strangers = Files::new();
    let server = TlsServer::new(&files.options()).unwrap();
    let of = |change: fn(&mut TlsClientOptions), server: &str| {
        let mut options = files.client_options();
        change(&mut options);
        client_of(&options, server)
    };
    let table = [
        (of(|_| (), "localhost:8883"), "Open"),
        (of(|options| options.server_name = Some("a.example.org".into()), "10.0.0.1:8883"), "Open"),
        (of(|options| options.server_name = Some("localhost".into()), "unix:/run/broker"), "Open"),
        (of(|options| options.insecure = true, "[2001:db8::1]:8883"), "Open"),
        (
            client_of(&strangers.client_options(), "localhost:1"),
            "TLS: invalid peer certificate: UnknownIssuer",
        ),
        (of(|_| (), "127.0.0.1:8883"), "TLS: invalid peer certificate: certificate not valid for name"),
        (of(|_| (), "other.test:8883"), "TLS: invalid peer certificate: certificate not valid for name"),
    ];
    for (mut client, said) in table {
        let mut channel = server.channel();
        let (mut to_server, mut to_client, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        client.start(&mut to_server).unwrap();
        let mut failed = None;
        while !to_server.is_empty() && failed.is_none() {
            let _ = channel.decode(&mut std::mem::take(&mut to_server), &mut plain, &mut to_client);
            failed = client.decode(&mut std::mem::take(&mut to_client), &mut plain, &mut to_server).err();
        }
        let ended = failed.map_or(format!("{:?}", client.stage()), |fault| fault.detail.into_owned());
        assert!(ended.starts_with(said), "{ended:?}, not {said:?}");
    }
    let mut nameless = client_of(&files.client_options(), "unix:/run/broker");
    let fault = nameless.start(&mut Vec::new()).unwrap_err();
    assert_eq!(fault.detail, "TLS: server_name is needed for unix:/run/broker");
    assert_eq!(nameless.stage(), Stage::Tls);
}
