//! Two documents, and the places where they differ.

use std::collections::BTreeSet;

use serde_json::Value;

/// One place, and what each side has there; `None` is nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Keys from the document's root, with `/` between them.
    pub(crate) at: String,
    pub(crate) ours: Option<String>,
    pub(crate) reference: Option<String>,
}

/// Every place where they differ, as deep as both have something there.
pub(crate) fn differences(ours: &Value, reference: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    descend(String::new(), Some(ours), Some(reference), &mut found);
    found
}

fn descend(at: String, ours: Option<&Value>, reference: Option<&Value>, found: &mut Vec<Difference>) {
    if ours == reference {
        return;
    }
    let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}/{key}") };
    match (ours, reference) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            for key in one.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
                descend(below(key), one.get(key), other.get(key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) if one.len() == other.len() => {
            for (index, (mine, theirs)) in one.iter().zip(other).enumerate() {
                descend(below(&index.to_string()), Some(mine), Some(theirs), found);
            }
        }
        _ => {
            let shown = |value: Option<&Value>| {
                value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            };
            found.push(Difference { at, ours: shown(ours), reference: shown(reference) });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_names_the_deepest_place_that_both_have() {
        let ours = json!({"links": {"eth0": {"mtu": 1500, "up": true}}, "files": {"a": "1"}});
        let reference = json!({"links": {"eth0": {"mtu": 1400, "up": true}}, "files": {"b": "1"}});
        let told: Vec<String> = differences(&ours, &reference)
            .into_iter()
            .map(|it| format!("{}: {:?} {:?}", it.at, it.ours, it.reference))
            .collect();
        assert_eq!(
            told,
            [
                "files/a: Some(\"1\") None",
                "files/b: None Some(\"1\")",
                "links/eth0/mtu: Some(\"1500\") Some(\"1400\")"
            ]
        );
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3u8).prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 20, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map("[ab]", inner, 0..3).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn documents_differ_exactly_if_a_place_is_found(one in document(), other in document()) {
            prop_assert_eq!(differences(&one, &other).is_empty(), one == other);
            prop_assert_eq!(differences(&one, &other).len(), differences(&other, &one).len());
        }
    }
}
