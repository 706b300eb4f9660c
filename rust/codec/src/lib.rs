//! The PROXY protocol, versions 1 and 2: bytes in, [`Header`] out. No I/O, no clock.

#![forbid(unsafe_code)]

mod cloud;
mod crc32c;

mod decoder;
pub use decoder::{Decoder, Status, decode, decode_datagram};

mod encode;
pub use encode::EncodeError;

mod error;
pub use error::{Error, Fault, Reason};

mod first_bytes;
pub use first_bytes::FirstBytes;

mod header;
pub use header::{Address, Command, Family, Header, Transport, UnixAddress, Version};

mod options;
pub use options::{InvalidMaxHeaderSize, MaxHeaderSize, Options, Versions};

mod ssl;
pub use ssl::SslInfo;

mod tlv;
pub use tlv::{Tlv, Tlvs};

mod v1;
mod v1_address;
mod v1_needed;

mod v2;
