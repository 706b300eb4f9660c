//! TLS by rustls, without I/O. No buffer outlives a read, so an idle session holds only its keys.

mod ciphers;
mod client;
pub use client::{TlsClient, TlsClientOptions};
mod common_name;
mod error;
pub use error::TlsError;
mod files;
mod names;
mod options;
pub use options::{CertificateFiles, ClientCertificate, TlsOptions, TlsVersion};
mod outcome;
mod records;
mod server;
#[cfg(test)]
mod tests;
pub use server::TlsServer;
