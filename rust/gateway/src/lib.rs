#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!("proxyproto-gateway works on Linux only, as proxyproto-acceptor does");

pub use proxyproto_acceptor as acceptor;
pub use proxyproto_mqtt as mqtt;

mod arrival;
pub use arrival::{Arrival, SessionId};
mod cause;
pub use cause::{Cause, UnknownCause};
mod channel;
pub use channel::{
    CertificateFiles, Channel, ChannelFactory, ChannelFault, ClientCertificate, Facts, Flow,
    ForwardedOptions, Remote, Stage, TlsClient, TlsClientOptions, TlsError, TlsFacts, TlsOptions, TlsServer,
    TlsVersion, WebSocketOptions, WebSocketServer,
};
mod descriptors;
mod drain;
mod events;
pub use events::{
    Admission, Ended, Event, ListenerReport, Login, Refused, Replace, Token, Traffic, Welcomed,
};
mod gateway;
pub use gateway::Gateway;
mod intake;
mod listening;
pub use listening::ListenerCounts;
mod options;
pub use options::{
    Balance, Check, CheckKind, HeaderOut, ListenerOptions, MqttOptions, OptionError, Options, PublishRate,
    Server, ServerError, UpstreamOptions,
};
mod queue;
mod session;
mod shared;
mod stats;
pub use stats::{ListenerStats, ServerStats, Stats};
mod sys;
mod upstream;
pub use upstream::{ServerChange, ServerName};
mod wire;
mod worker;
