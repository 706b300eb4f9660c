#![doc = include_str!("../README.md")]
//!
//! ## Where to look
//!
//! [`decode`] reads the first bytes of a stream, [`decode_datagram`] a datagram, a [`Decoder`] a stream that
//! comes in pieces; all of them by the same [`Options`]. They find a [`Header`], or an [`Error`] with its
//! [`Reason`]. [`Header::v1`], [`Header::v2`], [`Header::local`] and [`Header::unknown`] build one.
//! [`FirstBytes`] tells what somebody speaks who did not send a header.
//!
//! ## The rules
//!
//! The documentation cites the protocol's text of 2026/04 by these numbers: R for what a receiver, S for what
//! a sender has to do, C for a question that the text leaves open. `docs/reference/rules.md` of the
//! repository lists them.

// The tests have the standard library.
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
