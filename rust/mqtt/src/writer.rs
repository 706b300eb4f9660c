//! Writes fields and packets.

use alloc::vec::Vec;

use crate::{EncodeError, Field};

/// Adds binary data or a string, with its length of two bytes in front.
pub(crate) fn push_binary(packet: &mut Vec<u8>, data: &[u8], field: Field) -> Result<(), EncodeError> {
    let len = data.len();
    let length = u16::try_from(len).map_err(|_| EncodeError::TooLong { field, len })?;
    packet.extend(length.to_be_bytes());
    packet.extend(data);
    Ok(())
}

/// Adds a length of one to four bytes (MQTT 3.1.1, section 2.2.3; MQTT 5, section 1.5.5).
pub(crate) fn push_length(packet: &mut Vec<u8>, len: usize) -> Result<(), EncodeError> {
    let Some(mut rest) = u32::try_from(len).ok().filter(|len| *len <= MAX_LENGTH) else {
        return Err(EncodeError::PacketTooLong { len });
    };
    loop {
        let [digit, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            packet.push(digit);
            return Ok(());
        }
        packet.push(digit | 0x80);
    }
}

/// Puts the fixed header in front of a body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut packet = Vec::with_capacity(5 + body.len());
    packet.push(first);
    push_length(&mut packet, body.len())?;
    packet.extend(body);
    Ok(packet)
}

const MAX_LENGTH: u32 = 0x0fff_ffff;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed_header::Length;

    #[test]
    fn a_length_is_read_as_it_was_written() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
            let mut bytes = Vec::new();
            push_length(&mut bytes, len).unwrap();
            let read = Length::read(&bytes, true).unwrap().unwrap();
            assert_eq!((read.value as usize, usize::from(read.bytes)), (len, bytes.len()));
        }
        let error = push_length(&mut Vec::new(), 268_435_456).unwrap_err();
        assert_eq!(error.to_string(), "a packet of 268435456 bytes, where at most 268435455 fit");
    }

    #[test]
    fn data_that_does_not_fit_is_refused() {
        let error = push_binary(&mut Vec::new(), &vec![0; 65536], Field::Password).unwrap_err();
        assert_eq!(error.to_string(), "the password has 65536 bytes, where at most 65535 fit");
    }
}
