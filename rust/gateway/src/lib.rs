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
    CertificateFiles, Channel, ChannelFactory, ChannelFault, ClientCertificate, Flow, ForwardedOptions,
    Remote, Stage, TlsClient, TlsClientOptions, TlsError, TlsOptions, TlsServer, TlsVersion,
    WebSocketOptions, WebSocketServer,
};
mod descriptors;
mod drain;
mod events;
pub use events::{
    Admission, Ended, Event, ListenerReport, Login, Refused, Replace, Token, Traffic, Welcomed,
};
mod facts;
pub use facts::{Facts, TlsFacts};
mod fork;
pub use fork::{Paused, pause};
mod gateway;
pub use gateway::Gateway;
mod intake;
mod listening;
pub use listening::ListenerCounts;
mod option_error;
pub use option_error::OptionError;
mod options;
pub use options::{
    Balance, Check, CheckKind, HeaderOut, ListenerOptions, MqttOptions, Options, PublishRate, Server,
    ServerError, UpstreamOptions,
};
mod queue;
mod registry;
mod server_name;
pub use server_name::{ServerChange, ServerName};
mod session;
mod shared;
mod stats;
pub use stats::{ListenerStats, ServerStats, Stats};
mod sys;
mod upstream;
mod wire;
mod worker;
