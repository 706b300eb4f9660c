//! TLS in front and behind: what it tells of a client, how it fails, and that nothing is lost in it.

use std::sync::Arc;
use std::time::Duration;

use proxyproto_gateway::mqtt::Version;
use proxyproto_gateway::{
    ClientCertificate, HeaderOut, ListenerOptions, Options, TlsClient, TlsClientOptions, acceptor,
};

use crate::packets::{DISCONNECT, connack, connack_out, connect};
use crate::rig::{Peer, Rig, Server, V1, cause};
use crate::secure::Authority;

/// A gateway whose listener speaks TLS behind a header.
fn rig(server: &Server, authority: &Authority, change: impl FnOnce(&mut Options)) -> Rig {
    let tls = authority.server(|options| {
        options.client_certificate = ClientCertificate::Optional;
        options.cafile = Some(authority.path("ca.pem"));
    });
    let mut serving = ListenerOptions::new("ssl");
    serving.channel = Some(tls);
    let proxies = ["127.0.0.1/32".parse().unwrap()].into_iter().collect();
    Rig::with(&[server], acceptor::Options::default().trusted(proxies), serving, change)
}

#[tokio::test]
async fn a_device_is_known_by_its_header_and_its_certificate() {
    let (server, authority) = (Server::new().await, Authority::new());
    let rig = rig(&server, &authority, |_| ());
    let mut client = authority.connect(rig.client(V1).await, Some("device.pem")).await;
    client.send(&connect(Version::Mqtt311, "dev")).await;
    let login = rig.login().await;
    assert_eq!(login.arrival.client().to_string(), "192.0.2.1:12345");
    let tls = login.arrival.facts.tls.clone().unwrap();
    let words =
        (&*tls.version, &*tls.cipher, tls.sni.as_deref(), tls.common_name.as_deref(), tls.has_more_names);
    assert_eq!(words, ("TLSv1.3", "TLS_AES_256_GCM_SHA384", Some("localhost"), Some("device-7"), false));
    assert!(tls.certificate.is_some() && tls.alpn.is_none());
    rig.gateway.admit(login.token, proxyproto_gateway::Admission::default());
    let mut upstream = server.accept().await;
    upstream.expect(&connect(Version::Mqtt311, "dev")).await;
    upstream.send(&connack(Version::Mqtt311, 0)).await;
    rig.welcomed().await;
    client.expect(b"\x20\x02\0\0").await;
    let long = [&b"\x30\x87\x80\x03\0\x01a"[..], &vec![7; 0xc004]].concat();
    client.send(&long).await;
    upstream.expect(&long).await;
    upstream.send(&long).await;
    client.expect(&long).await;
    client.send(DISCONNECT).await;
    upstream.expect(DISCONNECT).await;
    drop(upstream);
    client.expect_goodbye().await;
    assert_eq!(rig.ended().await.cause, cause("disconnect"));
}

#[tokio::test]
async fn a_failed_handshake_is_told_with_the_real_address() {
    let (server, authority) = (Server::new().await, Authority::new());
    let rig = rig(&server, &authority, |_| ());
    for (sent, detail) in [
        (&connect(Version::Mqtt311, "dev")[..], "wrong-version: not TLS but MQTT packet type 1"),
        (b"\x16\x03\x01", "closed"),
        (b"", "closed"),
    ] {
        let mut client = rig.client(&[V1, sent].concat()).await;
        client.shut_down().await;
        client.expect_end().await;
        let refused = rig.refused().await;
        assert_eq!(refused.cause, cause("tls-failed"));
        assert!(refused.detail.starts_with(detail), "{}", refused.detail);
        assert_eq!(refused.arrival.client().to_string(), "192.0.2.1:12345");
        assert!(refused.token.is_none() && refused.arrival.facts.tls.is_none());
    }
}

#[tokio::test]
async fn each_stage_has_its_own_deadline() {
    let (server, authority) = (Server::new().await, Authority::new());
    let rig = rig(&server, &authority, |options| {
        options.mqtt.tls_timeout = Duration::from_millis(500);
        options.mqtt.connect_timeout = Duration::from_secs(1);
    });
    let mut silent = rig.client(&[V1, b"\x16\x03\x01"].concat()).await;
    silent.expect_end().await;
    let refused = rig.refused().await;
    assert_eq!((refused.cause, &*refused.detail), (cause("tls-failed"), "timeout"));
    // Its handshake is over at once, and then it is the CONNECT that does not come.
    let mut client = authority.connect(rig.client(V1).await, None).await;
    client.expect_goodbye().await;
    assert_eq!(rig.refused().await.cause, cause("no-connect"));
}

#[tokio::test]
async fn a_refused_login_is_answered_in_tls_and_a_broken_one_is_not() {
    let (server, authority) = (Server::new().await, Authority::new());
    let rig = rig(&server, &authority, |_| ());
    let mut client = authority.connect(rig.client(V1).await, None).await;
    client.send(&connect(Version::Mqtt311, "dev")).await;
    let login = rig.login().await;
    assert!(login.arrival.facts.tls.clone().unwrap().certificate.is_none());
    rig.gateway.refuse(login.token, cause("bad-credentials"), "");
    client.expect(b"\x20\x02\0\x05").await;
    client.expect_goodbye().await;
    assert_eq!(rig.refused().await.cause, cause("bad-credentials"));
    let mut client = authority.connect(rig.client(V1).await, None).await;
    client.say_goodbye().await;
    client.expect_goodbye().await;
    assert_eq!(rig.refused().await.cause, cause("closed-early"));
}

#[tokio::test]
async fn new_certificates_leave_sessions_open() {
    let (server, old, new) = (Server::new().await, Authority::new(), Authority::new());
    let rig = rig(&server, &old, |_| ());
    let mut client = old.connect(rig.client(V1).await, None).await;
    client.send(&connect(Version::Mqtt311, "dev")).await;
    rig.admit().await;
    let mut upstream = server.accept().await;
    upstream.expect(&connect(Version::Mqtt311, "dev")).await;
    upstream.send(&connack(Version::Mqtt311, 0)).await;
    rig.welcomed().await;
    client.expect(b"\x20\x02\0\0").await;
    let mut serving = ListenerOptions::new("ssl");
    serving.channel = Some(new.server(|_| ()));
    assert!(rig.gateway.update_listener(serving));
    client.send(b"\xc0\0").await;
    upstream.expect(b"\xc0\0").await;
    upstream.send(b"\xd0\0").await;
    client.expect(b"\xd0\0").await;
    let mut next = new.connect(rig.client(V1).await, None).await;
    next.send(&connect(Version::Mqtt311, "next")).await;
    assert_eq!(rig.login().await.connect.client_id(), "next");
}

/// A gateway that speaks TLS with its server.
fn towards(server: &Server, authority: &Authority, header: HeaderOut) -> Rig {
    let mut options = TlsClientOptions::default();
    options.cafile = Some(authority.path("ca.pem"));
    options.server_name = Some("localhost".into());
    let tls = TlsClient::new(&options).unwrap();
    Rig::new(&[server], |options| {
        options.upstream.channel = Some(Arc::new(tls));
        options.upstream.header = header;
    })
}

#[tokio::test]
async fn a_server_is_spoken_to_in_tls_behind_the_header() {
    let (server, authority) = (Server::new().await, Authority::new());
    for header in [HeaderOut::Off, HeaderOut::V1] {
        let rig = towards(&server, &authority, header);
        let connect = connect(Version::Mqtt5, "dev");
        let mut client = rig.client(&connect).await;
        rig.admit().await;
        let mut upstream = server.accept().await;
        if header == HeaderOut::V1 {
            assert_eq!(upstream.read(11).await, b"PROXY TCP4 ");
            while upstream.read(1).await != b"\n" {}
        }
        let mut upstream = authority.accept(upstream).await;
        upstream.expect(&connect).await;
        upstream.send(&connack(Version::Mqtt5, 0)).await;
        rig.welcomed().await;
        client.expect(&connack_out(Version::Mqtt5, rig.gateway.options().mqtt.max_packet_size)).await;
        client.send(&[b"\xc0\0", DISCONNECT].concat()).await;
        upstream.expect(&[b"\xc0\0", DISCONNECT].concat()).await;
        upstream.expect_goodbye().await;
        drop(upstream);
        assert_eq!(rig.ended().await.cause, cause("disconnect"));
        client.expect_end().await;
    }
}

#[tokio::test]
async fn a_strange_server_gets_no_connect() {
    let (server, authority, other) = (Server::new().await, Authority::new(), Authority::new());
    let rig = towards(&server, &authority, HeaderOut::Off);
    let _client: Peer = rig.client(&connect(Version::Mqtt311, "dev")).await;
    rig.admit().await;
    let mut upstream = other.accept(server.accept().await).await;
    upstream.expect_nothing().await;
    let refused = rig.refused().await;
    assert_eq!(refused.cause, cause("upstream-unavailable"));
    assert!(refused.detail.contains("UnknownIssuer"), "{}", refused.detail);
}
