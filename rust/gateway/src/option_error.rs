//! Why options cannot be meant.

use std::fmt;

/// An option that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// Where it stands: `upstream.servers`.
    pub option: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl OptionError {
    pub(crate) fn new(option: &'static str, problem: impl Into<String>) -> Self {
        Self { option, problem: problem.into() }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

impl std::error::Error for OptionError {}
