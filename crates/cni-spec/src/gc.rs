//! The list that GC gets: the attachments that are still valid.

use link_name::LinkName;

use crate::base_conf::{BaseConf, parse_conf};
use crate::command::Command;
use crate::error::CniError;
use crate::field::Field;
use crate::identifier::{Attachment, ContainerId};
use crate::store_conf::StoreConf;

/// The key of the specification.
const KEY: &str = "cni.dev/valid-attachments";

/// The key that the specification named by mistake; the reference library writes both (containernetworking/cni#1101).
const OLD_KEY: &str = "cni.dev/attachments";

/// More than any node runs; the bound on the input is nearer.
const MAX_ATTACHMENTS: usize = 1 << 20;

/// A call of GC: everything of this network that belongs to none of `valid` may go.
#[derive(Clone, Debug, PartialEq)]
pub struct GcRequest {
    /// Whose records are looked at.
    pub store: StoreConf,
    /// The attachments to keep.
    pub valid: Vec<Attachment>,
    /// `disableGC`: the configuration is shared by several runtimes, so that none of them knows all attachments.
    pub disabled: bool,
}

impl GcRequest {
    /// Reads what the runtime wrote to stdin.
    ///
    /// A list that is missing or `null` is an error, never an empty one: it would delete every running pod's network.
    /// So is a list with one entry that cannot be read.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        Command::Gc.check_allowed_in(base.cni_version)?;
        let store = StoreConf::read(&conf, base)?;
        let disabled = conf.optional("disableGC", Field::boolean)?.unwrap_or(false);
        let list = match conf.get(KEY)? {
            Some(list) => list,
            None => conf.get(OLD_KEY)?.ok_or_else(|| {
                conf.missing(
                    KEY,
                    "the runtime must pass the attachments to keep, an empty list if there are none",
                )
            })?,
        };
        let valid =
            list.list(MAX_ATTACHMENTS)?.map(|entry| read_attachment(&entry)).collect::<Result<_, _>>()?;
        Ok(Self { store, valid, disabled })
    }
}

fn read_attachment(entry: &Field<'_, '_>) -> Result<Attachment, CniError> {
    let container_id = entry.required("containerID", "name the container", |field| {
        ContainerId::new(field.text()?)
            .map_err(|reason| field.refuse_because(format!("container id {reason}")))
    })?;
    let ifname = entry.required("ifname", "name the interface in the container", |field| {
        LinkName::new(field.text()?).map_err(|reason| field.refuse_because(reason))
    })?;
    Ok(Attachment::new(container_id, ifname))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<GcRequest, CniError> {
        GcRequest::parse(format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"hostgw"{rest}}}"#).as_bytes())
    }

    #[test]
    fn the_list_is_read_from_either_key_and_the_right_one_wins() {
        let one = r#"[{"containerID":"a","ifname":"eth0"}]"#;
        let two = r#"[{"containerID":"b","ifname":"eth0"},{"containerID":"b","ifname":"net1"}]"#;
        let both = format!(r#","cni.dev/valid-attachments":{two},"cni.dev/attachments":{one}"#);
        let names = |rest: &str| -> Vec<String> {
            parse(rest).unwrap().valid.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(&both), ["b:eth0", "b:net1"]);
        assert_eq!(names(&format!(r#","cni.dev/attachments":{one}"#)), ["a:eth0"]);
        assert_eq!(names(r#","cni.dev/valid-attachments":[]"#), [""; 0]);
    }

    #[test]
    fn a_missing_or_unreadable_list_is_an_error_and_never_empty() {
        insta::assert_snapshot!(parse("").unwrap_err(), @"`cni.dev/valid-attachments` is missing: the runtime must pass the attachments to keep, an empty list if there are none");
        for list in
            ["null", "{}", r#"[{"containerID":"a"}]"#, r#"[{"containerID":"../a","ifname":"e"}]"#, "[null]"]
        {
            let error = parse(&format!(r#","cni.dev/valid-attachments":{list}"#)).unwrap_err();
            assert!(error.msg.starts_with("`cni.dev/valid-attachments"), "{error}");
        }
    }

    #[test]
    fn gc_is_refused_before_1_1_and_says_when_it_is_disabled() {
        let error = GcRequest::parse(br#"{"cniVersion":"1.0.0","name":"n","type":"t"}"#).unwrap_err();
        assert_eq!(error.code.number(), 1);
        assert!(parse(r#","cni.dev/valid-attachments":[],"disableGC":true"#).unwrap().disabled);
    }
}
