//! The codec and the independent reader agree about any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyproto_codec::{Status, decode};
use proxyproto_fuzz::independent_reader::{self, Reading, Refusal};
use proxyproto_fuzz::{reading, v2_around, with_max};

fuzz_target!(|data: &[u8]| {
    compare(data);
    // The same block behind a right length and with a right checksum.
    if let [command_and_family @ .., _, _] = data.get(12..16).unwrap_or_default()
        && let Ok(command_and_family) = <[u8; 2]>::try_from(command_and_family)
    {
        for addresses in [0, 12, 36, 216] {
            compare(&v2_around(command_and_family, addresses, &data[16..]));
        }
    }
});

fn compare(data: &[u8]) {
    for max_header_size in [4096, 65551] {
        let codec = match decode(data, &with_max(max_header_size)) {
            Ok(Status::Complete(header)) => Ok(reading(&header)),
            Ok(Status::Partial { .. }) => Err(Refusal::Incomplete),
            Err(_) => Err(Refusal::Invalid),
        };
        let independent = independent_reader::read(data, max_header_size);
        assert!(codec == independent, "{}", difference(&codec, &independent));
    }
}

/// The beginnings of both readings. The input itself is in the artifact.
fn difference(codec: &Result<Reading, Refusal>, independent: &Result<Reading, Refusal>) -> String {
    format!("codec {:.300}\nindependent reader {:.300}", format!("{codec:?}"), format!("{independent:?}"))
}
