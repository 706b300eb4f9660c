//! The common names in the subject of a certificate.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The common names, in their order. One that is not text of a known kind is left out.
///
/// The certificate has been verified, so an authority has vouched for its names.
pub(super) fn common_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    // What webpki gives is the content of the RDNSequence. It holds sets, and these hold pairs of a type and a value.
    let attributes =
        Values(certificate.subject()).filter(|set| set.tag == SET).flat_map(|set| Values(set.content));
    attributes
        .filter(|pair| pair.tag == SEQUENCE)
        .filter_map(|pair| {
            let mut parts = Values(pair.content);
            let (kind, value) = (parts.next()?, parts.next()?);
            if kind.tag == OBJECT_IDENTIFIER && kind.content == COMMON_NAME { text(&value) } else { None }
        })
        .collect()
}

fn text(value: &Value<'_>) -> Option<String> {
    match value.tag {
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING => String::from_utf8(value.content.into()).ok(),
        // OpenSSL reads it as Latin-1, and so does everybody else.
        TELETEX_STRING => Some(value.content.iter().map(|byte| char::from(*byte)).collect()),
        BMP_STRING => {
            let (pairs, rest) = value.content.as_chunks();
            let units: Vec<_> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            if rest.is_empty() { String::from_utf16(&units).ok() } else { None }
        }
        _ => None,
    }
}

/// The values of DER, one behind the other. It ends before what is not whole.
struct Values<'a>(&'a [u8]);

struct Value<'a> {
    tag: u8,
    content: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
            0x82 => {
                rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest))?
            }
            // No name is so long.
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Value { tag, content })
    }
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const BMP_STRING: u8 = 0x1e;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;

    fn names_in(values: &[(DnType, DnValue)]) -> Vec<String> {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in values {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        common_names(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn each_kind_of_text_is_read() {
        let long = "x".repeat(300);
        let table = [
            (DnValue::Utf8String("Gerät-7".into()), "Gerät-7"),
            (DnValue::PrintableString("dev 7".try_into().unwrap()), "dev 7"),
            (DnValue::Ia5String("dev@7".try_into().unwrap()), "dev@7"),
            (DnValue::TeletexString("dev-7".try_into().unwrap()), "dev-7"),
            (DnValue::BmpString("Gerät".try_into().unwrap()), "Gerät"),
            (DnValue::Utf8String(long.clone()), &long),
            (DnValue::Utf8String(String::new()), ""),
        ];
        for (value, name) in table {
            let organization = (DnType::OrganizationName, DnValue::Utf8String("o".into()));
            assert_eq!(names_in(&[organization, (DnType::CommonName, value)]), [name]);
        }
        assert!(names_in(&[]).is_empty());
    }

    #[test]
    fn a_value_that_is_not_whole_ends_them() {
        let whole = b"\x0c\x02ab";
        for end in 0..whole.len() {
            assert!(Values(&whole[..end]).next().is_none(), "{end}");
        }
        assert!(Values(b"\x0c\x84\x00\x00\x00\x01a").next().is_none());
        assert_eq!(Values(whole).map(|value| value.content.len()).sum::<usize>(), 2);
    }
}
