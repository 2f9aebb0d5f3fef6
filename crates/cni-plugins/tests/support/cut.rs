//! The calls that are cut short, and what a node is before each.

use serde_json::{Value, json};

use super::node::add;
use super::plugin::Call;
use super::scene::Scene;

/// Which call is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The first ADD of a node: store, table and bridge are made.
    FirstAdd,
    /// ADD on a node that has a pod.
    Add,
    /// ADD of an attachment that was there once and whose pod is gone: it removes what is left first.
    AddOverRemains,
    /// ADD that the kernel refuses at its last step but one, and that undoes what it made.
    RefusedAdd,
    Del,
    Gc,
}

impl Cut {
    pub(crate) const ADDS: [Self; 4] = [Self::FirstAdd, Self::Add, Self::AddOverRemains, Self::RefusedAdd];
    pub(crate) const ALL: [Self; 6] =
        [Self::FirstAdd, Self::Add, Self::AddOverRemains, Self::RefusedAdd, Self::Del, Self::Gc];

    /// Makes the node what it is before the call, whatever it was.
    pub(crate) fn prepare(self, scene: &mut Scene) {
        match self {
            Self::FirstAdd => scene.forget_everything(),
            Self::Add | Self::RefusedAdd => {}
            Self::AddOverRemains => {
                add(&scene.pod, &scene.conf);
                scene.lose_pod();
            }
            Self::Del | Self::Gc => {
                add(&scene.pod, &scene.conf);
            }
        }
    }

    pub(crate) fn call(self, scene: &Scene) -> Call {
        match self {
            Self::FirstAdd | Self::Add | Self::AddOverRemains => scene.call("ADD"),
            Self::RefusedAdd => Call::about("ADD", &scene.pod, &refused(&scene.conf)),
            Self::Del => scene.call("DEL"),
            Self::Gc => scene.call("GC"),
        }
    }
}

/// The kernel says no to a route over a gateway that is on no link, when all else in the pod is done.
fn refused(conf: &Value) -> Value {
    let mut conf = conf.clone();
    conf["routes"] = json!([{"dst": "198.18.0.0/15", "gw": "198.51.100.1"}]);
    conf
}
