//! What is wrong with one node's object: which field, which value, why, and what to do.

use std::fmt;

use crate::condition::Severity;

/// Enough of a hostile value to recognise it, and too little to flood a log.
const SHOWN_CHARS: usize = 64;

/// One fault of one node's object. Only the part that it names is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProblem {
    /// The node's name, or its position in the list where it has none that can be used.
    pub node: String,
    /// Path of the field, such as `spec.podCIDRs[1]`.
    pub field: String,
    /// The value found, bounded.
    pub value: String,
    /// Why it cannot be used.
    pub reason: String,
    /// What the operator can do.
    pub remedy: Box<str>,
    /// An error where routes depend on it.
    pub severity: Severity,
}

impl NodeProblem {
    pub(super) fn new(
        node: &str,
        field: impl Into<String>,
        value: &str,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            node: bounded(node),
            field: field.into(),
            value: bounded(value),
            reason: reason.into(),
            remedy: remedy.into().into_boxed_str(),
            severity: Severity::Warning,
        }
    }
}

impl fmt::Display for NodeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, field, value, reason, remedy, severity: _ } = self;
        write!(f, "node `{node}`: {field} `{value}` {reason}: {remedy}")
    }
}

fn bounded(value: &str) -> String {
    let mut shown: String = value.chars().take(SHOWN_CHARS).flat_map(char::escape_default).collect();
    if value.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
