//! As much of a system bus with firewalld on it as the plugin speaks to.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Answers on a socket in `folder` for as long as the test runs; the sources of its zones, as `ZONE ADDRESS`.
pub(crate) fn start(folder: &Path) -> (PathBuf, Arc<Mutex<BTreeSet<String>>>) {
    let path = folder.join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let sources = Arc::new(Mutex::new(BTreeSet::new()));
    let held = Arc::clone(&sources);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap(), &held);
        }
    });
    (path, sources)
}

fn serve(mut stream: UnixStream, sources: &Mutex<BTreeSet<String>>) {
    let mut line = Vec::new();
    let mut byte = [0];
    let mut read_line = |stream: &mut UnixStream| {
        line.clear();
        while !line.ends_with(b"\r\n") && stream.read(&mut byte).unwrap() == 1 {
            line.push(byte[0]);
        }
        String::from_utf8(line.clone()).unwrap()
    };
    assert!(read_line(&mut stream).starts_with("\0AUTH EXTERNAL "));
    stream.write_all(b"OK 0123456789abcdef\r\n").unwrap();
    assert_eq!(read_line(&mut stream), "BEGIN\r\n");
    let mut head = [0; 16];
    while stream.read_exact(&mut head).is_ok() {
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        let mut rest = vec![0; word(12).next_multiple_of(8) + word(4)];
        stream.read_exact(&mut rest).unwrap();
        let names = String::from_utf8_lossy(&rest).into_owned();
        let body = &rest[word(12).next_multiple_of(8)..];
        let source = texts(body).join(" ");
        let mut sources = sources.lock().unwrap();
        let truth = |value: bool| (b"b", u32::from(value).to_le_bytes().to_vec(), 2);
        let (signature, body, kind) = if names.contains("NameHasOwner") {
            truth(true)
        } else if names.contains("addSource") && !sources.insert(source.clone()) {
            (b"s", text("ZONE_ALREADY_SET: it is there"), 3)
        } else if names.contains("querySource") {
            truth(sources.contains(&source))
        } else if names.contains("removeSource") {
            sources.remove(&source);
            (b"s", text("zone"), 2)
        } else {
            (b"s", text(":1.7"), 2)
        };
        let serial = u32::from_le_bytes(head[8..12].try_into().unwrap());
        stream.write_all(&reply(kind, serial, signature[0], &body)).unwrap();
    }
}

fn texts(body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0usize;
    while at + 4 < body.len() {
        at = at.next_multiple_of(4);
        let length = u32::from_le_bytes(body[at..at + 4].try_into().unwrap()) as usize;
        found.push(String::from_utf8(body[at + 4..at + 4 + length].to_vec()).unwrap());
        at += 4 + length + 1;
    }
    found
}

fn text(text: &str) -> Vec<u8> {
    let mut body = u32::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    body.extend_from_slice(text.as_bytes());
    body.push(0);
    body
}

fn reply(kind: u8, to: u32, signature: u8, body: &[u8]) -> Vec<u8> {
    let mut fields = vec![5, 1, b'u', 0];
    fields.extend_from_slice(&to.to_le_bytes());
    fields.extend_from_slice(&[8, 1, b'g', 0, 1, signature, 0]);
    let mut message = vec![b'l', kind, 0, 1];
    message.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    message.extend_from_slice(&9u32.to_le_bytes());
    message.extend_from_slice(&u32::try_from(fields.len()).unwrap().to_le_bytes());
    message.extend_from_slice(&fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(body);
    message
}
