//! Makes what stands in the API what is wanted there: looks at what stands, writes what differs, and is silent when
//! nothing does. An API server that refuses costs the node nothing.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use node_network::NodeName;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::events::EventRequest;
use super::{NetworkStatus, Wanted, WantedCondition, documents};
use crate::kubernetes::Location;
use crate::kubernetes::api::{Api, ApiError, Payload};
use crate::kubernetes::backoff::Backoff;
use crate::kubernetes::own_node::OwnNode;

/// Bad news is written once it has lasted this long: a link that flaps is no reason to keep pods off a node.
const SETTLE: Duration = Duration::from_secs(5);
/// What we wrote and somebody else undid is written again no sooner.
const REWRITE: Duration = Duration::from_secs(60);

const NETWORKS: &str = "/apis/hostgw.io/v1alpha1/nodenetworks";

/// What is attempted, by the words of logs and conditions.
const ANNOTATE: &str = "write the annotation hostgw.io/internal-ip of this Node";
const SET_CONDITION: &str = "write the condition NetworkUnavailable of this Node";
const SET_NETWORK: &str = "write this node's NodeNetwork";
const WRITE_EVENT: &str = "write an Event";

/// What the API server refuses, by what was attempted, and why.
pub(super) type Refusals = BTreeMap<&'static str, String>;

/// Writes until nobody tells any more.
pub(super) async fn run(
    location: Location,
    this_node: NodeName,
    mut own: watch::Receiver<Option<OwnNode>>,
    mut wanted: watch::Receiver<Wanted>,
    mut events: mpsc::Receiver<EventRequest>,
    refusals: watch::Sender<Refusals>,
) {
    let mut writer = Writer {
        api: Api::new(location),
        this_node,
        network: Observed::Unknown,
        condition: None,
        annotation: None,
        told: None,
        refusals,
    };
    let mut backoff = Backoff::default();
    let mut settled = Instant::now();
    let mut again = None;
    // An Event that could not be written, and when that is tried again; those behind it wait.
    let mut unwritten: Option<(EventRequest, Instant)> = None;
    let mut event_backoff = Backoff::default();
    loop {
        let event_at = unwritten.as_ref().map(|(_, at)| *at);
        let event = tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                settled = Instant::now() + writer.settling(&wanted.borrow());
                again = Some(settled);
                None
            }
            changed = own.changed() => {
                if changed.is_err() {
                    return;
                }
                again = Some(again.unwrap_or(settled).min(settled.max(Instant::now())));
                None
            }
            Some(event) = events.recv(), if unwritten.is_none() => Some(event),
            () = sleep_until(event_at.unwrap_or_else(Instant::now)), if event_at.is_some() => {
                unwritten.take().map(|(event, _)| event)
            }
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                again = None;
                None
            }
        };
        if let Some(event) = event {
            let uid = own.borrow().as_ref().map(|own| own.uid.clone()).unwrap_or_default();
            match writer.event(&event, &uid).await {
                // One that is refused is not wanted the next time either.
                Written::Done | Written::Refused => event_backoff.reset(),
                Written::Failed => unwritten = Some((event, Instant::now() + event_backoff.next())),
            }
            continue;
        }
        if Instant::now() < settled {
            continue;
        }
        let Some(node) = own.borrow().clone() else { continue };
        let target = wanted.borrow().clone();
        let made = writer.make(&target, &node).await;
        again = if made.failed {
            Some(Instant::now() + backoff.next())
        } else {
            backoff.reset();
            made.again
        };
    }
}

/// What became of something to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Done,
    /// The API server does not let us, and will not without somebody's doing.
    Refused,
    /// There was no answer, or one that will be another the next time.
    Failed,
}

/// What became of all that is to stand in the API.
#[derive(Debug, Default)]
struct Made {
    /// Something is not written.
    failed: bool,
    /// When to look again although nothing changes.
    again: Option<Instant>,
}

impl Made {
    fn look_again(&mut self, at: Instant) {
        self.again = Some(self.again.map_or(at, |other| other.min(at)));
    }

    /// Whether the rest must wait.
    const fn took(&mut self, written: Written) -> bool {
        self.failed |= !matches!(written, Written::Done);
        matches!(written, Written::Failed)
    }
}

/// What stands in this node's `NodeNetwork`.
#[derive(Debug, PartialEq, Eq)]
enum Observed {
    Unknown,
    Absent,
    Stands(Value),
    /// The API server does not know the kind.
    NoSuchKind,
}

struct Writer {
    api: Api,
    this_node: NodeName,
    network: Observed,
    /// What was written last, and when.
    condition: Option<(WantedCondition, Instant)>,
    annotation: Option<(String, Instant)>,
    /// The last failure, told once.
    told: Option<(&'static str, String)>,
    refusals: watch::Sender<Refusals>,
}

#[derive(Deserialize)]
struct NodeNetwork {
    #[serde(default)]
    status: Value,
}

impl Writer {
    /// How long `wanted` must last before it is written.
    fn settling(&self, wanted: &Wanted) -> Duration {
        let bad = wanted.condition.as_ref().is_some_and(|condition| condition.unavailable);
        let first = self.condition.is_none() && self.network == Observed::Unknown;
        let unconverged = wanted.network.as_ref().is_some_and(NetworkStatus::is_bad);
        if !first && (bad || unconverged) { SETTLE } else { Duration::ZERO }
    }

    /// Writes what differs. What is refused keeps nothing else from being written; without an answer all the rest waits.
    async fn make(&mut self, wanted: &Wanted, node: &OwnNode) -> Made {
        let mut made = Made::default();
        let addresses = wanted.internal_ips.as_deref();
        let addresses = addresses.filter(|ips| node.internal_ip_annotation.as_deref() != Some(*ips));
        let due_now = due(addresses, self.annotation.as_ref(), Instant::now());
        if self.see_to(ANNOTATE, due_now, &mut made, Self::annotate).await {
            return made;
        }
        let condition = wanted.condition.as_ref().filter(|condition| differs(condition, node));
        let due_now = due(condition, self.condition.as_ref(), Instant::now());
        if self.see_to(SET_CONDITION, due_now, &mut made, Self::set_condition).await {
            return made;
        }
        if let Some(status) = &wanted.network {
            let result = self.set_network(status, &node.uid).await;
            let written = self.outcome(SET_NETWORK, result);
            made.took(written);
        }
        made
    }

    /// Does what is due of one thing; whether the rest must wait.
    async fn see_to<'a, W: ?Sized>(
        &mut self,
        attempted: &'static str,
        due: Due<'a, W>,
        made: &mut Made,
        write: impl AsyncFnOnce(&mut Self, &'a W) -> Result<(), ApiError>,
    ) -> bool {
        let result = match due {
            Due::Nothing => Ok(()),
            Due::Now(wanted) => write(self, wanted).await,
            Due::At(at) => {
                made.look_again(at);
                return false;
            }
        };
        let written = self.outcome(attempted, result);
        made.took(written)
    }

    async fn annotate(&mut self, addresses: &str) -> Result<(), ApiError> {
        let path = format!("/api/v1/nodes/{}", self.this_node);
        self.patch(&path, MERGE, &documents::annotation(addresses)).await?;
        tracing::info!(addresses, "told the cluster this node's addresses");
        self.annotation = Some((addresses.to_owned(), Instant::now()));
        Ok(())
    }

    async fn set_condition(&mut self, condition: &WantedCondition) -> Result<(), ApiError> {
        let path = format!("/api/v1/nodes/{}/status", self.this_node);
        self.patch(&path, "application/strategic-merge-patch+json", &documents::condition(condition, now()))
            .await?;
        tracing::info!(
            unavailable = condition.unavailable,
            reason = condition.reason,
            "wrote NetworkUnavailable"
        );
        self.condition = Some((condition.clone(), Instant::now()));
        Ok(())
    }

    async fn set_network(&mut self, status: &NetworkStatus, uid: &str) -> Result<(), ApiError> {
        let path = format!("{NETWORKS}/{}", self.this_node);
        if matches!(self.network, Observed::Unknown) {
            self.network = match self.api.get::<NodeNetwork>(&path).await {
                Ok(found) => Observed::Stands(found.status),
                Err(error) if error.code() == Some(404) => Observed::Absent,
                Err(error) => return Err(error),
            };
        }
        if matches!(self.network, Observed::Absent) {
            let body = documents::node_network(self.this_node.as_str(), uid);
            match self.api.request::<Value>(Method::POST, NETWORKS, Some(json(&body))).await {
                Ok(_) => self.network = Observed::Stands(Value::Null),
                Err(error) if error.code() == Some(404) => {
                    tracing::info!(
                        "the cluster has no NodeNetwork: apply deploy/hostgw.yaml or the chart of this version to have `kubectl get nodenetworks`"
                    );
                    self.network = Observed::NoSuchKind;
                }
                Err(error) => return Err(error),
            }
        }
        let Observed::Stands(stands) = &self.network else { return Ok(()) };
        let mut target = documents::network_status(status, now());
        if status_without_time(stands) == status_without_time(&target["status"]) {
            return Ok(());
        }
        if stands["converged"] == target["status"]["converged"] && stands["since"].is_string() {
            target["status"]["since"] = stands["since"].clone();
        }
        match self.patch(&format!("{path}/status"), MERGE, &target).await {
            Ok(_) => self.network = Observed::Stands(target["status"].take()),
            Err(error) => {
                // Deleted with an earlier Node, or changed by somebody: looked at anew.
                self.network = Observed::Unknown;
                return Err(error);
            }
        }
        Ok(())
    }

    async fn event(&mut self, request: &EventRequest, uid: &str) -> Written {
        let result = match request {
            EventRequest::New(event) => {
                let body = documents::event(event, self.this_node.as_str(), uid);
                let path = events_of(event.occurrence.namespace());
                self.api.request::<Value>(Method::POST, &path, Some(json(&body))).await
            }
            EventRequest::Again { namespace, name, count, last } => {
                let path = format!("{}/{name}", events_of(namespace));
                self.patch(&path, MERGE, &documents::series(*count, *last)).await
            }
        };
        let result = match result {
            // It was written by a request whose answer was lost, or the API server has forgotten it.
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
            result => result.map(|_| ()),
        };
        self.outcome(WRITE_EVENT, result)
    }

    async fn patch(&mut self, path: &str, media_type: &'static str, body: &Value) -> Result<Value, ApiError> {
        let payload = Payload { media_type, bytes: body.to_string().into_bytes() };
        self.api.request(Method::PATCH, path, Some(payload)).await
    }

    /// Tells what became of it: what is refused as a condition of the node, what failed in the log, once.
    fn outcome(&mut self, attempted: &'static str, result: Result<(), ApiError>) -> Written {
        let Err(error) = result else {
            self.refusals.send_if_modified(|refusals| refusals.remove(attempted).is_some());
            self.told.take_if(|told| told.0 == attempted);
            return Written::Done;
        };
        if is_refusal(&error) {
            let reason = error.to_string();
            self.refusals
                .send_if_modified(|refusals| refusals.insert(attempted, reason.clone()) != Some(reason));
            return Written::Refused;
        }
        let told = (attempted, error.to_string());
        if self.told.as_ref() != Some(&told) {
            tracing::warn!("failed to {attempted}: {}", told.1);
        }
        self.told = Some(told);
        Written::Failed
    }
}

/// Not one of those that pass: no connection, a token that is being renewed, another's write, a server under load.
fn is_refusal(error: &ApiError) -> bool {
    matches!(error.code(), Some(400..=499)) && !matches!(error.code(), Some(401 | 408 | 409 | 429))
}

const MERGE: &str = "application/merge-patch+json";

fn events_of(namespace: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

fn json(body: &Value) -> Payload {
    Payload { media_type: "application/json", bytes: body.to_string().into_bytes() }
}

/// When something is to be written.
#[derive(Debug, PartialEq, Eq)]
enum Due<'a, W: ?Sized> {
    /// It stands, or is not wanted.
    Nothing,
    Now(&'a W),
    /// It was written not long ago, and somebody has undone it since.
    At(Instant),
}

/// When what is wanted and does not stand is due, by what was `written` last, and when.
fn due<'a, W: ?Sized + PartialEq<T>, T>(
    wanted: Option<&'a W>,
    written: Option<&(T, Instant)>,
    now: Instant,
) -> Due<'a, W> {
    let Some(wanted) = wanted else { return Due::Nothing };
    match written {
        Some((last, at)) if wanted == last && now < *at + REWRITE => Due::At(*at + REWRITE),
        _ => Due::Now(wanted),
    }
}

fn differs(wanted: &WantedCondition, node: &OwnNode) -> bool {
    let Some(stands) = &node.network_unavailable else { return true };
    let status = if wanted.unavailable { "True" } else { "False" };
    // Why a network is available is nobody's business: another's reason for it is left alone.
    stands.status != status
        || wanted.unavailable && (stands.reason != wanted.reason || stands.message != wanted.message)
}

fn status_without_time(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(fields) = status.as_object_mut() {
        fields.remove("since");
    }
    status
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_undid_is_written_again_no_sooner_than_after_a_while() {
        let now = Instant::now();
        let written = ("192.0.2.11".to_owned(), now);
        let wanted = |ip| due(Some(ip), Some(&written), now);
        assert_eq!(due::<str, String>(None, Some(&written), now), Due::Nothing);
        assert_eq!(due::<str, String>(Some("192.0.2.11"), None, now), Due::Now("192.0.2.11"));
        assert_eq!(wanted("192.0.2.11"), Due::At(now + REWRITE));
        assert_eq!(wanted("192.0.2.12"), Due::Now("192.0.2.12"));
        assert_eq!(due(Some("192.0.2.11"), Some(&written), now + REWRITE), Due::Now("192.0.2.11"));
    }
}
