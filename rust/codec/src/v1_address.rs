//! The text of addresses and ports in a version 1 line, read more strictly than the standard library does
//! (R11-R14, C6).
//!
//! Each reader takes the bytes from the start of its field to the end of the line. It stops at the space that ends the
//! field and returns the length of the field, or the flaw and where in the field it is.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::Reason;

/// What is wrong with a field, and at which of its bytes.
pub(crate) type Flaw = (Reason, usize);

/// Four decimals of 0 to 255 without leading zeros (R11).
pub(crate) fn ipv4(text: &[u8]) -> Result<(Ipv4Addr, usize), Flaw> {
    let mut octets = [0; 4];
    let mut at = 0;
    for (index, octet) in octets.iter_mut().enumerate() {
        if index > 0 {
            match byte(text, at) {
                Some(b'.') => at += 1,
                other => return Err((ipv4_flaw(other), at)),
            }
        }
        let (value, digits) = decimal::<3>(text, at);
        if digits == 0 {
            return Err((ipv4_flaw(byte(text, at)), at));
        }
        if digits > 1 && byte(text, at) == Some(b'0') {
            return Err((Reason::Ipv4LeadingZero, at));
        }
        *octet = u8::try_from(value).map_err(|_| (Reason::Ipv4OctetTooLarge, at))?;
        at += digits;
        if digits == 3 && is_digit(byte(text, at)) {
            return Err((Reason::Ipv4OctetTooLarge, at - digits));
        }
    }
    match byte(text, at) {
        None | Some(b' ') => Ok((Ipv4Addr::from(octets), at)),
        other => Err((ipv4_flaw(other), at)),
    }
}

/// Why this byte cannot stand where an IPv4 address needs another one, or its end.
fn ipv4_flaw(byte: Option<u8>) -> Reason {
    match byte {
        None | Some(b' ' | b'.' | b'0'..=b'9') => Reason::Ipv4NotFourOctets,
        Some(_) => Reason::Ipv4BadCharacter,
    }
}

/// Groups of up to four hex digits, at most one `::`, 128 bits in all (R12); the last 32 may be dotted (C6).
pub(crate) fn ipv6(text: &[u8]) -> Result<(Ipv6Addr, usize), Flaw> {
    let mut bits: u128 = 0;
    let mut groups = 0_u32;
    // How many groups stand in front of `::`.
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
                bits = bits << 32 | u128::from(tail.to_bits());
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
            // Of all colons, only `::` may stand at the end.
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
        return if groups == 8 {
            Ok((Ipv6Addr::from_bits(bits), at))
        } else {
            Err((Reason::Ipv6NotEightGroups, at))
        };
    };
    if groups > 7 {
        return Err((Reason::Ipv6NotEightGroups, at));
    }
    let tail_bits = 16 * (groups - head);
    let tail = bits & ((1 << tail_bits) - 1);
    // With nothing in front of `::` there is nothing to shift, and the shift would be by all 128 bits.
    let head = (bits >> tail_bits).checked_shl(128 - 16 * head).unwrap_or(0);
    Ok((Ipv6Addr::from_bits(head | tail), at))
}

/// A decimal of 0 to 65535 without leading zeros (R14).
pub(crate) fn port(text: &[u8]) -> Result<(u16, usize), Flaw> {
    let (value, digits) = decimal::<5>(text, 0);
    match byte(text, digits) {
        None | Some(b' ') if digits > 0 => {}
        Some(b'0'..=b'9') if byte(text, 0) != Some(b'0') => return Err((Reason::PortTooLarge, 0)),
        Some(b'0'..=b'9') => return Err((Reason::PortLeadingZero, 0)),
        _ => return Err((Reason::PortNotDecimal, digits)),
    }
    if digits > 1 && byte(text, 0) == Some(b'0') {
        return Err((Reason::PortLeadingZero, 0));
    }
    u16::try_from(value).map(|port| (port, digits)).map_err(|_| (Reason::PortTooLarge, 0))
}

/// Up to `MAX` decimal digits from `at` on: their value and their number.
fn decimal<const MAX: usize>(text: &[u8], at: usize) -> (u32, usize) {
    let mut value = 0;
    let mut digits = 0;
    while digits < MAX
        && let Some(digit @ b'0'..=b'9') = byte(text, at + digits)
    {
        value = value * 10 + u32::from(digit - b'0');
        digits += 1;
    }
    (value, digits)
}

/// Up to four hex digits from `at` on: their value and their number.
fn hexadecimal(text: &[u8], at: usize) -> (u16, usize) {
    let mut value = 0;
    let mut digits = 0;
    while digits < 4
        && let Some(byte) = byte(text, at + digits)
        && let Some(digit) = char::from(byte).to_digit(16)
    {
        #[expect(clippy::cast_possible_truncation, reason = "a digit is less than 16")]
        let digit = digit as u16;
        value = value << 4 | digit;
        digits += 1;
    }
    (value, digits)
}

fn byte(text: &[u8], at: usize) -> Option<u8> {
    text.get(at).copied()
}

fn is_digit(byte: Option<u8>) -> bool {
    matches!(byte, Some(b'0'..=b'9'))
}
