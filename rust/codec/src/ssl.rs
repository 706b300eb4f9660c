//! What the proxy knows about the client's TLS: the SSL TLV and its sub-TLVs (R37).

use crate::error::Reason;
use crate::header::Header;
use crate::tlv::{self, Tlv, Tlvs, ascii, text};

/// The SSL TLV of a header.
///
/// A text must be UTF-8 for [`cn`](Self::cn) and US-ASCII elsewhere, without control characters. Any other
/// text is `None` and never repaired; its bytes stay in [`tlvs`](Self::tlvs).
#[derive(Clone, Copy, Debug)]
pub struct SslInfo<'a> {
    client: u8,
    verify: u32,
    sub_tlvs: &'a [u8],
}

impl<B: AsRef<[u8]>> Header<B> {
    /// What the proxy knows about the client's TLS; `None` without an SSL TLV, or with a broken one (C9).
    pub fn ssl(&self) -> Option<SslInfo<'_>> {
        SslInfo::read(self.tlv(Tlv::SSL)?)
    }
}

impl<'a> SslInfo<'a> {
    /// Bit of `client`: the client connected over TLS.
    pub const CLIENT_SSL: u8 = 0x01;
    /// Bit of `client`: the client gave a certificate over this connection.
    pub const CLIENT_CERT_CONN: u8 = 0x02;
    /// Bit of `client`: the client gave a certificate at least once in this TLS session.
    pub const CLIENT_CERT_SESS: u8 = 0x04;

    /// Whether the client connected over TLS.
    #[must_use]
    pub const fn client_tls(&self) -> bool {
        self.client & Self::CLIENT_SSL != 0
    }

    /// Whether the client gave a certificate over this connection.
    #[must_use]
    pub const fn client_cert_conn(&self) -> bool {
        self.client & Self::CLIENT_CERT_CONN != 0
    }

    /// Whether the client gave a certificate at least once in the TLS session.
    #[must_use]
    pub const fn client_cert_sess(&self) -> bool {
        self.client & Self::CLIENT_CERT_SESS != 0
    }

    /// The result of the proxy's verification. 0 means verified only if there was a certificate: see
    /// [`verified`](Self::verified).
    #[must_use]
    pub const fn verify(&self) -> u32 {
        self.verify
    }

    /// Whether the client gave a certificate and the proxy verified it. `verify` alone does not tell: without
    /// a certificate `HAProxy` sends 0 and nginx sends 1.
    #[must_use]
    pub const fn verified(&self) -> bool {
        self.verify == 0 && (self.client_cert_conn() || self.client_cert_sess())
    }

    /// The TLS version, such as `TLSv1.3`.
    #[must_use]
    pub fn version(&self) -> Option<&'a str> {
        self.sub_tlv(Tlv::SSL_VERSION).and_then(ascii)
    }

    /// The common name of the client's certificate.
    #[must_use]
    pub fn cn(&self) -> Option<&'a str> {
        self.sub_tlv(Tlv::SSL_CN).and_then(text)
    }

    /// The cipher, such as `ECDHE-RSA-AES128-GCM-SHA256`.
    #[must_use]
    pub fn cipher(&self) -> Option<&'a str> {
        self.sub_tlv(Tlv::SSL_CIPHER).and_then(ascii)
    }

    /// The algorithm that signed the proxy's certificate, such as `RSA-SHA256`.
    #[must_use]
    pub fn sig_alg(&self) -> Option<&'a str> {
        self.sub_tlv(Tlv::SSL_SIG_ALG).and_then(ascii)
    }

    /// The key algorithm of the proxy's certificate, such as `RSA2048`.
    #[must_use]
    pub fn key_alg(&self) -> Option<&'a str> {
        self.sub_tlv(Tlv::SSL_KEY_ALG).and_then(ascii)
    }

    /// The group of the key exchange, such as `X25519MLKEM768`.
    #[must_use]
    pub fn group(&self) -> Option<&'a str> {
        self.sub_tlv(Tlv::SSL_GROUP).and_then(ascii)
    }

    /// The signature scheme of the handshake, such as `rsa_pss_rsae_sha256`.
    #[must_use]
    pub fn sig_scheme(&self) -> Option<&'a str> {
        self.sub_tlv(Tlv::SSL_SIG_SCHEME).and_then(ascii)
    }

    /// The client's certificate in DER.
    #[must_use]
    pub fn client_cert(&self) -> Option<&'a [u8]> {
        self.sub_tlv(Tlv::SSL_CLIENT_CERT)
    }

    /// The sub-TLVs in wire order, duplicates kept.
    #[must_use]
    pub const fn tlvs(&self) -> Tlvs<'a> {
        Tlvs::new(self.sub_tlvs)
    }

    fn sub_tlv(&self, kind: u8) -> Option<&'a [u8]> {
        self.tlvs().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// Reads the value of an SSL TLV; `None` if it is broken (C9).
    pub(crate) fn read(value: &'a [u8]) -> Option<Self> {
        check(value).ok()?;
        let (&[client, verify @ ..], sub_tlvs) = value.split_first_chunk::<FIXED_LEN>()?;
        Some(Self { client, verify: u32::from_be_bytes(verify), sub_tlvs })
    }
}

/// Checks the value of an SSL TLV: five fixed bytes, then sub-TLVs that fill the rest (C9).
pub(crate) fn check(value: &[u8]) -> Result<(), (Reason, usize)> {
    if value.len() < FIXED_LEN {
        return Err((Reason::SslTooShort, 0));
    }
    let mut at = FIXED_LEN;
    while at < value.len() {
        at = match tlv::read(value, at) {
            Ok((_, next)) => next,
            Err(Reason::TlvTruncated) => return Err((Reason::SslTlvTruncated, at)),
            Err(_) => return Err((Reason::SslTlvOverrun, at)),
        };
    }
    Ok(())
}

/// One byte of client bits and four bytes of the verification's result.
const FIXED_LEN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn value(client: u8, verify: u32, tlvs: &[(u8, &[u8])]) -> Vec<u8> {
        let tlvs: Vec<_> = tlvs.iter().map(|&(kind, value)| Tlv { kind, value }).collect();
        SslInfo::encode(client, verify, &tlvs).unwrap()
    }

    #[test]
    fn r37_verified_needs_a_certificate() {
        // Without a client certificate HAProxy sends the first of them, nginx the last.
        let table = [(0, 0, false), (2, 0, true), (4, 0, true), (6, 0, true), (6, 18, false), (0, 1, false)];
        for (client, verify, verified) in table {
            let value = value(client, verify, &[]);
            let info = SslInfo::read(&value).unwrap();
            assert_eq!((info.verify(), info.verified()), (verify, verified), "{client:02x}");
            assert_eq!(info.client_cert_conn(), client & 2 != 0);
            assert_eq!(info.client_cert_sess(), client & 4 != 0);
            assert!(!info.client_tls());
        }
    }

    #[test]
    fn r37_each_sub_tlv_has_its_view() {
        let kinds = Tlv::SSL_VERSION..=Tlv::SSL_CLIENT_CERT;
        let tlvs: Vec<(u8, &[u8])> = kinds
            .zip([&b"version"[..], b"cn", b"cipher", b"sig_alg", b"key_alg", b"group", b"scheme", b"\xff"])
            .collect();
        let value = value(1, 0, &tlvs);
        let info = SslInfo::read(&value).unwrap();
        let texts = [
            info.version(),
            info.cn(),
            info.cipher(),
            info.sig_alg(),
            info.key_alg(),
            info.group(),
            info.sig_scheme(),
        ];
        assert_eq!(texts, ["version", "cn", "cipher", "sig_alg", "key_alg", "group", "scheme"].map(Some));
        assert_eq!(info.client_cert(), Some(&b"\xff"[..]));
        assert!(info.tlvs().map(|tlv| (tlv.kind, tlv.value)).eq(tlvs));
    }

    #[test]
    fn only_the_common_name_may_be_more_than_ascii() {
        for kind in Tlv::SSL_VERSION..=Tlv::SSL_SIG_SCHEME {
            for (text, utf8) in [(&b"\xc3\xbc"[..], true), (b"\xff", false), (b"\x1b[0m", false)] {
                let len = u8::try_from(text.len()).unwrap();
                let value = [&[0, 0, 0, 0, 0, kind, 0, len], text].concat();
                let info = SslInfo::read(&value).unwrap();
                let texts = [
                    info.version(),
                    info.cipher(),
                    info.sig_alg(),
                    info.key_alg(),
                    info.group(),
                    info.sig_scheme(),
                ];
                assert_eq!(texts, [None; 6], "{kind:02x}");
                assert_eq!(info.cn().is_some(), kind == Tlv::SSL_CN && utf8);
                assert_eq!(info.tlvs().next(), Some(Tlv::new(kind, text)));
            }
        }
    }
}
