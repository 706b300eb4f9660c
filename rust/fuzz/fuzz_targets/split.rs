//! Any bytes in pieces: after each piece the `Decoder` gives the same as `decode` gives for all bytes so far.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyproto_codec::{Decoder, Options, Status, decode};
use proxyproto_fuzz::{Pieces, all_options};

fuzz_target!(|data: &[u8]| {
    for options in all_options() {
        if data.len() <= 300 {
            feed(data, &options, || 1);
        }
        let mut pieces = Pieces::of(data);
        feed(data, &options, || pieces.next_size());
    }
});

fn feed(data: &[u8], options: &Options, mut next_size: impl FnMut() -> usize) {
    let mut decoder = Decoder::new(*options);
    let mut fed = 0;
    while fed < data.len() {
        let size = next_size().min(data.len() - fed);
        let piece = &data[fed..fed + size];
        fed += size;
        match (decoder.feed(piece), decode(&data[..fed], options)) {
            (Ok(Status::Complete(rest)), Ok(Status::Complete(header))) => {
                assert_eq!(rest, &data[header.raw().len()..fed]);
                assert_eq!(decoder.header(), Some(header));
                assert_eq!(decoder.feed(b"later"), Ok(Status::Complete(&b"later"[..])));
                assert_eq!(decoder.into_header().unwrap(), header);
                return;
            }
            (Ok(Status::Partial { needed }), Ok(Status::Partial { needed: whole })) => {
                assert_eq!(needed, whole)
            }
            (Err(error), Err(whole)) => {
                assert_eq!(error, whole);
                assert_eq!(decoder.feed(b"\r\n"), Err(error));
                assert!(decoder.into_header().is_none());
                return;
            }
            (pieces, whole) => panic!("in pieces {pieces:?}, whole {whole:?}"),
        }
    }
    assert!(decoder.header().is_none());
}
