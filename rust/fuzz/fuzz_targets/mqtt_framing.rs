//! Any bytes in any pieces: `Framing` finds the packets that a reader of the whole finds, and the same fault.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxyproto_fuzz::Pieces;
use proxyproto_mqtt::{Fault, FixedHeader, Framing, Limits, Sender, Status, Strict, Version};

fuzz_target!(|data: &[u8]| {
    for sender in [Sender::Client, Sender::Server] {
        for version in Version::ALL {
            for max in [64, u32::MAX] {
                let limits = Limits::new(sender, version, max);
                let whole = read(data, limits);
                if data.len() <= 300 {
                    assert_eq!(scan(data, limits, |_| 1), whole);
                }
                let mut pieces = Pieces::of(data);
                assert_eq!(scan(data, limits, |_| pieces.next_size()), whole);
                assert_eq!(scan(data, limits, |_| data.len()), whole);
                // Pieces that end where packets do.
                assert_eq!(scan(data, limits, |framing| framing.needed().max(1) as usize), whole);
                if sender == Sender::Client {
                    check(data, Strict::new(version, max), &whole);
                }
            }
        }
    }
});

/// The packets, how many bytes they have, the one that has begun, and the fault.
type Read = (Vec<FixedHeader>, usize, Option<FixedHeader>, Option<Fault>);

fn read(data: &[u8], limits: Limits) -> Read {
    let (mut ended, mut at) = (Vec::new(), 0);
    loop {
        match limits.fixed_header(&data[at..]) {
            Ok(Some(header)) if header.size() as usize <= data.len() - at => {
                ended.push(header);
                at += header.size() as usize;
            }
            Ok(begun) => return (ended, at, begun, None),
            Err(fault) => return (ended, at, None, Some(fault)),
        }
    }
}

fn scan(data: &[u8], limits: Limits, mut next_size: impl FnMut(&Framing) -> usize) -> Read {
    let mut framing = Framing::new(limits);
    let (mut ended, mut fed, mut boundary) = (Vec::new(), 0, 0);
    while fed < data.len() {
        let size = next_size(&framing).min(data.len() - fed);
        let scanned = framing.scan(&data[fed..fed + size], |header| ended.push(header));
        if framing.boundary() > 0 {
            boundary = fed + framing.boundary();
        }
        fed += size;
        if let Err(fault) = scanned {
            assert_eq!(framing.scan(b"\xc0\x00", |_| panic!("behind a fault")), Err(fault));
            return (ended, boundary, None, Some(fault));
        }
        assert_eq!(framing.at_boundary(), boundary == fed);
        assert_eq!(framing.needed() == 0, framing.at_boundary());
    }
    (ended, boundary, framing.begun(), None)
}

/// The strict checks see the same packets, up to the first that they refuse.
fn check(data: &[u8], strict: Strict, (ended, boundary, _, fault): &Read) {
    let mut at = 0;
    for header in ended {
        match strict.read(&data[at..]) {
            Ok(Status::Complete(checked)) => assert_eq!(checked, *header),
            Ok(Status::Partial { .. }) => panic!("it is whole"),
            Err(fault) => return assert!(fault.offset <= header.size() as usize),
        }
        at += header.size() as usize;
    }
    assert_eq!(at, *boundary);
    match strict.read(&data[at..]) {
        Ok(Status::Complete(_)) => panic!("it is not whole"),
        Ok(Status::Partial { needed }) => assert!(needed > 0 && fault.is_none()),
        Err(refused) => assert_eq!(Some(refused), *fault),
    }
}
