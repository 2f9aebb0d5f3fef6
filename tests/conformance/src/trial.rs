//! One run of one case: a fresh node, its steps by the plugins of one side (or of two, the node being switched
//! half-way), and the story of what each step came to.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use cni_spec::Command as Verb;

use crate::case::{Call, Case, Step};
use crate::error::SuiteError;
use crate::neutral::{Neutral, is_mac};
use crate::picture::{self, Detail};
use crate::probe;
use crate::runtime::{Answer, BinFolders, Runtime};
use crate::scene::Scene;

/// What duplicate detection takes at most, several times over.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Whose plugins make the ADDs, and whose do all else.
#[derive(Clone, Debug)]
pub(crate) struct Sides {
    pub(crate) adds: PathBuf,
    pub(crate) rest: PathBuf,
    /// Plugins that no side has.
    pub(crate) foreign: PathBuf,
}

impl Sides {
    fn of(&self, call: &Call) -> BinFolders {
        let side = if call.verb == Verb::Add && !call.after_switch { &self.adds } else { &self.rest };
        BinFolders { side: side.clone(), foreign: self.foreign.clone() }
    }
}

/// The story of a case, in words that do not depend on names a plugin chose: one entry a step.
pub(crate) fn run(case: &Case, sides: &Sides) -> Result<Value, SuiteError> {
    std::thread::scope(|scope| {
        // A thread of its own, which takes its namespaces with it.
        scope.spawn(|| tell(case, sides)).join().unwrap_or(Err(SuiteError::Panicked))
    })
}

fn tell(case: &Case, sides: &Sides) -> Result<Value, SuiteError> {
    let pods = case.pods();
    let scene = Scene::enter(&pods)?;
    let text = case.text();
    let has = |word: &str| text.contains(word);
    let detail = Detail {
        vlans: has("vlan"),
        queues: has("\"bandwidth\""),
        policy: has("\"sbr\""),
        rules: ["portmap", "firewall", "masq", "spoof"].into_iter().any(has),
    };
    let mut neutral = Neutral::new(text.clone());
    let mut runtime = Runtime::default();
    let mut story = Map::new();
    for (number, step) in (1..).zip(&case.steps) {
        match step {
            Step::Shell { at, line } => {
                // What has nothing to work on, because a plugin refused, is a part of the story.
                let outcome = match scene.run(at, line) {
                    Ok(_) => "done",
                    Err(SuiteError::Command { .. }) => "failed",
                    Err(error) => return Err(error),
                };
                story.insert(format!("{number} shell"), json!(outcome));
            }
            Step::Probe(probe) => {
                settle(&scene, &pods)?;
                let name = format!("{number} {} to {} port {}", probe.from, probe.at, probe.to);
                story.insert(name, probe::outcome(&scene, probe)?);
            }
            Step::Call(call) => {
                let network = case.networks.get(call.network).unwrap_or(&Value::Null);
                let answer = runtime.call(call, network, &sides.of(call))?;
                let mut chapter = picture::take(&scene, &pods, detail, &mut neutral)?;
                chapter["answer"] = told(answer, &chapter);
                let name = format!("{number} {} {}", call.verb.as_str(), call.pod);
                story.insert(name.trim_end().to_owned(), neutral.document(&chapter));
            }
        }
    }
    Ok(Value::Object(story))
}

/// Waits until no address is still tried for duplicates: how soon one is of use is measured elsewhere.
fn settle(scene: &Scene, pods: &[&str]) -> Result<(), SuiteError> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    for name in std::iter::once(&"node").chain(pods) {
        while !picture::is_settled(scene, name)? && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// An answer as a document. Messages are for people; an Ethernet address is right if the link has it.
fn told(answer: Answer, picture: &Value) -> Value {
    match answer {
        Answer::Silence => json!("nothing"),
        Answer::Refusal { plugin, error } => {
            json!(format!("refused by {plugin} with code {}", error["code"]))
        }
        Answer::Result(mut result) => {
            if let Some(interfaces) = result["interfaces"].as_array_mut() {
                for interface in interfaces {
                    check_mac(interface, picture);
                }
            }
            if let Some(versions) = result.get_mut("supportedVersions").and_then(Value::as_array_mut) {
                versions.sort_by_key(ToString::to_string);
            }
            result
        }
    }
}

fn check_mac(interface: &mut Value, picture: &Value) {
    let Some(mac) = interface["mac"].as_str().filter(|mac| is_mac(mac)) else { return };
    let sandbox = interface["sandbox"].as_str().unwrap_or_default();
    let place = sandbox.rsplit('/').next().filter(|pod| !pod.is_empty()).unwrap_or("node");
    let name = interface["name"].as_str().unwrap_or_default();
    let has = picture[place]["links"][name]["mac"].as_str().unwrap_or("none");
    if !has.eq_ignore_ascii_case(mac) {
        interface["mac"] = json!("not that of the link");
    }
}
