//! What ends a run of chaos: the lab itself failed, or the cluster did.

use crate::LabError;

/// Why a fault did not end as it must.
#[derive(Debug)]
pub(crate) enum Setback {
    /// The lab could not do its part.
    Lab(LabError),
    /// The cluster did not do its own.
    Found {
        /// As the document has it.
        code: &'static str,
        /// What was found.
        message: String,
    },
}

impl Setback {
    /// The cluster did not do its part.
    pub(crate) fn found(code: &'static str, message: impl Into<String>) -> Self {
        Self::Found { code, message: message.into() }
    }

    /// The code, and what was found.
    pub(crate) fn into_parts(self) -> (String, String) {
        match self {
            Self::Lab(error) => ("lab_error".to_owned(), error.to_string()),
            Self::Found { code, message } => (code.to_owned(), message),
        }
    }
}

impl From<LabError> for Setback {
    fn from(error: LabError) -> Self {
        Self::Lab(error)
    }
}
