#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "proxyproto-acceptor works on Linux only: it needs accept4, epoll, eventfd, SO_RCVLOWAT and MSG_TRUNC. To read PROXY \
     headers on other platforms, use proxyproto-codec"
);

pub use proxyproto_codec as codec;
pub use proxyproto_codec::{
    Address, Command, Family, Header, SslInfo, Tlv, Tlvs, Transport, UnixAddress, Version,
};

mod acceptor;
mod address_set;
pub use address_set::{AddressSet, LONGEST_EXPIRY};
mod addresses;
pub use addresses::{ClientAddr, Host, LocalAddr, PeerAddr, UnixName};
#[cfg(feature = "axum")]
mod axum_listener;
#[cfg(feature = "axum")]
pub use axum_listener::ClientInfo;
mod backlog;
mod cause;
mod descriptors;
mod detail;
mod door;
#[cfg(feature = "tracing")]
mod events;
mod fork;
mod header_times;
pub use header_times::HeaderTimes;
mod interface;
mod keyed;
mod late;
mod listener;
pub use listener::{Closed, Inherited, Listener, Stats};
mod log_lines;
pub use log_lines::{LogLine, Severity};
mod network;
pub use network::{Network, NetworkError};
mod notice;
mod options;
pub use options::{
    HeaderTimeout, HealthChecks, InvalidHeaderTimeout, OptionError, Options, ProxyProtocol, UnknownWord,
    Untrusted,
};
mod outcome;
pub use outcome::Outcome;
mod peek;
mod pending;
mod permit;
pub use permit::{ClientLimits, PerClient, Permit};
mod policy;
mod private_port;
pub use private_port::{Door, PrivatePort};
mod proxied_stream;
pub use proxied_stream::{InnerStream, Parts, ProxiedStream};
mod proxy_listener;
pub use proxy_listener::ProxyListener;
mod queue;
pub use queue::Connection;
mod rate;
pub use rate::Rate;
mod refusal;
pub use refusal::Refusal;
mod refusals;
pub use refusals::TakenRefusals;
mod runtime_descriptors;
#[doc(hidden)]
pub use runtime_descriptors::{InheritedDescriptors, RuntimeDescriptors};
mod setting;
pub use setting::{Setting, Wording};
mod socket;
pub use socket::{BindOptions, Socket, UnsupportedFamily};
mod socket_file;
#[cfg(feature = "stream")]
mod stream;
mod stream_io;
mod sys;
pub use sys::BlockedSignals;
mod thread;
pub use thread::{Paused, pause};
mod trust;
pub use trust::{Approach, PeerPolicy};
mod verdict;
mod watch;
