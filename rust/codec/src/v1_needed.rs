//! How many bytes an unfinished version 1 line still needs: the shortest completion that the grammar allows.
//!
//! A reader that waits for this many bytes never waits for bytes that a valid header would not bring. Text that
//! breaks the grammar is judged when the CRLF is there (R16). Until then the number for it has no meaning, but is
//! at least 1. So a reader that is to see a wrong line at once looks at each piece.

use crate::header::Family;

/// How many bytes the fields of a TCP4 or TCP6 line still need, with the CRLF. `text` is the part that is
/// there.
///
/// With `mixed`, each address may be of either family, whatever the line announces.
pub(crate) fn fields(text: &[u8], family: Family, mixed: bool) -> usize {
    if text.ends_with(b"\r") {
        return 1;
    }
    let shortest = |index| match index {
        0 | 1 => address(b"", family, mixed),
        _ => 1,
    };
    let mut last = (0, text);
    for field in text.split(|&byte| byte == b' ').enumerate() {
        last = field;
    }
    let (index, field) = last;
    let this = match index {
        0 | 1 => address(field, family, mixed),
        _ => usize::from(field.is_empty()),
    };
    let others: usize = (index + 1..4).map(|index| 1 + shortest(index)).sum();
    this + others + CRLF
}

/// How many bytes an UNKNOWN line still needs: its CRLF, or what is missing of it. Its text is ignored.
pub(crate) fn unknown(text: &[u8]) -> usize {
    if text.ends_with(b"\r") { 1 } else { CRLF }
}

fn address(text: &[u8], family: Family, mixed: bool) -> usize {
    let by_colon = text.contains(&b':') || !text.contains(&b'.');
    if if mixed { by_colon } else { family == Family::Inet6 } { ipv6(text) } else { ipv4(text) }
}

/// Each missing number needs a dot and a digit.
fn ipv4(text: &[u8]) -> usize {
    let numbers = text.split(|&byte| byte == b'.').count();
    2 * 4_usize.saturating_sub(numbers) + usize::from(matches!(text.last(), None | Some(b'.')))
}

/// `::` can stand for all missing groups.
fn ipv6(text: &[u8]) -> usize {
    if text.contains(&b'.') {
        return ipv4(text.rsplit(|&byte| byte == b':').next().unwrap_or_default());
    }
    let groups = text.split(|&byte| byte == b':').count();
    let shortened = text.windows(2).any(|pair| pair == b"::");
    match text {
        [.., b':', b':'] => 0,
        [.., b':'] => 1,
        _ if shortened || groups >= 8 => 0,
        _ => 2,
    }
}

const CRLF: usize = 2;
