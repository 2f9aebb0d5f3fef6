//! A CNI network configuration list as a runtime reads it, and what it hands to each plugin (CNI specification,
//! section 4, as libcni carries it out). Values only.

use serde_json::{Map, Value, json};

/// Versions of the specification that this runtime speaks, oldest first.
const SPOKEN: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A list that can be run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conflist {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
}

impl Conflist {
    /// Reads a list, and picks the highest version of the specification that it and this runtime share.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let list: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| format!("is no JSON object: {error}"))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let name = list.get("name").and_then(text).ok_or("`name` is missing or no text")?;
        let mut offered: Vec<String> = list.get("cniVersion").and_then(text).into_iter().collect();
        offered
            .extend(list.get("cniVersions").and_then(Value::as_array).into_iter().flatten().filter_map(text));
        let version = SPOKEN.iter().rev().find(|version| offered.iter().any(|offer| offer == *version));
        let version = version.ok_or_else(|| format!("no version of {offered:?} is one of {SPOKEN:?}"))?;
        let plugins =
            list.get("plugins").and_then(Value::as_array).ok_or("`plugins` is missing or no list")?;
        let plugins = plugins.iter().map(|plugin| match plugin {
            Value::Object(plugin) if plugin.get("type").is_some_and(Value::is_string) => Ok(plugin.clone()),
            other => Err(format!("plugin without a `type`: {other}")),
        });
        let plugins = plugins.collect::<Result<Vec<_>, _>>()?;
        if plugins.is_empty() {
            return Err("`plugins` is empty".to_owned());
        }
        Ok(Self { name, version: (*version).to_owned(), plugins })
    }

    /// The list with which runtimes set up a pod's loopback link.
    pub(crate) fn loopback() -> Self {
        let plugin = Map::from_iter([("type".to_owned(), json!("loopback"))]);
        Self { name: "cni-loopback".to_owned(), version: "1.0.0".to_owned(), plugins: vec![plugin] }
    }

    /// The plugins' types, in order.
    pub(crate) fn types(&self) -> Vec<String> {
        self.plugins.iter().map(|plugin| plugin["type"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What the plugin at `index` is given on standard input. Of `capabilities`, it gets those that it declares.
    pub(crate) fn input(
        &self,
        index: usize,
        capabilities: &Map<String, Value>,
        prev: Option<&Value>,
    ) -> Value {
        let mut input = self.plugins.get(index).cloned().unwrap_or_default();
        input.insert("name".to_owned(), json!(self.name));
        input.insert("cniVersion".to_owned(), json!(self.version));
        let declared = |name: &str| input.get("capabilities").is_some_and(|all| all[name] == json!(true));
        let runtime: Map<_, _> = capabilities
            .iter()
            .filter(|(name, _)| declared(name))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if !runtime.is_empty() {
            input.insert("runtimeConfig".to_owned(), Value::Object(runtime));
        }
        if let Some(prev) = prev {
            input.insert("prevResult".to_owned(), prev.clone());
        }
        Value::Object(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"cniVersion":"1.0.0","cniVersions":["0.4.0","1.0.0","1.1.0"],"name":"hostgw",
        "plugins":[{"type":"hostgw","capabilities":{"portMappings":true,"bandwidth":false}}]}"#;

    #[test]
    fn a_plugin_gets_the_highest_version_and_only_what_it_declares() {
        let ports = json!([{"hostPort": 1, "containerPort": 2, "protocol": "udp"}]);
        let capabilities = Map::from_iter([
            ("portMappings".to_owned(), ports),
            ("bandwidth".to_owned(), json!({"ingressRate": 1})),
        ]);
        let list = Conflist::parse(LIST.as_bytes()).unwrap();
        insta::assert_json_snapshot!(list.input(0, &capabilities, Some(&json!({"ips": []}))));
    }

    #[test]
    fn a_list_that_cannot_be_run_says_why() {
        for (list, why) in [
            ("", "no JSON object"),
            (r#"{"plugins":[]}"#, "`name`"),
            (r#"{"name":"n","cniVersion":"9.0.0","plugins":[{"type":"t"}]}"#, "9.0.0"),
            (r#"{"name":"n","cniVersion":"1.0.0"}"#, "`plugins`"),
            (r#"{"name":"n","cniVersion":"1.0.0","plugins":[]}"#, "empty"),
            (r#"{"name":"n","cniVersion":"1.0.0","plugins":[{}]}"#, "`type`"),
        ] {
            assert!(Conflist::parse(list.as_bytes()).unwrap_err().contains(why), "{list}");
        }
    }
}
