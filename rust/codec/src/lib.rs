#![doc = include_str!("../README.md")]
//!
//! ## Where to look
//!
//! [`decode`] reads a header from the first bytes of a stream, [`decode_datagram`] from a datagram, and a
//! [`Decoder`] from a stream that arrives in pieces. All three take the same [`Options`]. The result is a
//! [`Header`], or an [`Error`] with its [`Reason`]. [`Header::v1`], [`Header::v2`], [`Header::local`] and
//! [`Header::unknown`] build a header. [`FirstBytes`] names the protocol of a sender who did not send a
//! header.
//!
//! ## The rules
//!
//! The documentation cites the protocol's text of 2026/04 by numbers. R is a rule for receivers, S a rule for
//! senders, C a question that the text leaves open. `docs/reference/rules.md` of the repository lists them.

// The tests use the standard library.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

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
