//! Any bytes as the TLVs of a header: each view shows the first TLV of its type, and shows text only if it is
//! valid.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyproto_codec::{Header, SslInfo, Status, Tlv, decode};
use proxyproto_fuzz::{v2_around, with_max};

fuzz_target!(|data: &[u8]| {
    let strict = with_max(65551);
    let lenient = strict.ignore_malformed_tlvs(true);
    let block = [b"\xc0\0\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb", data].concat();
    let proxy = v2_around([0x21, 0x11], 12, &block);
    let local = v2_around([0x20, 0x00], 0, data);
    for (bytes, tlvs_at) in [(&proxy, 28), (&local, 16)] {
        for options in [strict, lenient] {
            let Ok(Status::Complete(header)) = decode(bytes, &options) else { continue };
            let size: usize = header.tlvs().map(|tlv| 3 + tlv.value.len()).sum();
            let whole = tlvs_at + size == bytes.len();
            assert!(whole || options.ignore_malformed_tlvs || (tlvs_at == 16 && size == 0));
            check_views(&header);
        }
    }
});

fn check_views(header: &Header<&[u8]>) {
    let tlvs: Vec<Tlv<'_>> = header.tlvs().collect();
    let first = |kind| tlvs.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value);
    for kind in tlvs.iter().map(|tlv| tlv.kind).take(10) {
        assert_eq!(header.tlv(kind), first(kind));
    }
    assert_eq!(header.alpn(), first(Tlv::ALPN));
    assert_eq!(header.unique_id(), first(Tlv::UNIQUE_ID).filter(|id| id.len() <= 128));
    assert_eq!(header.authority(), first(Tlv::AUTHORITY).and_then(text));
    assert_eq!(header.netns(), first(Tlv::NETNS).and_then(text).filter(|text| text.is_ascii()));

    if let Some(id) = header.aws_vpc_endpoint_id() {
        assert!(tlvs.iter().any(|tlv| tlv.kind == 0xea && tlv.value == [b"\x01", id.as_bytes()].concat()));
    }
    if let Some(id) = header.azure_private_endpoint_link_id() {
        assert!(
            tlvs.iter().any(|tlv| tlv.kind == 0xee && tlv.value == [&[1][..], &id.to_le_bytes()].concat())
        );
    }
    if let Some(id) = header.gcp_psc_connection_id() {
        assert!(tlvs.iter().any(|tlv| tlv.kind == 0xe0 && tlv.value == id.to_be_bytes()));
    }
    match (header.ssl(), first(Tlv::SSL)) {
        (Some(ssl), Some(value)) => check_ssl(&ssl, value),
        (None, _) => {}
        (Some(_), None) => panic!("an SSL view of nothing"),
    }
}

fn check_ssl(ssl: &SslInfo<'_>, value: &[u8]) {
    let nested: Vec<Tlv<'_>> = ssl.tlvs().collect();
    assert_eq!(5 + nested.iter().map(|tlv| 3 + tlv.value.len()).sum::<usize>(), value.len());
    assert_eq!(ssl.verify().to_be_bytes(), value[1..5]);
    let bit = |bit: u8| value[0] & bit != 0;
    assert_eq!((ssl.client_tls(), ssl.client_cert_conn(), ssl.client_cert_sess()), (bit(1), bit(2), bit(4)));
    assert_eq!(ssl.verified(), value[1..5] == [0; 4] && (bit(2) || bit(4)));

    let first = |kind| nested.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value);
    let ascii = |kind| first(kind).and_then(text).filter(|text| text.is_ascii());
    assert_eq!(ssl.cn(), first(Tlv::SSL_CN).and_then(text));
    assert_eq!(ssl.client_cert(), first(Tlv::SSL_CLIENT_CERT));
    assert_eq!(
        [ssl.version(), ssl.cipher(), ssl.sig_alg(), ssl.key_alg(), ssl.group(), ssl.sig_scheme()],
        [0x21, 0x23, 0x24, 0x25, 0x26, 0x27].map(ascii),
    );
}

/// Text that may be shown as it is: valid UTF-8 without control characters.
fn text(value: &[u8]) -> Option<&str> {
    str::from_utf8(value).ok().filter(|text| text.chars().all(|char| !char.is_control()))
}
