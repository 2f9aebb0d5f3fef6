//! An API server as far as an agent sees one: objects with versions, lists, pages, watches, patches; and every fault
//! that a real one shows. A thread a connection, in the network namespace of the thread that starts it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use super::Node;

/// What is wrong with the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Connections are closed as soon as they are made.
    Down,
    /// Every request is refused with this status and message.
    Refuses(u16, &'static str),
    /// Every answer is this, and the connection ends.
    Says(&'static str),
    /// Requests are read and never answered.
    Mute,
}

#[derive(Debug)]
struct State {
    /// By path, such as `/api/v1/nodes/node1`.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Events of nodes, by version.
    events: VecDeque<(u64, &'static str, Value)>,
    /// Watches from before this version are told 410.
    oldest: u64,
    /// `sendInitialEvents` is known.
    streaming: bool,
    /// Streams of lists end after the first node.
    cuts_streams: bool,
    fault: Fault,
    /// Connections of an earlier generation are closed.
    generation: u64,
    requests: Vec<String>,
    /// Requests that are refused, and with which status.
    refusals: Vec<(Refused, u16)>,
    /// Requests without this token are refused; all are served where it is empty.
    token: String,
}

/// Which requests are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refused {
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

/// The server; it ends with the test's process.
#[derive(Clone, Debug)]
pub(crate) struct ApiServer {
    shared: Arc<(Mutex<State>, Condvar)>,
    pub(crate) address: SocketAddr,
}

/// A Node as the API shows it, with the noise that a real one has.
pub(crate) fn node_object(name: &str, cidrs: &[&str], addresses: &[&str]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let images: Vec<Value> =
        (0..10).map(|n| json!({"names": [format!("registry.invalid/image{n}")], "sizeBytes": n})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/hostname": name}, "managedFields": [{"manager": "kubelet"}]},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
        "status": {"addresses": addresses, "images": images,
            "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// Dual-stack node number `n` as all tests know it.
pub(crate) fn dual_object(n: u8) -> Value {
    node_object(
        &format!("node{n}"),
        &[&format!("10.244.{n}.0/24"), &format!("fd00:10:244:{n}::/64")],
        &[&format!("192.0.2.1{n}"), &format!("2001:db8::1{n}")],
    )
}

/// A node of ours, and an API server that knows it and others by their numbers.
pub(crate) fn cluster(nodes: &[u8]) -> (Node, ApiServer) {
    let node = Node::new();
    let server = ApiServer::start();
    for n in nodes {
        server.apply(dual_object(*n));
    }
    (node, server)
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State {
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
        };
        let server = Self {
            shared: Arc::new((Mutex::new(state), Condvar::new())),
            address: listener.local_addr().unwrap(),
        };
        let accepting = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = accepting.clone();
                std::thread::spawn(move || connection.serve(stream));
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    fn changed(&self) {
        self.shared.1.notify_all();
    }

    /// A kubeconfig for this server.
    pub(crate) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: \"http://{}\"}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n",
            self.address
        )
    }

    pub(crate) fn apply(&self, object: Value) {
        let path = format!("/api/v1/nodes/{}", object["metadata"]["name"].as_str().unwrap());
        self.state().put(&path, object);
        self.changed();
    }

    pub(crate) fn delete(&self, name: &str) {
        self.state().delete(&format!("/api/v1/nodes/{name}"));
        self.changed();
    }

    /// Deletes every node of which this holds, at once.
    pub(crate) fn delete_all(&self, of: impl Fn(&str) -> bool) {
        let mut state = self.state();
        let names =
            state.nodes().into_iter().filter_map(|node| Some(node["metadata"]["name"].as_str()?.to_owned()));
        for name in names.filter(|name| of(name)) {
            state.delete(&format!("/api/v1/nodes/{name}"));
        }
        drop(state);
        self.changed();
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        let mut state = self.state();
        state.fault = fault;
        state.generation += 1;
        drop(state);
        self.changed();
    }

    /// Streams of lists end after the first node, as for a watcher that is too slow.
    pub(crate) fn cut_streams(&self) {
        self.state().cuts_streams = true;
    }

    /// Lists are sent by pages only, as by an old server.
    pub(crate) fn forget_streaming(&self) {
        self.state().streaming = false;
    }

    /// Forgets all events so far, and closes every connection.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.events.clear();
        state.oldest = state.version;
        state.generation += 1;
        drop(state);
        self.changed();
    }

    /// Another history: these nodes only, at this version.
    pub(crate) fn restore(&self, version: u64, nodes: &[Value]) {
        let mut state = self.state();
        state.objects.clear();
        state.version = version;
        for node in nodes {
            let path = format!("/api/v1/nodes/{}", node["metadata"]["name"].as_str().unwrap());
            state.put(&path, node.clone());
        }
        state.events.clear();
        state.oldest = state.version;
        state.generation += 1;
        drop(state);
        self.changed();
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    pub(crate) fn objects_below(&self, prefix: &str) -> Vec<Value> {
        let state = self.state();
        state
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(prefix))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Refuses whatever writes below `path`.
    pub(crate) fn refuse_writes(&self, path: &str, code: u16) {
        self.state().refusals.push((Refused::Writes(path.to_owned()), code));
    }

    /// Refuses requests of this method to this very path, as a role does that lacks a verb.
    pub(crate) fn forbid(&self, method: &'static str, path: &str) {
        self.state().refusals.push((Refused::Exactly { method, path: path.to_owned() }, 403));
    }

    /// Takes back all that was refused and forbidden.
    pub(crate) fn allow_all(&self) {
        self.state().refusals.clear();
    }

    /// Serves from now on only who shows this token, and closes every connection.
    pub(crate) fn require_token(&self, token: &str) {
        let mut state = self.state();
        state.token = token.to_owned();
        state.generation += 1;
        drop(state);
        self.changed();
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().put(path, object);
        self.changed();
    }

    /// Method and path of each request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// Requests that write.
    pub(crate) fn writes(&self) -> usize {
        self.state().requests.iter().filter(|request| !request.starts_with("GET")).count()
    }

    fn serve(&self, stream: TcpStream) {
        let generation = {
            let state = self.state();
            if state.fault == Fault::Down {
                return;
            }
            state.generation
        };
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        while let Some(request) = Request::read(&mut reader) {
            if self.answer(&request, &mut stream, generation).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request, stream: &mut TcpStream, generation: u64) -> std::io::Result<()> {
        let closed = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
        let (status, body) = {
            let mut state = self.state();
            state.requests.push(format!("{} {}", request.method, request.path));
            if state.generation != generation {
                return Err(closed());
            }
            match state.fault.clone() {
                Fault::None => {}
                Fault::Down => return Err(closed()),
                Fault::Refuses(code, message) => {
                    drop(state);
                    return respond(
                        stream,
                        code,
                        &json!({"kind": "Status", "code": code, "message": message}),
                    );
                }
                Fault::Says(text) => {
                    drop(state);
                    stream.write_all(text.as_bytes())?;
                    return Err(closed());
                }
                Fault::Mute => {
                    while state.generation == generation {
                        state = self.shared.1.wait(state).unwrap();
                    }
                    return Err(closed());
                }
            }
            if !state.token.is_empty() && request.token != state.token {
                drop(state);
                return respond(
                    stream,
                    401,
                    &json!({"kind": "Status", "code": 401, "message": "Unauthorized"}),
                );
            }
            let is_watch = request.path == "/api/v1/nodes" && request.query("watch").is_some();
            if is_watch && state.refusal(request).is_none() {
                drop(state);
                return self.watch(request, stream, generation);
            }
            state.handle(request)
        };
        if request.method != "GET" {
            self.changed();
        }
        respond(stream, status, &body)
    }

    fn watch(&self, request: &Request, stream: &mut TcpStream, generation: u64) -> std::io::Result<()> {
        let mut from = {
            let state = self.state();
            if request.query("sendInitialEvents").is_some() {
                if !state.streaming {
                    let body =
                        json!({"kind": "Status", "code": 422, "message": "sendInitialEvents is forbidden"});
                    drop(state);
                    return respond(stream, 422, &body);
                }
                let (nodes, version, is_cut) = (state.nodes(), state.version, state.cuts_streams);
                drop(state);
                head(stream)?;
                for node in nodes {
                    chunk(stream, &json!({"type": "ADDED", "object": node}))?;
                    if is_cut {
                        return Err(std::io::ErrorKind::ConnectionAborted.into());
                    }
                }
                let end = json!({"k8s.io/initial-events-end": "true"});
                let metadata = json!({"resourceVersion": version.to_string(), "annotations": end});
                chunk(
                    stream,
                    &json!({"type": "BOOKMARK", "object": {"kind": "Node", "metadata": metadata}}),
                )?;
                version
            } else {
                let from: u64 =
                    request.query("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
                let (oldest, newest) = (state.oldest, state.version);
                drop(state);
                head(stream)?;
                if from < oldest || from > newest {
                    let status =
                        json!({"kind": "Status", "code": 410, "message": "too old resource version"});
                    return chunk(stream, &json!({"type": "ERROR", "object": status}));
                }
                from
            }
        };
        loop {
            let mut state = self.state();
            let fresh: Vec<_> = loop {
                if state.generation != generation {
                    return Err(std::io::ErrorKind::ConnectionAborted.into());
                }
                let fresh: Vec<_> =
                    state.events.iter().filter(|(version, ..)| *version > from).cloned().collect();
                if !fresh.is_empty() {
                    break fresh;
                }
                state = self.shared.1.wait_timeout(state, Duration::from_secs(60)).unwrap().0;
            };
            drop(state);
            for (version, kind, object) in fresh {
                chunk(stream, &json!({"type": kind, "object": object}))?;
                from = version;
            }
        }
    }
}

impl State {
    fn nodes(&self) -> Vec<Value> {
        let nodes = self.objects.iter().filter(|(path, _)| path.starts_with("/api/v1/nodes/"));
        nodes.map(|(_, node)| node.clone()).collect()
    }

    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let known = self.objects.insert(path.to_owned(), object.clone()).is_some();
        if path.starts_with("/api/v1/nodes/") {
            self.events.push_back((self.version, if known { "MODIFIED" } else { "ADDED" }, object));
        }
    }

    fn delete(&mut self, path: &str) {
        if let Some(mut object) = self.objects.remove(path) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.events.push_back((self.version, "DELETED", object));
        }
    }

    fn refusal(&self, request: &Request) -> Option<u16> {
        self.refusals.iter().find(|(refused, _)| refused.is(request)).map(|(_, code)| *code)
    }

    fn handle(&mut self, request: &Request) -> (u16, Value) {
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

fn head(stream: &mut TcpStream) -> std::io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
}

fn chunk(stream: &mut TcpStream, line: &Value) -> std::io::Result<()> {
    let line = format!("{line}\n");
    stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())
}

fn respond(stream: &mut TcpStream, status: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

struct Request {
    method: String,
    path: String,
    query: String,
    /// Of the header Authorization; empty where there is none.
    token: String,
    body: Value,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (mut length, mut token) = (0, String::new());
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("authorization")
            {
                token = value.trim().trim_start_matches("Bearer ").to_owned();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Some(Self { method, path: path.to_owned(), query: query.to_owned(), token, body })
    }

    fn query(&self, key: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}
