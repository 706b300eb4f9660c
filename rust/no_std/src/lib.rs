//! A program without the standard library that reads a header, writes one, and counts packets of MQTT.
//!
//! It has its own panic handler and allocator. If one of the two crates used the standard library, there would be two panic
//! handlers, and the compiler would refuse them (E0152).

#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;
use core::ptr;

use proxyproto_codec::{Decoder, Header, Options, Status, Tlv, Transport, decode};
use proxyproto_mqtt::{Framing, Limits, Sender, Version};

/// Reads the header at the start of the `len` bytes at `data`, writes one for the same client with a checksum, and
/// returns its length. Returns 0 if the header names no client.
///
/// # Safety
///
/// `data` points to `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rewrite(data: *const u8, len: usize) -> usize {
    // SAFETY: as the caller has promised.
    let data = unsafe { core::slice::from_raw_parts(data, len) };
    let Ok(Status::Complete(header)) = decode(data, &Options::default()) else { return 0 };
    let (Some(source), Some(destination)) = (header.source(), header.destination()) else { return 0 };
    let tlvs = [Tlv::new(Tlv::AUTHORITY, b"example.com")];
    let Ok(written) = Header::v2(source, destination, Transport::Stream, &tlvs, true) else { return 0 };
    let mut decoder = Decoder::new(Options::default());
    match decoder.feed(written.raw()) {
        Ok(Status::Complete(_)) => written.raw().len(),
        _ => 0,
    }
}

/// Returns how many packets of a client end in the `len` bytes at `data`.
///
/// # Safety
///
/// `data` points to `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packets(data: *const u8, len: usize) -> usize {
    // SAFETY: as the caller has promised.
    let data = unsafe { core::slice::from_raw_parts(data, len) };
    let mut packets = 0;
    let scan = Framing::new(Limits::new(Sender::Client, Version::Mqtt5, 65536)).scan(data, |_| packets += 1);
    scan.map_or(0, |()| packets)
}

struct NoMemory;

// SAFETY: it never returns memory.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: NoMemory = NoMemory;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
