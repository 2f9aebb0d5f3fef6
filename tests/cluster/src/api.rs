//! Speaking to the API server, through `kubectl proxy`: plain HTTP/1.0, one request a connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::error::{Outcome, TierError};

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of an answer an error shows.
const SHOWN: usize = 600;

/// The API server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Api;

impl Api {
    /// Where `kubectl proxy` listens.
    pub const PROXY_PORT: u16 = 8001;

    /// The one of this tier.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// The text at a path.
    pub fn get_text(self, path: &str) -> Outcome<String> {
        checked("GET", path, request("GET", path, None)?)
    }

    /// The object or list at a path.
    pub fn get(self, path: &str) -> Outcome<Value> {
        parse(path, &self.get_text(path)?)
    }

    /// The object at a path; none where there is none.
    pub fn find(self, path: &str) -> Outcome<Option<Value>> {
        match self.get(path) {
            Ok(found) => Ok(Some(found)),
            Err(TierError::Api { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The items of the list at a path.
    pub fn list(self, path: &str) -> Outcome<Vec<Value>> {
        match self.get(path)?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(TierError::Wrong(format!("GET {path} gave no list"))),
        }
    }

    /// Makes an object as it is given, or changes it to be so (server-side apply).
    pub fn apply(self, path: &str, object: &Value) -> Outcome<Value> {
        let path = format!("{path}?fieldManager=cluster-tier&force=true");
        let answer = request("PATCH", &path, Some(("application/apply-patch+yaml", &object.to_string())))?;
        parse(&path, &checked("PATCH", &path, answer)?)
    }

    /// Makes an object below a path.
    pub fn create(self, path: &str, object: &Value) -> Outcome<Value> {
        let answer = request("POST", path, Some(("application/json", &object.to_string())))?;
        parse(path, &checked("POST", path, answer)?)
    }

    /// Changes fields of an object (RFC 7386).
    pub fn merge(self, path: &str, change: &Value) -> Outcome<Value> {
        let answer = request("PATCH", path, Some(("application/merge-patch+json", &change.to_string())))?;
        parse(path, &checked("PATCH", path, answer)?)
    }

    /// Deletes an object; one that is gone is well.
    pub fn delete(self, path: &str) -> Outcome {
        match request("DELETE", path, None)? {
            (404, _) => Ok(()),
            answer => checked("DELETE", path, answer).map(|_| ()),
        }
    }
}

fn parse(path: &str, text: &str) -> Outcome<Value> {
    serde_json::from_str(text)
        .map_err(|error| TierError::Wrong(format!("{path} did not answer JSON: {error}")))
}

fn checked(verb: &str, path: &str, (status, body): (u16, String)) -> Outcome<String> {
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let body = body.chars().take(SHOWN).collect();
    Err(TierError::Api { request: format!("{verb} {path}"), status, body })
}

fn request(verb: &str, path: &str, body: Option<(&str, &str)>) -> Outcome<(u16, String)> {
    let failed = || TierError::io(format!("{verb} {path}"));
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, Api::PROXY_PORT)).map_err(failed())?;
    connection.set_read_timeout(Some(PATIENCE)).map_err(failed())?;
    let mut text = format!("{verb} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n");
    if let Some((kind, body)) = body {
        text += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    text += body.map_or("", |(_, body)| body);
    connection.write_all(text.as_bytes()).map_err(failed())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).map_err(failed())?;
    split(&answer).ok_or_else(|| failed()(std::io::Error::other("the answer is no HTTP")))
}

/// Status and body of an answer.
fn split(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        let answer = "HTTP/1.0 404 Not Found\r\nContent-Type: x\r\n\r\n{}";
        assert_eq!(split(answer), Some((404, "{}".to_owned())));
        assert_eq!(split("nonsense"), None);
    }
}
