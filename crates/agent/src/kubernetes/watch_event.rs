//! One line of a watch of Nodes. Bounded by the caller, and read so that what is not understood is an error and no panic.

use node_network::cluster::NodeObject;
use serde::Deserialize;
use serde_json::value::RawValue;

/// `metadata.annotations` of the bookmark that ends the initial events of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What happened.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// ADDED or MODIFIED: the object as it is now, and its bytes.
    Applied(Box<NodeObject>, Box<RawValue>),
    /// DELETED.
    Deleted(Box<NodeObject>),
    /// BOOKMARK: nothing happened up to this version.
    Bookmark {
        version: String,
        /// Everything that there was has been sent.
        initial_events_end: bool,
    },
    /// ERROR, after which the watch ends.
    Error { code: u16, message: String },
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    object: Box<RawValue>,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMetadata {
    resource_version: String,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Result<WatchEvent, serde_json::Error> {
    let Envelope { kind, object } = serde_json::from_slice(line)?;
    Ok(match kind.as_str() {
        "ADDED" | "MODIFIED" => WatchEvent::Applied(Box::new(serde_json::from_str(object.get())?), object),
        "DELETED" => WatchEvent::Deleted(Box::new(serde_json::from_str(object.get())?)),
        "BOOKMARK" => {
            let Bookmark { metadata } = serde_json::from_str(object.get())?;
            let annotations = metadata.annotations.unwrap_or_default();
            let initial_events_end = annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true");
            WatchEvent::Bookmark { version: metadata.resource_version, initial_events_end }
        }
        "ERROR" => {
            let Status { code, message } = serde_json::from_str(object.get())?;
            WatchEvent::Error { code, message }
        }
        other => {
            let other: String = other.chars().take(32).flat_map(char::escape_default).collect();
            return Err(serde::de::Error::custom(format!("event type `{other}` is unknown")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_type_of_event_is_read() {
        let node = r#"{"kind":"Node","metadata":{"name":"a","resourceVersion":"7"}}"#;
        let event =
            |kind: &str, object: &str| parse(format!(r#"{{"type":"{kind}","object":{object}}}"#).as_bytes());
        assert!(
            matches!(event("ADDED", node).unwrap(), WatchEvent::Applied(object, _) if object.name() == Some("a"))
        );
        assert!(matches!(event("MODIFIED", node).unwrap(), WatchEvent::Applied(..)));
        assert!(
            matches!(event("DELETED", node).unwrap(), WatchEvent::Deleted(object) if object.resource_version() == Some("7"))
        );
        let bookmark =
            r#"{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
        assert!(matches!(event("BOOKMARK", bookmark).unwrap(),
            WatchEvent::Bookmark { version, initial_events_end: true } if version == "9"));
        let plain = r#"{"metadata":{"resourceVersion":"9","annotations":null}}"#;
        assert!(matches!(
            event("BOOKMARK", plain).unwrap(),
            WatchEvent::Bookmark { initial_events_end: false, .. }
        ));
        let gone = r#"{"kind":"Status","code":410,"message":"too old resource version"}"#;
        assert!(matches!(event("ERROR", gone).unwrap(), WatchEvent::Error { code: 410, .. }));
        assert!(event("OTHER", node).unwrap_err().to_string().contains("OTHER"));
        assert!(parse(b"").is_err());
    }

    proptest! {
        #[test]
        fn damage_never_makes_the_reader_panic(at in 0..80usize, byte: u8) {
            let mut line = br#"{"type":"ADDED","object":{"kind":"Node","metadata":{"name":"a"},"spec":{"podCIDRs":[]}}}"#.to_vec();
            line[at] = byte;
            let _read = parse(&line);
        }
    }
}
