//! Any bytes at once: the verdict of `decode` holds for longer and shorter pieces of the same stream too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyproto_codec::{FirstBytes, Options, Reason, Status, decode, decode_datagram};
use proxyproto_fuzz::all_options;

fuzz_target!(|data: &[u8]| {
    let _ = FirstBytes::of(data).to_string();
    for options in all_options() {
        check(data, &options);
    }
});

fn check(data: &[u8], options: &Options) {
    let followed = [data, b"\r\n\0\x03\0\x04payload"].concat();
    match decode(data, options) {
        Ok(Status::Complete(header)) => {
            let len = header.raw().len();
            assert_eq!(header.raw(), &data[..len]);
            assert!(len <= options.max_header_size.get() && len >= 15);
            let _ = format!("{header:?}");
            // The bytes behind the header never influence it, and no shorter piece is a header.
            assert_eq!(decode(&data[..len], options), Ok(Status::Complete(header)));
            assert_eq!(decode(&followed, options), Ok(Status::Complete(header)));
            for have in [0, len / 2, len - 1] {
                let Ok(Status::Partial { needed }) = decode(&data[..have], options) else {
                    panic!("{have} of {len} bytes are not a partial header");
                };
                assert!((1..=len - have).contains(&needed), "{needed} of {} missing bytes", len - have);
            }
            assert_eq!(decode_datagram(data, options), Ok(header));
        }
        Ok(Status::Partial { needed }) => {
            assert!(needed >= 1 && data.len() + needed <= options.max_header_size.get().max(107));
            let error = decode_datagram(data, options).unwrap_err();
            assert_eq!((error.reason, error.offset), (Reason::Truncated, data.len()));
        }
        Err(error) => {
            assert!(error.offset <= data.len(), "{error}");
            assert!(decode(&followed, options).is_err(), "{error}, but not with more bytes");
            assert_eq!(decode_datagram(data, options), Err(error));
        }
    }
}
