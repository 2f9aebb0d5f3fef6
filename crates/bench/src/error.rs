//! Why something could not be measured.

use std::fmt::Display;

/// What was attempted, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempted}: {cause}")]
pub(crate) struct BenchError {
    attempted: String,
    cause: String,
}

impl BenchError {
    pub(crate) fn new(attempted: impl Into<String>, cause: impl Display) -> Self {
        Self { attempted: attempted.into(), cause: cause.to_string() }
    }
}

/// Says what was attempted when an error came.
pub(crate) trait Attempting<T> {
    fn attempting(self, attempted: impl Into<String>) -> Result<T, BenchError>;
}

impl<T, E: Display> Attempting<T> for Result<T, E> {
    fn attempting(self, attempted: impl Into<String>) -> Result<T, BenchError> {
        self.map_err(|error| BenchError::new(attempted, error))
    }
}
