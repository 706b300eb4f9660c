#![doc = include_str!("../README.md")]
//!
//! ## Where to look
//!
//! [`Connect::read`] reads the packet of a client that logs in, or gives the [`Refusal`]. [`Connect::change`]
//! writes it anew. [`Connack`] is the answer, [`Disconnect`] the end, and [`Auth`] what may be in between.
//!
//! [`Framing`] finds the packets in a stream that arrives in pieces, for a relay. [`Strict`] checks each
//! packet of a client once it is whole, for a broker that does not. A [`Fault`] ends a session.
//!
//! [`Reason`] is the one table of codes and answers.
//!
//! ## The rules
//!
//! The documentation cites the texts of MQTT 3.1.1 and 5 by the numbers of their statements, such as
//! MQTT-2.2.2-2. A number of MQTT 5 has its version in front: MQTT5-1.5.5-1.

// The tests use the standard library.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod auth;
pub use auth::Auth;

mod code;

mod connack;
pub use connack::Connack;

mod connect;
pub use connect::{Connect, Will};

mod connect_decode;

mod connect_encode;
pub use connect_encode::Change;

mod detail;
pub use detail::Detail;

mod disconnect;
pub use disconnect::Disconnect;

mod encode_error;
pub use encode_error::EncodeError;

mod fault;
pub use fault::Fault;

mod field;
pub use field::Field;

mod fixed_header;
pub use fixed_header::{FixedHeader, PacketType};

mod framing;
pub use framing::Framing;

mod limits;
pub use limits::{Limits, Sender};

mod property;
pub use property::{Properties, Property, Value};

mod reader;

mod reason;
pub use reason::Reason;

mod refusal;
pub use refusal::Refusal;

mod start;
pub use start::Start;

mod status;
pub use status::Status;

mod strict;
pub use strict::Strict;

mod topic;

mod version;
pub use version::Version;

mod versions;
pub use versions::Versions;

mod writer;
