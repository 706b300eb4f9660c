//! The error for a TLS option that makes no sense.

use std::fmt;
use std::path::Path;

/// A TLS option that makes no sense, or that OpenSSL has and rustls has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// The name of the option, such as `certfile` or `certificates[1].keyfile`.
    pub option: String,
    /// What is wrong with it, and the remedy.
    pub problem: String,
}

impl TlsError {
    pub(super) fn new(option: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { option: option.into(), problem: problem.into() }
    }

    /// Of a file that the option names.
    pub(super) fn of_file(option: &str, path: &Path, problem: impl fmt::Display) -> Self {
        Self::new(option, format!("{}: {problem}", path.display()))
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

impl std::error::Error for TlsError {}
