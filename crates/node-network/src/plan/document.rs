//! A plan as a document, for programs (`hostgw plan -o json`) and for people.

use std::fmt;

use serde::Serialize;

use super::{ChangeLine, PeerReport, Plan};
use crate::condition::{Condition, Severity};

/// `schemaVersion` of the document; raised when a field changes its meaning or goes.
pub const PLAN_SCHEMA_VERSION: u32 = 1;

/// The JSON Schema of the document.
pub const PLAN_SCHEMA: &str = include_str!("plan.schema.json");

/// A plan to be printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanDocument {
    schema_version: u32,
    node: String,
    changes: Vec<ChangeLine>,
    peers: Vec<PeerReport>,
    conditions: Vec<ConditionDocument>,
}

/// A condition to be printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionDocument {
    /// Stable name.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// For people.
    pub message: String,
}

impl From<&Condition> for ConditionDocument {
    fn from(condition: &Condition) -> Self {
        Self { code: condition.code(), severity: condition.severity(), message: condition.to_string() }
    }
}

impl PlanDocument {
    /// The document of `plan` for the node `node`.
    #[must_use]
    pub fn new(node: &str, plan: &Plan) -> Self {
        Self {
            schema_version: PLAN_SCHEMA_VERSION,
            node: node.to_owned(),
            changes: plan.changes().map(|change| change.line()).collect(),
            peers: plan.peers.clone(),
            conditions: plan.conditions.iter().map(ConditionDocument::from).collect(),
        }
    }
}

impl PlanDocument {
    /// Nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for PlanDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            writeln!(f, "node {}: nothing to change", self.node)?;
        } else {
            writeln!(f, "node {}: {} to change", self.node, self.changes.len())?;
        }
        for change in &self.changes {
            writeln!(f, "  {change}")?;
        }
        for ConditionDocument { severity, message, .. } in &self.conditions {
            let word = match severity {
                Severity::Notice => "notice",
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            writeln!(f, "{word}: {message}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_names_every_field_that_is_printed() {
        let schema: serde_json::Value = serde_json::from_str(PLAN_SCHEMA).unwrap();
        let mut cluster = crate::three_nodes::ThreeNodes::new();
        cluster.observed.next_hops.clear();
        let document = serde_json::to_value(PlanDocument::new("node1", &cluster.plan())).unwrap();
        for (field, value) in document.as_object().unwrap() {
            let described = schema["properties"].get(field).unwrap();
            for inner in value.get(0).and_then(|first| first.as_object()).into_iter().flatten() {
                assert!(described["items"]["properties"].get(inner.0).is_some(), "{field}.{}", inner.0);
            }
        }
    }
}
