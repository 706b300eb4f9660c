//! The text of addresses and ports in a version 1 line (R11-R14, C6).
//!
//! The parsers of the standard library do not say what is wrong and where. Their ports may have a plus sign
//! and leading zeros. Each function here takes the bytes from the start of its field to the end of the line
//! and stops at the space behind the field. It returns the value and the length of the field, or the flaw and
//! its place in the field.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::Reason;

/// The value and the length of a field; or what is wrong with it, and at which of its bytes.
pub(crate) type Field<T> = Result<(T, usize), (Reason, usize)>;

/// The address of a TCP4 line. An IPv6 address is a `FamilyMismatch` (R13), whatever its first wrong byte is.
pub(crate) fn inet(text: &[u8]) -> Field<IpAddr> {
    match ipv4(text) {
        Ok((bits, len)) => Ok((IpAddr::V4(Ipv4Addr::from_bits(bits)), len)),
        Err(_) if ipv6(text).is_ok() => Err((Reason::FamilyMismatch, 0)),
        Err(flaw) => Err(flaw),
    }
}

/// The address of a TCP6 line. An IPv4 address is a `FamilyMismatch` (R13).
pub(crate) fn inet6(text: &[u8]) -> Field<IpAddr> {
    match ipv6(text) {
        Ok((bits, len)) => Ok((IpAddr::V6(Ipv6Addr::from_bits(bits)), len)),
        Err(_) if ipv4(text).is_ok() => Err((Reason::FamilyMismatch, 0)),
        Err(flaw) => Err(flaw),
    }
}

/// An address of either family. Text with a colon is read as IPv6.
pub(crate) fn either(text: &[u8]) -> Field<IpAddr> {
    let field = text.split(|&byte| byte == b' ').next().unwrap_or_default();
    if field.contains(&b':') { inet6(text) } else { inet(text) }
}

/// Four decimals from 0 to 255 without leading zeros (R11).
fn ipv4(text: &[u8]) -> Field<u32> {
    let mut bits = 0;
    let mut at = 0;
    for index in 0..4 {
        if index > 0 {
            match byte(text, at) {
                Some(b'.') => at += 1,
                other => return Err((ipv4_flaw(other), at)),
            }
        }
        let (value, digits) = number(text.get(at..).unwrap_or_default());
        if digits == 0 {
            return Err((ipv4_flaw(byte(text, at)), at));
        }
        if digits > 1 && byte(text, at) == Some(b'0') {
            return Err((Reason::Ipv4LeadingZero, at));
        }
        let octet = u8::try_from(value).map_err(|_| (Reason::Ipv4OctetTooLarge, at))?;
        bits = bits << 8 | u32::from(octet);
        at += digits;
    }
    match byte(text, at) {
        None | Some(b' ') => Ok((bits, at)),
        other => Err((ipv4_flaw(other), at)),
    }
}

/// Why this byte cannot stand where an IPv4 address needs another number, a dot or its end.
fn ipv4_flaw(byte: Option<u8>) -> Reason {
    match byte {
        None | Some(b' ' | b'.') => Reason::Ipv4NotFourOctets,
        Some(_) => Reason::Ipv4BadCharacter,
    }
}

/// Groups of up to four hex digits, at most one `::`, 128 bits in all (R12). The last 32 bits may be dotted
/// (C6).
fn ipv6(text: &[u8]) -> Field<u128> {
    let mut bits: u128 = 0;
    let mut groups = 0_u32;
    // The number of groups in front of `::`.
    let mut gap = None;
    let mut at = 0;
    if byte(text, 0) == Some(b':') {
        if byte(text, 1) != Some(b':') {
            return Err((Reason::Ipv6EmptyGroup, 0));
        }
        gap = Some(0);
        at = 2;
    }
    loop {
        let start = at;
        let (group, digits) = hexadecimal(text, at);
        at += digits;
        match byte(text, at) {
            Some(b'.') if digits > 0 => {
                let rest = text.get(start..).unwrap_or_default();
                let (tail, len) = ipv4(rest).map_err(|(reason, offset)| (reason, start + offset))?;
                bits = bits << 32 | u128::from(tail);
                groups += 2;
                at = start + len;
                break;
            }
            end @ (None | Some(b' ' | b':')) if digits > 0 => {
                bits = bits << 16 | u128::from(group);
                groups += 1;
                if end != Some(b':') {
                    break;
                }
            }
            // A colon may stand at the end only as part of `::`.
            None | Some(b' ') if gap == Some(groups) => break,
            None | Some(b' ' | b':') => return Err((Reason::Ipv6EmptyGroup, at)),
            Some(digit) if digits == 4 && digit.is_ascii_hexdigit() => {
                return Err((Reason::Ipv6GroupTooLong, start));
            }
            Some(_) => return Err((Reason::Ipv6BadCharacter, at)),
        }
        if groups == 8 {
            return Err((Reason::Ipv6NotEightGroups, at));
        }
        at += 1;
        if byte(text, at) == Some(b':') {
            if gap.is_some() {
                return Err((Reason::Ipv6SecondDoubleColon, at - 1));
            }
            gap = Some(groups);
            at += 1;
        }
    }
    let Some(head) = gap else {
        return if groups == 8 { Ok((bits, at)) } else { Err((Reason::Ipv6NotEightGroups, at)) };
    };
    if groups > 7 {
        return Err((Reason::Ipv6NotEightGroups, at));
    }
    let tail_bits = 16 * (groups - head);
    let tail = bits & ((1 << tail_bits) - 1);
    // With no group in front of `::` the shift would be by all 128 bits; the result is 0.
    let head = (bits >> tail_bits).checked_shl(128 - 16 * head).unwrap_or(0);
    Ok((head | tail, at))
}

/// A decimal from 0 to 65535 without leading zeros (R14).
pub(crate) fn port(text: &[u8]) -> Field<u16> {
    let mut value = 0_u32;
    let mut digits = 0;
    while digits < 6
        && let Some(digit @ b'0'..=b'9') = byte(text, digits)
    {
        value = 10 * value + u32::from(digit - b'0');
        digits += 1;
    }
    match byte(text, digits) {
        _ if digits > 1 && byte(text, 0) == Some(b'0') => Err((Reason::PortLeadingZero, 0)),
        None | Some(b' ' | b'0'..=b'9') if digits > 0 => {
            u16::try_from(value).map(|port| (port, digits)).map_err(|_| (Reason::PortTooLarge, 0))
        }
        _ => Err((Reason::PortNotDecimal, digits)),
    }
}

/// A decimal of up to three digits, and its length. A number of four digits is too large for an octet,
/// whatever its value.
fn number(text: &[u8]) -> (u16, usize) {
    let digit = |byte: u8| u16::from(byte - b'0');
    match *text {
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', ..] => (u16::MAX, 4),
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
            (100 * digit(a) + 10 * digit(b) + digit(c), 3)
        }
        [a @ b'0'..=b'9', b @ b'0'..=b'9', ..] => (10 * digit(a) + digit(b), 2),
        [a @ b'0'..=b'9', ..] => (digit(a), 1),
        _ => (0, 0),
    }
}

/// Up to four hex digits from `at` on: their value and how many there are.
fn hexadecimal(text: &[u8], at: usize) -> (u16, usize) {
    let mut value = 0;
    let mut digits = 0;
    while digits < 4
        && let Some(byte) = byte(text, at + digits)
        && let Some(&digit @ 0..16) = HEX_DIGITS.get(usize::from(byte))
    {
        value = value << 4 | u16::from(digit);
        digits += 1;
    }
    (value, digits)
}

/// The value of each byte that is a hex digit. All other bytes have 16.
#[expect(clippy::indexing_slicing, reason = "the compiler runs it")]
static HEX_DIGITS: [u8; 256] = {
    let mut values = [16; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        values[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

fn byte(text: &[u8], at: usize) -> Option<u8> {
    text.get(at).copied()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Reads `text` by itself, and with more of the line behind it as decoding does. Both must give the same.
    fn read<T: PartialEq + std::fmt::Debug>(
        reader: fn(&[u8]) -> Field<T>,
        text: &str,
    ) -> Result<T, (Reason, usize)> {
        let alone = reader(text.as_bytes());
        assert_eq!(alone, reader(format!("{text} 7").as_bytes()), "{text}");
        if let Ok((_, len)) = alone {
            assert_eq!(len, text.len(), "{text}");
        }
        alone.map(|(value, _)| value)
    }

    #[test]
    fn r11_each_octet_from_0_to_999_with_and_without_leading_zeros() {
        for value in 0..=999_u32 {
            for text in
                [value.to_string(), format!("{value:02}"), format!("{value:03}"), format!("{value:04}")]
            {
                for (at, address) in [(0, format!("{text}.2.3.4")), (6, format!("1.2.3.{text}"))] {
                    let expected = if text != value.to_string() {
                        Err((Reason::Ipv4LeadingZero, at))
                    } else if value > 255 {
                        Err((Reason::Ipv4OctetTooLarge, at))
                    } else {
                        Ok(IpAddr::V4(address.parse::<Ipv4Addr>().unwrap()))
                    };
                    assert_eq!(read(inet, &address), expected, "{address}");
                }
            }
        }
    }

    #[test]
    fn r14_each_port_and_no_other_decimal() {
        for value in 0..=99_999_u32 {
            let expected = u16::try_from(value).map_err(|_| (Reason::PortTooLarge, 0));
            assert_eq!(read(port, &value.to_string()), expected);
            let padded = format!("0{value}");
            assert_eq!(read(port, &padded), Err((Reason::PortLeadingZero, 0)), "{padded}");
        }
    }

    #[test]
    fn r14_what_else_is_not_a_port() {
        let table = [
            ("", Reason::PortNotDecimal, 0),
            ("+80", Reason::PortNotDecimal, 0),
            ("-0", Reason::PortNotDecimal, 0),
            ("8_0", Reason::PortNotDecimal, 1),
            ("0x50", Reason::PortNotDecimal, 1),
            ("80.0", Reason::PortNotDecimal, 2),
            ("80\t", Reason::PortNotDecimal, 2),
            ("８", Reason::PortNotDecimal, 0),
            ("00", Reason::PortLeadingZero, 0),
            ("100000", Reason::PortTooLarge, 0),
            ("4294967376", Reason::PortTooLarge, 0),
            ("99999999999999999999999999999999999", Reason::PortTooLarge, 0),
        ];
        for (text, reason, offset) in table {
            assert_eq!(read(port, text), Err((reason, offset)), "{text:?}");
        }
    }

    #[test]
    fn r11_what_else_is_not_an_ipv4_address() {
        let table = [
            ("", Reason::Ipv4NotFourOctets, 0),
            ("1", Reason::Ipv4NotFourOctets, 1),
            ("1.2.3", Reason::Ipv4NotFourOctets, 5),
            ("1.2.3.", Reason::Ipv4NotFourOctets, 6),
            ("1.2.3.4.", Reason::Ipv4NotFourOctets, 7),
            ("1.2.3.4.5", Reason::Ipv4NotFourOctets, 7),
            ("1..3.4", Reason::Ipv4NotFourOctets, 2),
            (".1.2.3", Reason::Ipv4NotFourOctets, 0),
            ("1000.2.3.4", Reason::Ipv4OctetTooLarge, 0),
            ("2550.2.3.4", Reason::Ipv4OctetTooLarge, 0),
            ("0x1.2.3.4", Reason::Ipv4BadCharacter, 1),
            ("-1.2.3.4", Reason::Ipv4BadCharacter, 0),
            ("1.2.3.4:80", Reason::Ipv4BadCharacter, 7),
            ("1,2,3,4", Reason::Ipv4BadCharacter, 1),
            ("::1", Reason::FamilyMismatch, 0),
            ("::ffff:1.2.3.4", Reason::FamilyMismatch, 0),
        ];
        for (text, reason, offset) in table {
            assert_eq!(read(inet, text), Err((reason, offset)), "{text:?}");
        }
    }

    #[test]
    fn r12_every_place_and_length_of_the_double_colon() {
        for before in 0..=8 {
            for behind in 0..=8 {
                let groups = |from: usize, count: usize| {
                    (from..from + count).map(|group| format!("a{group}")).collect::<Vec<_>>().join(":")
                };
                let text = format!("{}::{}", groups(1, before), groups(9, behind));
                let expected = text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
                assert_eq!(expected.is_some(), before + behind <= 7, "{text}");
                assert_eq!(read(inet6, &text).ok(), expected, "{text}");
            }
        }
    }

    #[test]
    fn r12_what_is_an_ipv6_address_and_what_is_not() {
        for text in
            ["::", "1::", "::1", "1:2:3:4:5:6:7:8", "FFFF:ffff::0001", "::1.2.3.4", "1:2:3:4:5:6:1.2.3.4"]
        {
            let address = IpAddr::V6(text.parse().unwrap());
            assert_eq!(read(inet6, text), Ok(address), "{text}");
        }
        let table = [
            ("", Reason::Ipv6EmptyGroup, 0),
            (":", Reason::Ipv6EmptyGroup, 0),
            (":1", Reason::Ipv6EmptyGroup, 0),
            ("1:", Reason::Ipv6EmptyGroup, 2),
            ("1::2:", Reason::Ipv6EmptyGroup, 5),
            (":::", Reason::Ipv6EmptyGroup, 2),
            ("1:::2", Reason::Ipv6EmptyGroup, 3),
            ("1::2::3", Reason::Ipv6SecondDoubleColon, 4),
            ("1:2:3:4:5:6:7", Reason::Ipv6NotEightGroups, 13),
            ("1:2:3:4:5:6:7:8:9", Reason::Ipv6NotEightGroups, 15),
            ("1:2:3:4::5:6:7:8", Reason::Ipv6NotEightGroups, 16),
            ("1:2:3:4:5:6:7:1.2.3.4", Reason::Ipv6NotEightGroups, 21),
            ("12345::", Reason::Ipv6GroupTooLong, 0),
            ("::00001", Reason::Ipv6GroupTooLong, 2),
            ("::g", Reason::Ipv6BadCharacter, 2),
            ("[::1]", Reason::Ipv6BadCharacter, 0),
            ("fe80::1%eth0", Reason::Ipv6BadCharacter, 7),
            ("::1/64", Reason::Ipv6BadCharacter, 3),
            ("::.1.2.3", Reason::Ipv6BadCharacter, 2),
            ("::1.2.3.256", Reason::Ipv4OctetTooLarge, 8),
            ("::1.2.3.04", Reason::Ipv4LeadingZero, 8),
            ("::1.2.3.4:5", Reason::Ipv4BadCharacter, 9),
            ("1.2.3.4", Reason::FamilyMismatch, 0),
        ];
        for (text, reason, offset) in table {
            assert_eq!(read(inet6, text), Err((reason, offset)), "{text:?}");
        }
    }

    #[test]
    fn c6_a_mapped_address_stays_one_of_ipv6() {
        let address = IpAddr::V6("::ffff:1.2.3.4".parse().unwrap());
        assert_eq!(read(inet6, "::ffff:1.2.3.4"), Ok(address));
        assert_eq!(read(inet6, "::ffff:102:304"), Ok(address));
    }
}
