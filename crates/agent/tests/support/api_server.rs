//! An API server as far as an agent sees one: objects with versions, lists, pages, watches, patches; and every fault
//! that a real one shows. A thread a connection, in the network namespace of the thread that starts it.

mod http;
mod serving;
mod state;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use serde_json::{Value, json};

use self::state::{Refused, State};
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
        let server = Self {
            shared: Arc::new((Mutex::new(State::new()), Condvar::new())),
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
}
