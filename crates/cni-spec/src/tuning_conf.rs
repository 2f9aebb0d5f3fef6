//! The configuration of the plugin `tuning`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use crate::base_conf::{BaseConf, parse_conf};
use crate::capability::Capabilities;
use crate::cni_args::CniArgs;
use crate::error::{CniError, ErrorCode};
use crate::excerpt::quoted;
use crate::field::Field;
use crate::mac_address::MacAddress;

const DEFAULT_DATA_DIR: &str = "/run/cni/tuning";
const MAX_SYSCTLS: usize = 1024;

/// Everything that a call is told.
#[derive(Clone, Debug, PartialEq)]
pub struct TuningConf {
    /// The common part.
    pub base: BaseConf,
    /// `dataDir`: where what was before is kept until DEL.
    pub data_dir: PathBuf,
    /// `sysctl`, by the keys as they were written.
    pub sysctls: BTreeMap<String, String>,
    /// `mac`.
    pub mac: Option<MacAddress>,
    /// `promisc`; false leaves the link as it is.
    pub promisc: bool,
    /// `mtu`, in bytes; none, and 0, leave it.
    pub mtu: Option<u32>,
    /// `allmulti`.
    pub allmulti: Option<bool>,
    /// `txQLen`, in packets.
    pub tx_queue_len: Option<u32>,
}

impl TuningConf {
    /// Reads what the runtime wrote to stdin, and `CNI_ARGS`: of what is said twice, `args.cni` wins over
    /// `runtimeConfig`, that over `CNI_ARGS`, and that over the rest.
    pub fn parse(stdin: &[u8], arguments: &CniArgs) -> Result<Self, CniError> {
        let (conf, prev_result) = parse_conf(stdin)?;
        let conf = Field::conf(&conf);
        let base = BaseConf::read(&conf, prev_result)?;
        refuse_sysctls_twice(stdin)?;
        let data_dir = data_dir_of(&conf)?;
        let mut tuning = Wishes::read(&conf)?;
        tuning.mac = Capabilities::read(&conf)?.mac.or(arguments.mac).or(tuning.mac);
        if let Some(args) = conf.get("args")?
            && let Some(cni) = args.get("cni")?
        {
            tuning = Wishes::read(&cni)?.over(tuning);
        }
        Ok(Self {
            base,
            data_dir,
            sysctls: tuning.sysctls,
            mac: tuning.mac,
            promisc: tuning.promisc.unwrap_or_default(),
            mtu: tuning.mtu.filter(|mtu| *mtu != 0),
            allmulti: tuning.allmulti,
            tx_queue_len: tuning.tx_queue_len,
        })
    }

    /// `dataDir` alone, for a verb that takes back what an ADD left: what else is wrong does not matter to it.
    pub fn parse_data_dir(stdin: &[u8]) -> Result<PathBuf, CniError> {
        let (conf, _) = parse_conf(stdin)?;
        data_dir_of(&Field::conf(&conf))
    }

    /// Whether anything of the link is to change.
    #[must_use]
    pub fn changes_link(&self) -> bool {
        self.mac.is_some()
            || self.promisc
            || self.mtu.is_some()
            || self.allmulti.is_some()
            || self.tx_queue_len.is_some()
    }
}

fn data_dir_of(conf: &Field<'_, '_>) -> Result<PathBuf, CniError> {
    match conf.get("dataDir")? {
        Some(field) if !field.text()?.is_empty() => field.absolute_path(),
        _ => Ok(PathBuf::from(DEFAULT_DATA_DIR)),
    }
}

/// What stands in the configuration, or in `args.cni`.
struct Wishes {
    sysctls: BTreeMap<String, String>,
    mac: Option<MacAddress>,
    promisc: Option<bool>,
    mtu: Option<u32>,
    allmulti: Option<bool>,
    tx_queue_len: Option<u32>,
}

impl Wishes {
    fn read(field: &Field<'_, '_>) -> Result<Self, CniError> {
        let sysctls = field.optional("sysctl", |sysctls| sysctls.texts(MAX_SYSCTLS))?;
        let mac = field.optional("mac", |mac| match mac.text()? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|error| mac.refuse_because(error)),
        })?;
        Ok(Self {
            sysctls: sysctls.unwrap_or_default(),
            mac: mac.flatten(),
            promisc: field.optional("promisc", Field::boolean)?,
            mtu: field.optional("mtu", |mtu| mtu.number_as(0..=65_535))?,
            allmulti: field.optional("allmulti", Field::boolean)?,
            tx_queue_len: field.optional("txQLen", |length| length.number_as(0..=u32::MAX.into()))?,
        })
    }

    fn over(self, mut other: Self) -> Self {
        other.sysctls.extend(self.sysctls);
        Self {
            sysctls: other.sysctls,
            mac: self.mac.or(other.mac),
            promisc: self.promisc.or(other.promisc),
            mtu: self.mtu.or(other.mtu),
            allmulti: self.allmulti.or(other.allmulti),
            tx_queue_len: self.tx_queue_len.or(other.tx_queue_len),
        }
    }
}

/// Of a key that JSON has twice, the last would win without a word.
fn refuse_sysctls_twice(stdin: &[u8]) -> Result<(), CniError> {
    #[derive(Deserialize)]
    struct Sysctls {
        #[serde(default)]
        sysctl: Option<Keys>,
    }
    match serde_json::from_slice::<Sysctls>(stdin) {
        Ok(Sysctls { sysctl: Some(Keys { twice: Some(key) }) }) => Err(CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!("`sysctl` has the key {} twice: remove one", quoted(&key)),
        )),
        // What else is wrong with it is told where it is read.
        _ => Ok(()),
    }
}

struct Keys {
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut seen = std::collections::BTreeSet::new();
                let mut twice = None;
                while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if !seen.insert(key.clone()) {
                        twice.get_or_insert(key);
                    }
                }
                Ok(Keys { twice })
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str, arguments: &str) -> Result<TuningConf, CniError> {
        let stdin = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"tuning"{rest}}}"#);
        TuningConf::parse(stdin.as_bytes(), &CniArgs::parse(arguments).unwrap())
    }

    #[test]
    fn the_nearer_wish_wins() {
        let mac = |rest: &str, arguments| parse(rest, arguments).unwrap().mac.unwrap().octets()[5];
        let own = r#","mac":"02:00:00:00:00:01""#;
        assert_eq!(mac(own, ""), 1);
        assert_eq!(mac(own, "MAC=02:00:00:00:00:02"), 2);
        let runtime = format!(r#"{own},"runtimeConfig":{{"mac":"02:00:00:00:00:03"}}"#);
        assert_eq!(mac(&runtime, "MAC=02:00:00:00:00:02"), 3);
        let args =
            format!(r#"{runtime},"args":{{"cni":{{"mac":"02:00:00:00:00:04","mtu":1400}}}},"mtu":1300"#);
        assert_eq!(mac(&args, ""), 4);
        assert_eq!(parse(&args, "").unwrap().mtu, Some(1400));
        let sysctls = r#","sysctl":{"a":"1","b":"2"},"args":{"cni":{"sysctl":{"b":"3"}}}"#;
        let sysctls: Vec<_> = parse(sysctls, "").unwrap().sysctls.into_iter().collect();
        assert_eq!(sysctls, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "3".to_owned())]);
    }

    #[test]
    fn nothing_wanted_changes_nothing() {
        let conf = parse(r#","promisc":false,"mtu":0,"mac":"""#, "").unwrap();
        assert!(!conf.changes_link());
        assert_eq!(conf.data_dir, PathBuf::from("/run/cni/tuning"));
    }

    #[test]
    fn each_wrong_key_is_named() {
        let refused: Vec<String> = [
            r#","sysctl":{"net.a":"1","net.a":"2"}"#,
            r#","sysctl":{"net.a":1}"#,
            r#","sysctl":[]"#,
            r#","mac":"02:00""#,
            r#","mtu":-1"#,
            r#","mtu":"1500""#,
            r#","promisc":1"#,
            r#","allmulti":"yes""#,
            r#","txQLen":-1"#,
            r#","dataDir":"tuning""#,
        ]
        .map(|rest| parse(rest, "").unwrap_err().msg)
        .to_vec();
        insta::assert_debug_snapshot!(refused);
    }
}
