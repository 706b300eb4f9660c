//! The PROXY header that a server gets in front of the CONNECT: the real client's, with what is known of its TLS.

use std::net::{IpAddr, SocketAddr};

use proxyproto_codec::{EncodeError, Header, SslInfo, Tlv, Transport};

use crate::arrival::{Arrival, NOBODY};
use crate::facts::TlsFacts;
use crate::options::{HeaderOut, UpstreamOptions};
use crate::wire::Socket;

/// The header for this client; empty where none is wanted.
pub(crate) fn of_client(arrival: &Arrival, options: &UpstreamOptions) -> Vec<u8> {
    if options.secret.is_some() {
        return Vec::new();
    }
    let (source, destination) = ends_of(arrival);
    let header = match options.header {
        HeaderOut::Off => return Vec::new(),
        HeaderOut::V1 => Header::v1(source.into(), destination.into()),
        HeaderOut::V2 => v2(source, destination, arrival, options),
    };
    header.map(|header| header.raw().to_vec()).unwrap_or_default()
}

/// The password for a broker that knows the gateway by this secret.
pub(crate) fn password_of_client(arrival: &Arrival, secret: &[u8]) -> Vec<u8> {
    let (source, destination) = ends_of(arrival);
    let header = Header::v2(source.into(), destination.into(), Transport::Stream, &[], false);
    // Two addresses of one family always make a header.
    header.map(|header| [secret, header.raw()].concat()).unwrap_or_default()
}

/// The client and where it has connected to, as addresses of one family.
fn ends_of(arrival: &Arrival) -> (SocketAddr, SocketAddr) {
    match (arrival.client(), arrival.destination()) {
        // A peer of a UNIX socket is on this machine. LOCAL, which says nothing, crashes the reader of RabbitMQ 3.10.
        (NOBODY, _) => (LOOPBACK, LOOPBACK),
        (client, NOBODY) => same_family(client, LOOPBACK),
        (client, destination) => same_family(client, destination),
    }
}

/// The header for a connection in which nobody but the gateway speaks, such as a check.
pub(crate) fn of_ourselves(socket: &Socket, header: HeaderOut) -> Vec<u8> {
    let (source, destination) = match socket {
        Socket::Tcp(socket) => {
            let ends = (socket.local_addr(), socket.peer_addr());
            (ends.0.unwrap_or(LOOPBACK), ends.1.unwrap_or(LOOPBACK))
        }
        Socket::Unix(_) => (LOOPBACK, LOOPBACK),
    };
    let (source, destination) = same_family(source, destination);
    let header = match header {
        HeaderOut::Off => return Vec::new(),
        HeaderOut::V1 => Header::v1(source.into(), destination.into()),
        HeaderOut::V2 => Header::v2(source.into(), destination.into(), Transport::Stream, &[], false),
    };
    header.map(|header| header.raw().to_vec()).unwrap_or_default()
}

fn v2(
    source: SocketAddr,
    destination: SocketAddr,
    arrival: &Arrival,
    options: &UpstreamOptions,
) -> Result<Header, EncodeError> {
    let id = arrival.session_id.to_string();
    let ssl = ssl_value(arrival, options.forward_certificate);
    let own = arrival.facts.tls.as_ref();
    let mut tlvs = vec![Tlv::new(Tlv::UNIQUE_ID, id.as_bytes())];
    tlvs.extend(ssl.as_deref().map(|value| Tlv::new(Tlv::SSL, value)));
    if let Some(tls) = own {
        tlvs.extend(tls.sni.as_deref().map(|sni| Tlv::new(Tlv::AUTHORITY, sni.as_bytes())));
        tlvs.extend(tls.alpn.as_deref().map(|alpn| Tlv::new(Tlv::ALPN, alpn)));
    }
    if let Some(header) = &arrival.header {
        let replaced: &[u8] = if own.is_some() { &[Tlv::AUTHORITY, Tlv::ALPN] } else { &[] };
        tlvs.extend(header.tlvs().filter(|tlv| may_go_on(header, tlv.kind) && !replaced.contains(&tlv.kind)));
    }
    let encode =
        |tlvs: &[_]| Header::v2(source.into(), destination.into(), Transport::Stream, tlvs, options.checksum);
    // What the header or the handshake has said may not be what may be sent; the id always is.
    encode(&tlvs).or_else(|_| encode(tlvs.get(..1).unwrap_or_default()))
}

/// Whether a TLV of the client's own header may be sent by us too.
fn may_go_on(header: &Header, kind: u8) -> bool {
    match kind {
        // Ours, or of the header that it was in; or for experiments or reserved (S14).
        Tlv::UNIQUE_ID | Tlv::SSL | Tlv::CRC32C | Tlv::NOOP | 0xf0.. => false,
        Tlv::AUTHORITY => header.authority().is_some(),
        Tlv::NETNS => header.netns().is_some(),
        _ => true,
    }
}

/// The SSL TLV: of our own handshake, or of the one that the header tells of.
fn ssl_value(arrival: &Arrival, forward_certificate: bool) -> Option<Vec<u8>> {
    if let Some(tls) = &arrival.facts.tls {
        return own_ssl(tls, forward_certificate);
    }
    let ssl = arrival.header.as_ref()?.ssl()?;
    let bits = [
        (SslInfo::CLIENT_SSL, ssl.client_tls()),
        (SslInfo::CLIENT_CERT_CONN, ssl.client_cert_conn()),
        (SslInfo::CLIENT_CERT_SESS, ssl.client_cert_sess()),
    ];
    let client = bits.into_iter().filter(|(_, is_set)| *is_set).fold(0, |client, (bit, _)| client | bit);
    let tlvs: Vec<_> = ssl
        .tlvs()
        .filter(|tlv| match tlv.kind {
            // A name that nobody has verified would be believed by a broker that looks at nothing else.
            Tlv::SSL_CN => ssl.verified(),
            Tlv::SSL_CLIENT_CERT => forward_certificate,
            _ => true,
        })
        .collect();
    SslInfo::encode(client, ssl.verify(), &tlvs).ok()
}

fn own_ssl(facts: &TlsFacts, forward_certificate: bool) -> Option<Vec<u8>> {
    let mut client = SslInfo::CLIENT_SSL;
    let mut tlvs = vec![
        Tlv::new(Tlv::SSL_VERSION, facts.version.as_bytes()),
        Tlv::new(Tlv::SSL_CIPHER, facts.cipher.as_bytes()),
    ];
    if let Some(certificate) = &facts.certificate {
        client |= SslInfo::CLIENT_CERT_CONN | SslInfo::CLIENT_CERT_SESS;
        tlvs.extend(facts.common_name.as_deref().map(|name| Tlv::new(Tlv::SSL_CN, name.as_bytes())));
        if forward_certificate {
            tlvs.push(Tlv::new(Tlv::SSL_CLIENT_CERT, certificate));
        }
    }
    SslInfo::encode(client, 0, &tlvs).ok()
}

/// Both as addresses of one family, as a header has them: an IPv4 address beside an IPv6 one is mapped.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let mapped = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
        SocketAddr::V6(_) => address,
    };
    if source.is_ipv4() == destination.is_ipv4() {
        (source, destination)
    } else {
        (mapped(source), mapped(destination))
    }
}

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrival::tests::arrival;
    use proxyproto_codec::{Options, Status, decode};

    fn read(bytes: &[u8]) -> Header<&[u8]> {
        match decode(bytes, &Options::default()) {
            Ok(Status::Complete(header)) if header.raw() == bytes => header,
            other => panic!("{other:?}"),
        }
    }

    fn ends(header: &Header<&[u8]>) -> (String, String) {
        let text = |address: proxyproto_codec::Address<'_>| address.socket_addr().unwrap().to_string();
        (text(header.source().unwrap()), text(header.destination().unwrap()))
    }

    fn v2_in(tlvs: &[Tlv<'_>]) -> Header {
        let [source, destination] =
            ["192.0.2.1:5", "198.51.100.1:1883"].map(|text| text.parse::<SocketAddr>().unwrap());
        Header::v2(source.into(), destination.into(), Transport::Stream, tlvs, true).unwrap()
    }

    #[test]
    fn the_addresses_are_the_real_ones_in_either_version_and_of_one_family() {
        let v6 = "[2001:db8::1]:5";
        let table = [
            (Some(v2_in(&[])), "10.0.0.9:4", "10.0.0.1:1883", "192.0.2.1:5", "198.51.100.1:1883"),
            (Some(Header::unknown()), "10.0.0.9:4", "10.0.0.1:1883", "10.0.0.9:4", "10.0.0.1:1883"),
            (None, "10.0.0.9:4", "10.0.0.1:1883", "10.0.0.9:4", "10.0.0.1:1883"),
            (None, "[::ffff:10.0.0.9]:4", "[::ffff:10.0.0.1]:1883", "10.0.0.9:4", "10.0.0.1:1883"),
            (None, v6, "[2001:db8::2]:1883", v6, "[2001:db8::2]:1883"),
            (None, v6, "10.0.0.1:1883", v6, "[::ffff:10.0.0.1]:1883"),
        ];
        for (header, peer, local, source, destination) in table {
            let arrival = arrival(header, peer, local);
            for header in [HeaderOut::V1, HeaderOut::V2] {
                let options = UpstreamOptions { header, ..UpstreamOptions::default() };
                let bytes = of_client(&arrival, &options);
                assert_eq!(ends(&read(&bytes)), (source.into(), destination.into()), "{header:?}");
            }
            let options = UpstreamOptions { header: HeaderOut::Off, ..UpstreamOptions::default() };
            assert!(of_client(&arrival, &options).is_empty());
        }
    }

    #[test]
    fn a_peer_of_a_unix_socket_is_on_this_machine() {
        let mut arrival = arrival(None, "10.0.0.9:4", "10.0.0.1:1883");
        arrival.peer = proxyproto_acceptor::PeerAddr::Unix(proxyproto_acceptor::UnixName::default());
        arrival.local = proxyproto_acceptor::LocalAddr::Unix(proxyproto_acceptor::UnixName::default());
        let bytes = of_client(&arrival, &UpstreamOptions::default());
        assert_eq!(ends(&read(&bytes)), ("127.0.0.1:0".into(), "127.0.0.1:0".into()));
    }

    #[test]
    fn the_clients_tlvs_go_on_but_for_those_that_are_ours_or_not_to_be_sent() {
        let ssl = SslInfo::encode(
            SslInfo::CLIENT_SSL | SslInfo::CLIENT_CERT_CONN,
            0,
            &[
                Tlv::new(Tlv::SSL_VERSION, b"TLSv1.3"),
                Tlv::new(Tlv::SSL_CN, b"device-7"),
                Tlv::new(Tlv::SSL_CLIENT_CERT, &[7; 700]),
            ],
        )
        .unwrap();
        let header = v2_in(&[
            Tlv::new(Tlv::AUTHORITY, b"mqtt.example"),
            Tlv::new(Tlv::ALPN, b"mqtt"),
            Tlv::new(Tlv::UNIQUE_ID, b"theirs"),
            Tlv::new(Tlv::NOOP, b"padding"),
            Tlv::new(Tlv::SSL, &ssl),
            Tlv::new(0xea, b"\x01vpce-1"),
        ]);
        let arrival = arrival(Some(header), "10.0.0.9:4", "10.0.0.1:1883");
        for forward_certificate in [false, true] {
            let options =
                UpstreamOptions { forward_certificate, checksum: true, ..UpstreamOptions::default() };
            let bytes = of_client(&arrival, &options);
            let header = read(&bytes);
            let kinds: Vec<_> = header.tlvs().map(|tlv| tlv.kind).collect();
            let expected = [Tlv::CRC32C, Tlv::UNIQUE_ID, Tlv::SSL, Tlv::AUTHORITY, Tlv::ALPN, 0xea];
            assert_eq!(kinds, expected);
            assert_eq!(header.unique_id(), Some(arrival.session_id.to_string().as_bytes()));
            assert_eq!((header.authority(), header.alpn()), (Some("mqtt.example"), Some(&b"mqtt"[..])));
            let ssl = header.ssl().unwrap();
            assert_eq!((ssl.version(), ssl.cn(), ssl.verified()), (Some("TLSv1.3"), Some("device-7"), true));
            assert_eq!(ssl.client_cert().is_some(), forward_certificate);
            assert!(forward_certificate || bytes.len() <= 500, "what Mosquitto 2.1 takes");
        }
    }

    #[test]
    fn a_name_that_nobody_has_verified_does_not_go_on() {
        for (client, verify, goes_on) in [(0, 0, false), (2, 1, false), (2, 0, true)] {
            let name = [Tlv::new(Tlv::SSL_CN, b"device-7")];
            let ssl = SslInfo::encode(client, verify, &name).unwrap();
            let header = v2_in(&[Tlv::new(Tlv::SSL, &ssl)]);
            let arrival = arrival(Some(header), "10.0.0.9:4", "10.0.0.1:1883");
            let bytes = of_client(&arrival, &UpstreamOptions::default());
            assert_eq!(read(&bytes).ssl().unwrap().cn().is_some(), goes_on, "{client} {verify}");
        }
    }

    #[test]
    fn our_own_handshake_is_told_in_place_of_the_headers() {
        let header = v2_in(&[Tlv::new(Tlv::AUTHORITY, b"outer.example"), Tlv::new(0xea, b"\x01vpce-1")]);
        let mut arrival = arrival(Some(header), "10.0.0.9:4", "10.0.0.1:1883");
        arrival.facts.tls = Some(TlsFacts {
            version: "TLSv1.3".into(),
            cipher: "TLS_AES_128_GCM_SHA256".into(),
            sni: Some("inner.example".into()),
            alpn: Some(b"mqtt".to_vec()),
            certificate: Some(vec![7; 700]),
            common_name: Some("device-7".into()),
            has_more_names: false,
        });
        let bytes = of_client(&arrival, &UpstreamOptions::default());
        let header = read(&bytes);
        let kinds: Vec<_> = header.tlvs().map(|tlv| tlv.kind).collect();
        assert_eq!(kinds, [Tlv::UNIQUE_ID, Tlv::SSL, Tlv::AUTHORITY, Tlv::ALPN, 0xea]);
        assert_eq!(header.authority(), Some("inner.example"));
        let ssl = header.ssl().unwrap();
        assert_eq!(
            (ssl.cn(), ssl.verified(), ssl.cipher()),
            (Some("device-7"), true, Some("TLS_AES_128_GCM_SHA256"))
        );
        assert_eq!(ssl.client_cert(), None);
    }

    #[test]
    fn what_must_not_be_sent_costs_the_other_tlvs_and_not_the_client() {
        let mut arrival = arrival(None, "10.0.0.9:4", "10.0.0.1:1883");
        arrival.facts.tls =
            Some(TlsFacts { version: "TLSv1.3".into(), sni: Some("a\nb".into()), ..TlsFacts::default() });
        let bytes = of_client(&arrival, &UpstreamOptions::default());
        let header = read(&bytes);
        assert_eq!(header.tlvs().map(|tlv| tlv.kind).collect::<Vec<_>>(), [Tlv::UNIQUE_ID]);
        assert_eq!(ends(&header).0, "10.0.0.9:4");
    }
}
