//! Names and addresses that a plugin may choose as it likes, replaced by what they are names of.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What is known so far of the names that the plugins of a run chose.
#[derive(Debug, Default)]
pub(crate) struct Neutral {
    /// Links of the node, with the pod's interface that each leads to.
    names: BTreeMap<String, String>,
    /// The case's own words: an Ethernet address that it asks for stays.
    text: String,
}

impl Neutral {
    pub(crate) fn new(case_text: String) -> Self {
        Self { names: BTreeMap::new(), text: case_text }
    }

    /// Learns the node's ends: a link of a pod names its other end by an index of the node.
    pub(crate) fn learn(&mut self, node: &[Value], pod: &str, links: &[Value]) {
        for link in links.iter().filter(|link| !link["link_index"].is_null()) {
            let end = node
                .iter()
                .find(|end| end["ifindex"] == link["link_index"] && end["linkinfo"]["info_kind"] == "veth");
            if let (Some(end), Some(ifname)) =
                (end.and_then(|end| end["ifname"].as_str()), link["ifname"].as_str())
            {
                self.names.insert(end.to_owned(), format!("<node's end of {pod} {ifname}>"));
            }
        }
    }

    /// The same document in words that do not depend on who chose names. `macs` are those that links have, by name.
    pub(crate) fn document(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.word(text)),
            Value::Array(items) => items.iter().map(|item| self.document(item)).collect(),
            Value::Object(map) => {
                let same = |(key, value): (&String, &Value)| (self.word(key), self.document(value));
                Value::Object(map.iter().map(same).collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    fn word(&self, text: &str) -> String {
        let mut word = text.to_owned();
        for (name, meaning) in &self.names {
            if word.contains(name.as_str()) {
                word = word.replace(name.as_str(), meaning);
            }
        }
        if is_mac(&word) && !self.text.contains(&word.to_lowercase()) {
            return "(any)".to_owned();
        }
        self.without_chosen_link_locals(word)
    }

    /// A link-local address follows from an Ethernet address that nobody asked for.
    fn without_chosen_link_locals(&self, word: String) -> String {
        if !word.contains("fe80::") {
            return word;
        }
        let parts = word.split(' ').map(|part| {
            let address = part.split('/').next().unwrap_or_default();
            let chosen = address.starts_with("fe80::") && address.len() > 8 && !self.text.contains(address);
            if chosen { part.replace(address, "fe80::(any)") } else { part.to_owned() }
        });
        parts.collect::<Vec<_>>().join(" ")
    }
}

/// Six bytes in hexadecimal digits.
pub(crate) fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_chosen_name_is_told_by_what_it_leads_to() {
        let mut neutral = Neutral::new(String::new());
        let node = [json!({"ifindex": 7, "ifname": "veth1a2b", "linkinfo": {"info_kind": "veth"}})];
        neutral.learn(&node, "a", &[json!({"ifname": "eth0", "link_index": 7})]);
        let told = neutral.document(&json!({"routes": {"10.1.0.2 dev veth1a2b": true}}));
        assert_eq!(told, json!({"routes": {"10.1.0.2 dev <node's end of a eth0>": true}}));
    }

    #[test]
    fn an_ethernet_address_that_the_case_asks_for_stays() {
        let neutral = Neutral::new("02:00:00:00:00:07".to_owned());
        let told = neutral.document(&json!(["02:00:00:00:00:07", "02:00:00:00:00:08"]));
        assert_eq!(told, json!(["02:00:00:00:00:07", "(any)"]));
    }

    #[test]
    fn a_link_local_address_of_an_ethernet_address_is_any() {
        let neutral = Neutral::new("fe80::1".to_owned());
        assert_eq!(neutral.document(&json!("eth0 fe80::48:a/64 link")), "eth0 fe80::(any)/64 link");
        assert_eq!(
            neutral.document(&json!("default gateway fe80::1 dev eth0")),
            "default gateway fe80::1 dev eth0"
        );
        assert_eq!(neutral.document(&json!("fe80::/64")), "fe80::/64");
    }
}
