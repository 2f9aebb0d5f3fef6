//! The text of Node objects, as a nodes file and the cache of peers hold it.

use node_network::cluster::{DocumentError, NodeDocument, NodeObject};

/// The Node objects in a text: JSON, or YAML of one or several documents.
pub fn parse_nodes(bytes: &[u8]) -> Result<Vec<NodeObject>, ParseError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ParseError::NotText)?;
    // JSON is YAML too, but several times faster as what it is; and what begins like it may still be YAML.
    let json = text.trim_start().starts_with('{').then(|| documents_of_json(text));
    let documents = match json {
        Some(Ok(documents)) => documents,
        Some(Err(error)) => documents_of_yaml(text).map_err(|_| ParseError::Syntax(error.to_string()))?,
        None => documents_of_yaml(text).map_err(|error| ParseError::Syntax(error.to_string()))?,
    };
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let of_document =
            document.into_objects().map_err(|source| ParseError::Document { number: index + 1, source })?;
        objects.extend(of_document);
    }
    Ok(objects)
}

/// Why a text holds no nodes.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is no text.
    #[error("not UTF-8")]
    NotText,
    /// It is neither YAML nor JSON of the expected shape.
    #[error("{0}")]
    Syntax(String),
    /// A document holds something else.
    #[error("document {number}: {source}")]
    Document {
        /// Counted from 1.
        number: usize,
        /// Why.
        source: DocumentError,
    },
}

fn documents_of_json(text: &str) -> Result<Vec<NodeDocument>, serde_json::Error> {
    serde_json::Deserializer::from_str(text).into_iter().collect()
}

fn documents_of_yaml(text: &str) -> Result<Vec<NodeDocument>, serde_saphyr::Error> {
    // Sized for the longest file; each limit bounds memory to a small multiple of it.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 16 << 20, max_nodes: 8 << 20, max_documents: 20_000 },
    };
    serde_saphyr::from_multiple_with_options(text, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_lists_json_lists_and_several_documents_are_the_same() {
        let yaml = "kind: List\nitems:\n- metadata: {name: node1}\n- metadata: {name: node2}\n";
        let json = r#"{"kind":"List","items":[{"metadata":{"name":"node1"}},{"metadata":{"name":"node2"}}]}"#;
        let documents = "kind: Node\nmetadata: {name: node1}\n---\nkind: Node\nmetadata: {name: node2}\n";
        let flow = "{kind: Node, metadata: {name: node1}}\n---\n{kind: Node, metadata: {name: node2}}\n";
        let two_json = "{\"kind\":\"Node\",\"metadata\":{\"name\":\"a\"}}\n{\"kind\":\"Node\"}";
        for text in [yaml, json, documents, flow, two_json] {
            assert_eq!(parse_nodes(text.as_bytes()).unwrap().len(), 2, "{text}");
        }
    }

    #[test]
    fn ten_levels_of_aliases_do_not_eat_the_memory() {
        let mut bomb = String::from("kind: List\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..10 {
            let last = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![last; 10].join(","));
        }
        assert!(parse_nodes(bomb.as_bytes()).is_err());
    }
}
