//! How the server answers: a connection's requests one after the other, as its fault has it, and watches that follow events.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::http::{Request, chunk, head, respond};
use super::{ApiServer, Fault};

impl ApiServer {
    pub(super) fn serve(&self, stream: TcpStream) {
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
