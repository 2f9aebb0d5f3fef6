//! A Lease (coordination.k8s.io/v1) by which one of many does what only one may. Others' clocks are not believed: a Lease
//! has run out once it has not changed for its whole duration while we looked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use node_network::cluster::rfc3339;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::PodCidrError;
use crate::kubernetes::api::{Api, ApiError, Payload};

/// A Lease that is not renewed for so long is anybody's.
const DURATION: Duration = Duration::from_secs(15);
/// It is renewed so often.
pub(super) const RENEW: Duration = Duration::from_secs(5);
/// The holder gives nothing later than this after it renewed: what it has begun must end while it holds.
const CERTAIN: Duration = Duration::from_secs(8);

/// One Lease, and what is known of it.
#[derive(Debug)]
pub(super) struct Lease {
    collection: String,
    name: String,
    namespace: String,
    identity: String,
    /// When we last wrote it.
    renewed: Option<Instant>,
    /// Its version when last read, and since when it has been that.
    seen: Option<(String, Instant)>,
    holder: String,
}

impl Lease {
    pub(super) fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            collection: format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
            renewed: None,
            seen: None,
            holder: String::new(),
        }
    }

    /// It is ours, and will be for a while.
    pub(super) fn holds(&self) -> bool {
        self.renewed.is_some_and(|at| at.elapsed() < CERTAIN)
    }

    /// Takes it, or says who has it, after as long as a holder that died would keep it.
    pub(super) async fn take_or_fail(&mut self, api: &mut Api) -> Result<(), PodCidrError> {
        let deadline = Instant::now() + DURATION + RENEW;
        while !self.try_take(api).await? {
            if Instant::now() > deadline {
                let lease = format!("{}/{}", self.namespace, self.name);
                return Err(PodCidrError::HeldBy { holder: self.holder.clone(), lease });
            }
            tokio::time::sleep(RENEW / 5).await;
        }
        Ok(())
    }

    /// Takes or renews it, if it is ours or nobody's.
    pub(super) async fn try_take(&mut self, api: &mut Api) -> Result<bool, ApiError> {
        let path = format!("{}/{}", self.collection, self.name);
        let written = Instant::now();
        let result = match api.get::<Value>(&path).await {
            Ok(lease) if self.may_take(&lease) => {
                let body = self.taken(Some(&lease));
                api.request::<Value>(Method::PUT, &path, Some(json_payload(&body))).await
            }
            Ok(_) => {
                self.renewed = None;
                return Ok(false);
            }
            Err(error) if error.code() == Some(404) => {
                let body = self.taken(None);
                api.request::<Value>(Method::POST, &self.collection, Some(json_payload(&body))).await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(_) => {
                self.renewed = Some(written);
                Ok(true)
            }
            // Somebody was faster.
            Err(error) if error.code() == Some(409) => {
                self.renewed = None;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives it back, so that another need not wait. That it runs out by itself is good enough where this fails.
    pub(super) async fn release(&mut self, api: &mut Api) {
        if self.renewed.take().is_none() {
            return;
        }
        let path = format!("{}/{}", self.collection, self.name);
        let Ok(mut lease) = api.get::<Value>(&path).await else { return };
        if lease["spec"]["holderIdentity"] == self.identity.as_str() {
            lease["spec"]["holderIdentity"] = json!("");
            let _ = api.request::<Value>(Method::PUT, &path, Some(json_payload(&lease))).await;
        }
    }

    fn may_take(&mut self, lease: &Value) -> bool {
        self.may_take_at(lease, Instant::now())
    }

    fn may_take_at(&mut self, lease: &Value, now: Instant) -> bool {
        self.holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        if self.holder.is_empty() || self.holder == self.identity {
            return true;
        }
        let version = lease["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if seen == version => {
                let seconds =
                    lease["spec"]["leaseDurationSeconds"].as_u64().map_or(DURATION, Duration::from_secs);
                now >= *since + seconds
            }
            _ => {
                self.seen = Some((version.to_owned(), now));
                false
            }
        }
    }

    /// The Lease as ours; with the version that was read, so that only one of two succeeds.
    fn taken(&self, before: Option<&Value>) -> Value {
        let now = micros_now();
        let mut lease = before.cloned().unwrap_or_else(|| {
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": self.name, "namespace": self.namespace}, "spec": {"leaseTransitions": 0}})
        });
        let spec = &mut lease["spec"];
        if spec["holderIdentity"] != self.identity.as_str() {
            let transitions = spec["leaseTransitions"].as_u64().unwrap_or_default();
            spec["leaseTransitions"] = json!(transitions + u64::from(before.is_some()));
            spec["acquireTime"] = json!(now);
        }
        spec["holderIdentity"] = json!(self.identity);
        spec["leaseDurationSeconds"] = json!(DURATION.as_secs());
        spec["renewTime"] = json!(now);
        lease
    }
}

fn json_payload(body: &Value) -> Payload {
    Payload { media_type: "application/json", bytes: body.to_string().into_bytes() }
}

/// `MicroTime` wants six digits.
fn micros_now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = rfc3339(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), now.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Value {
        json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}})
    }

    #[test]
    fn a_lease_is_taken_that_is_ours_nobodys_or_was_not_renewed_while_we_looked() {
        let mut ours = Lease::new("kube-system", "x", "me");
        let now = Instant::now();
        assert!(ours.may_take_at(&lease("me", "1"), now));
        assert!(ours.may_take_at(&lease("", "1"), now));
        assert!(!ours.may_take_at(&lease("other", "2"), now));
        assert!(!ours.may_take_at(&lease("other", "2"), now + DURATION / 2));
        assert!(!ours.may_take_at(&lease("other", "3"), now + DURATION), "it was renewed");
        assert!(!ours.may_take_at(&lease("other", "3"), now + DURATION * 3 / 2));
        assert!(ours.may_take_at(&lease("other", "3"), now + DURATION * 2));
    }

    #[test]
    fn taking_counts_the_transition_and_keeps_the_version_that_was_read() {
        let ours = Lease::new("kube-system", "x", "me");
        let taken = ours.taken(Some(&lease("other", "7")));
        assert_eq!(
            (&taken["metadata"]["resourceVersion"], &taken["spec"]["leaseTransitions"]),
            (&json!("7"), &json!(1))
        );
        let renewed = ours.taken(Some(&taken));
        assert_eq!(renewed["spec"]["acquireTime"], taken["spec"]["acquireTime"]);
        assert_eq!(ours.taken(None)["spec"]["leaseTransitions"], 0);
    }

    #[test]
    fn nothing_is_given_on_a_lease_that_may_run_out() {
        let mut ours = Lease::new("kube-system", "x", "me");
        assert!(!ours.holds());
        ours.renewed = Some(Instant::now());
        assert!(ours.holds());
        ours.renewed = Instant::now().checked_sub(CERTAIN);
        assert!(!ours.holds());
    }
}
