//! Makes what stands in the API what is wanted there: looks at what stands, writes what differs, and is silent when
//! nothing does. An API server that refuses costs the node nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use node_network::NodeName;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

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

/// Writes until nobody tells any more.
pub(super) async fn run(
    location: Location,
    this_node: NodeName,
    mut own: watch::Receiver<Option<OwnNode>>,
    mut wanted: watch::Receiver<Wanted>,
    mut events: mpsc::Receiver<EventRequest>,
) {
    let mut writer = Writer {
        api: Api::new(location),
        this_node,
        network: Observed::Unknown,
        condition: None,
        annotation: None,
        told: None,
    };
    let mut backoff = Backoff::default();
    let mut settled = Instant::now();
    let mut again = None;
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                settled = Instant::now() + writer.settling(&wanted.borrow());
                again = Some(settled);
            }
            changed = own.changed() => {
                if changed.is_err() {
                    return;
                }
                again = Some(again.unwrap_or(settled).min(settled.max(Instant::now())));
            }
            Some(event) = events.recv() => {
                let uid = own.borrow().as_ref().map(|own| own.uid.clone()).unwrap_or_default();
                let result = writer.event(&event, &uid).await;
                if writer.failed("write an Event", result) {
                    sleep(backoff.next()).await;
                }
                continue;
            }
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => again = None,
        }
        if Instant::now() < settled {
            continue;
        }
        let Some(node) = own.borrow().clone() else { continue };
        let target = wanted.borrow().clone();
        let result = writer.make(&target, &node).await;
        again = match result {
            Ok(later) => {
                backoff.reset();
                later
            }
            Err(_) => Some(Instant::now() + backoff.next()),
        };
        writer.failed("report to the API server", result.map(|_| ()));
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
    told: Option<String>,
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

    /// Writes what differs; when to look again although nothing changes.
    async fn make(&mut self, wanted: &Wanted, node: &OwnNode) -> Result<Option<Instant>, ApiError> {
        let mut again = None;
        if let Some(addresses) = &wanted.internal_ips
            && node.internal_ip_annotation.as_ref() != Some(addresses)
        {
            match later(&self.annotation, addresses) {
                Some(at) => again = Some(at),
                None => self.annotate(addresses).await?,
            }
        }
        if let Some(condition) = &wanted.condition
            && differs(condition, node)
        {
            match later(&self.condition, condition) {
                Some(at) => again = Some(again.map_or(at, |other: Instant| other.min(at))),
                None => self.set_condition(condition).await?,
            }
        }
        if let Some(status) = &wanted.network {
            self.set_network(status, &node.uid).await?;
        }
        Ok(again)
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

    async fn event(&mut self, request: &EventRequest, uid: &str) -> Result<(), ApiError> {
        let result = match request {
            EventRequest::New(event) => {
                let body = documents::event(event, self.this_node.as_str(), uid);
                let path = events_of(event.occurrence.namespace());
                self.api.request::<Value>(Method::POST, &path, Some(json(&body))).await
            }
            EventRequest::Again { namespace, name, count, last } => {
                self.patch(
                    &format!("{}/{name}", events_of(namespace)),
                    MERGE,
                    &documents::series(*count, *last),
                )
                .await
            }
        };
        match result {
            // It was written by a request whose answer was lost, or the API server has forgotten it.
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(()),
            result => result.map(|_| ()),
        }
    }

    async fn patch(&mut self, path: &str, media_type: &'static str, body: &Value) -> Result<Value, ApiError> {
        let payload = Payload { media_type, bytes: body.to_string().into_bytes() };
        self.api.request(Method::PATCH, path, Some(payload)).await
    }

    fn failed(&mut self, attempted: &str, result: Result<(), ApiError>) -> bool {
        match result {
            Ok(()) => {
                self.told = None;
                false
            }
            Err(error) => {
                let text = error.to_string();
                if self.told.as_ref() != Some(&text) {
                    tracing::warn!("failed to {attempted}: {text}");
                }
                self.told = Some(text);
                true
            }
        }
    }
}

const MERGE: &str = "application/merge-patch+json";

fn events_of(namespace: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

fn json(body: &Value) -> Payload {
    Payload { media_type: "application/json", bytes: body.to_string().into_bytes() }
}

/// The time until which this value is not written once more.
fn later<T: PartialEq>(
    written: &Option<(T, Instant)>,
    wanted: &(impl PartialEq<T> + ?Sized),
) -> Option<Instant> {
    let (value, at) = written.as_ref()?;
    (wanted == value && Instant::now() < *at + REWRITE).then(|| *at + REWRITE)
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
