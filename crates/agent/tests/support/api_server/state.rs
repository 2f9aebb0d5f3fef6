//! What the server holds, and what becomes of it by one request.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::Fault;
use super::http::Request;

/// Everything that a request may depend on.
#[derive(Debug)]
pub(super) struct State {
    /// By path, such as `/api/v1/nodes/node1`.
    pub(super) objects: BTreeMap<String, Value>,
    pub(super) version: u64,
    /// Events of nodes, by version.
    pub(super) events: VecDeque<(u64, &'static str, Value)>,
    /// Watches from before this version are told 410.
    pub(super) oldest: u64,
    /// `sendInitialEvents` is known.
    pub(super) streaming: bool,
    /// Streams of lists end after the first node.
    pub(super) cuts_streams: bool,
    pub(super) fault: Fault,
    /// Connections of an earlier generation are closed.
    pub(super) generation: u64,
    pub(super) requests: Vec<String>,
    /// Requests that are refused, and with which status.
    pub(super) refusals: Vec<(Refused, u16)>,
    /// Requests without this token are refused; all are served where it is empty.
    pub(super) token: String,
}

/// Which requests are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// All that write, to paths that begin so.
    Writes(String),
    /// Those of this method to this path.
    Exactly { method: &'static str, path: String },
}

impl Refused {
    fn is(&self, request: &Request) -> bool {
        match self {
            Self::Writes(path) => request.method != "GET" && request.path.starts_with(path),
            Self::Exactly { method, path } => request.method == *method && request.path == *path,
        }
    }
}

impl State {
    /// Nothing, at the version at which a history begins.
    pub(super) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            version: 1000,
            events: VecDeque::new(),
            oldest: 1000,
            streaming: true,
            cuts_streams: false,
            fault: Fault::None,
            generation: 0,
            requests: Vec::new(),
            refusals: Vec::new(),
            token: String::new(),
        }
    }

    pub(super) fn nodes(&self) -> Vec<Value> {
        let nodes = self.objects.iter().filter(|(path, _)| path.starts_with("/api/v1/nodes/"));
        nodes.map(|(_, node)| node.clone()).collect()
    }

    pub(super) fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let known = self.objects.insert(path.to_owned(), object.clone()).is_some();
        if path.starts_with("/api/v1/nodes/") {
            self.events.push_back((self.version, if known { "MODIFIED" } else { "ADDED" }, object));
        }
    }

    pub(super) fn delete(&mut self, path: &str) {
        if let Some(mut object) = self.objects.remove(path) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.events.push_back((self.version, "DELETED", object));
        }
    }

    pub(super) fn refusal(&self, request: &Request) -> Option<u16> {
        self.refusals.iter().find(|(refused, _)| refused.is(request)).map(|(_, code)| *code)
    }

    pub(super) fn handle(&mut self, request: &Request) -> (u16, Value) {
        if let Some(code) = self.refusal(request) {
            return (code, json!({"kind": "Status", "code": code, "message": "refused by the test"}));
        }
        let not_found = || (404, json!({"kind": "Status", "code": 404, "message": "not found"}));
        let conflict =
            || (409, json!({"kind": "Status", "code": 409, "message": "the object has been modified"}));
        let path = request.path.strip_suffix("/status").unwrap_or(&request.path).to_owned();
        match request.method.as_str() {
            "GET" if path == "/api/v1/nodes" => (200, self.page(request)),
            "GET" => self.objects.get(&path).cloned().map_or_else(not_found, |object| (200, object)),
            "POST" => {
                let object = request.body.clone();
                let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else {
                    return (422, json!({}));
                };
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return (409, json!({"kind": "Status", "code": 409, "message": "already exists"}));
                }
                self.put(&path, object);
                (201, self.objects[&path].clone())
            }
            "PATCH" | "PUT" => {
                let Some(mut object) = self.objects.get(&path).cloned() else { return not_found() };
                let wanted = &request.body["metadata"]["resourceVersion"];
                if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
                    return conflict();
                }
                if request.method == "PUT" {
                    object = request.body.clone();
                } else {
                    merge(&mut object, &request.body);
                }
                self.put(&path, object);
                (200, self.objects[&path].clone())
            }
            _ => (405, json!({"kind": "Status", "code": 405, "message": "no such method"})),
        }
    }

    fn page(&self, request: &Request) -> Value {
        let limit: usize = request.query("limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
        let begin: usize = request.query("continue").and_then(|text| text.parse().ok()).unwrap_or(0);
        let nodes = self.nodes();
        let end = begin.saturating_add(limit).min(nodes.len());
        let next = if end < nodes.len() { json!(end.to_string()) } else { json!("") };
        json!({"kind": "NodeList", "metadata": {"resourceVersion": self.version.to_string(), "continue": next},
            "items": nodes[begin..end]})
    }
}

/// JSON merge patch (RFC 7396); lists of conditions are merged by their type, as the strategic patch does.
fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    object.remove(key);
                } else {
                    merge(object.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(items), Value::Array(patches))
            if patches.iter().all(|item| item["type"].is_string()) =>
        {
            for patch in patches {
                match items.iter_mut().find(|item| item["type"] == patch["type"]) {
                    Some(item) => merge(item, patch),
                    None => items.push(patch.clone()),
                }
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}
