//! Judges the first bytes of a connection by how it should begin. Bytes in, verdict out: no socket, no clock.

use proxyproto_codec::{Fault, FirstBytes, Header, Status, decode};

use crate::cause::Cause;
use crate::trust::Approach;

/// What to do with a connection.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Serve it. If it has a header, the header is to be consumed first.
    Serve(Option<Header>),
    /// Wait: at least `needed` bytes are missing. The next look can decide when `low_water` bytes are there in all; 1 stands
    /// for any further byte.
    Wait { needed: usize, low_water: usize },
    /// Close it.
    Refuse(Cause),
}

/// Judges `bytes`, all that a connection has sent so far. `closed`: no more will come.
pub(crate) fn judge(
    approach: Approach,
    bytes: &[u8],
    closed: bool,
    options: proxyproto_codec::Options,
) -> Verdict {
    match approach {
        Approach::Direct => Verdict::Serve(None),
        Approach::Refuse => Verdict::Refuse(Cause::RefusedByPolicy),
        Approach::NoHeader => judge_headerless(bytes),
        Approach::PerhapsHeader if bytes.first().is_some_and(|byte| !opens_header(*byte)) => {
            Verdict::Serve(None)
        }
        Approach::Header | Approach::PerhapsHeader => judge_header(approach, bytes, closed, options),
    }
}

fn judge_header(
    approach: Approach,
    bytes: &[u8],
    closed: bool,
    options: proxyproto_codec::Options,
) -> Verdict {
    match decode(bytes, &options) {
        Ok(Status::Complete(header)) => Verdict::Serve(Some(header.to_owned())),
        // R30: a connection that ends inside its header is rejected.
        Ok(Status::Partial { needed }) if closed => {
            Verdict::Refuse(Cause::ClosedEarly { seen: bytes.len(), needed })
        }
        Ok(Status::Partial { needed }) => {
            let low_water = if is_length_known(bytes) { bytes.len() + needed } else { 1 };
            Verdict::Wait { needed, low_water }
        }
        // `PUBLISH` and `POST` open with a P too.
        Err(error) if error.fault() == Fault::NoHeader && approach == Approach::PerhapsHeader => {
            Verdict::Serve(None)
        }
        Err(error) if error.fault() == Fault::NoHeader => {
            Verdict::Refuse(Cause::MissingHeader(FirstBytes::of(bytes)))
        }
        Err(error) => Verdict::Refuse(Cause::Invalid(error)),
    }
}

/// Judges a connection on a port without headers: its first bytes must not look like a header.
fn judge_headerless(bytes: &[u8]) -> Verdict {
    match FirstBytes::of(bytes) {
        first_bytes @ (FirstBytes::ProxyV1 | FirstBytes::ProxyV2) => {
            Verdict::Refuse(Cause::UnexpectedHeader(first_bytes))
        }
        _ => Verdict::Serve(None),
    }
}

/// Whether a signature can begin with this byte: `PROXY ` or CR LF CR LF...
fn opens_header(byte: u8) -> bool {
    matches!(byte, b'P' | b'\r')
}

/// Whether this beginning of a header says how long the header is, as the 16 fixed bytes of version 2 do. All bytes behind
/// them are judged together, at the end (R30). Before them each byte can be wrong, and a wrong header may be shorter than any
/// right one.
fn is_length_known(bytes: &[u8]) -> bool {
    bytes.len() >= 16 && bytes.first() == Some(&b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 1883\r\n";
    const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    const MQTT_CONNECT: &[u8] = b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";

    /// The verdict in one word, for tables.
    fn word(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Serve(Some(header)) => format!("header of {}", header.raw().len()),
            Verdict::Serve(None) => "serve".into(),
            Verdict::Wait { .. } => "wait".into(),
            Verdict::Refuse(cause) => cause.outcome().name().into(),
        }
    }

    #[test]
    fn what_first_bytes_mean() {
        use Approach::{Direct, Header, NoHeader, PerhapsHeader};
        let cases: &[(Approach, &[u8], bool, &str)] = &[
            (Header, V1, false, "header of 46"),
            (Header, V2_LOCAL, true, "header of 16"),
            (Header, b"", false, "wait"),
            (Header, b"", true, "closed-early"),
            (Header, b"P", false, "wait"),
            (Header, b"PROXY TCP4 1", true, "closed-early"),
            (Header, b"PROXY TCP5", false, "malformed"),
            (Header, MQTT_CONNECT, false, "missing-header"),
            (Header, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", false, "oversized"),
            (PerhapsHeader, V1, false, "header of 46"),
            (PerhapsHeader, b"", false, "wait"),
            (PerhapsHeader, b"\r", false, "wait"),
            (PerhapsHeader, b"P", false, "wait"),
            (PerhapsHeader, b"PO", false, "serve"),
            (PerhapsHeader, b"\r\n\r\r", false, "serve"),
            (PerhapsHeader, b"\x10", false, "serve"),
            (PerhapsHeader, b"\x16", false, "serve"),
            (PerhapsHeader, b"G", false, "serve"),
            (PerhapsHeader, b"PROXY TCP5", false, "malformed"),
            (NoHeader, b"", false, "serve"),
            (NoHeader, MQTT_CONNECT, false, "serve"),
            (NoHeader, V1, false, "unexpected-header"),
            (NoHeader, V2_LOCAL, false, "unexpected-header"),
            (Direct, V1, false, "serve"),
        ];
        for (approach, bytes, closed, expected) in cases {
            let verdict = judge(*approach, bytes, *closed, proxyproto_codec::Options::default());
            assert_eq!(word(&verdict), *expected, "{approach:?} {}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_piece_is_looked_at_unless_it_cannot_matter() {
        let cases: &[(&[u8], usize, usize)] = &[
            (b"", 15, 1),
            (b"P", 14, 1),
            (b"PROXY TCP4 ", 21, 1),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\x01", 1, 1),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x05", 5, 21),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf0\xc0", 4079, 4096),
        ];
        for (bytes, missing, shown_with) in cases {
            let verdict = judge(Approach::Header, bytes, false, proxyproto_codec::Options::default());
            let Verdict::Wait { needed, low_water } = verdict else { panic!("{verdict:?}") };
            assert_eq!((needed, low_water), (*missing, *shown_with), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_refusal_says_what_the_bytes_look_like() {
        let verdict = judge(Approach::Header, MQTT_CONNECT, false, proxyproto_codec::Options::default());
        let Verdict::Refuse(cause) = verdict else { panic!("{verdict:?}") };
        assert_eq!(cause, Cause::MissingHeader(FirstBytes::MqttConnect));
        let verdict = judge(Approach::Header, b"PROXY TCP4", true, proxyproto_codec::Options::default());
        let Verdict::Refuse(Cause::ClosedEarly { seen: 10, needed: 1.. }) = verdict else {
            panic!("{verdict:?}")
        };
    }
}
