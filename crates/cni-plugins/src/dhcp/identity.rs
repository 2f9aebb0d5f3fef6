//! Who a pod is to a DHCP server: client id, hardware address, name (pure).

use attachment::{Attachment, MacAddress, NetworkName};
use cni_spec::{ClientId, CniArgs, CniError, DhcpConf, ErrorCode};
use dhcp_client::{Identity, code};

use crate::fnv::fnv1a;

/// The longest client id that the reference sends, its leading zero aside.
const MAX_CLIENT_ID: usize = 254;

/// Who the pod of an attachment is. `raw_args` is `CNI_ARGS`; `mac` the address of its link, where it has one already.
pub(super) fn identity(
    conf: &DhcpConf,
    (network, attachment): (&NetworkName, &Attachment),
    (args, raw_args): (&CniArgs, &str),
    mac: Option<MacAddress>,
) -> Result<Identity, CniError> {
    let client_id = client_id(conf, network, attachment, args);
    let mac = mac.map_or_else(|| mac_of(&client_id), MacAddress::octets);
    let mut identity = Identity {
        mac,
        client_id,
        provided: Vec::new(),
        requested: conf.requested.clone(),
        subnet: conf.subnet,
    };
    if let Some(name) = &args.pod_name {
        identity.provided.push((code::HOST_NAME, name.clone().into_bytes()));
    }
    for option in &conf.provided {
        let from_arg = option.from_arg.as_deref().and_then(|key| argument(raw_args, key));
        let Some(value) = from_arg.or(option.value.as_deref()) else { continue };
        if value.len() > usize::from(u8::MAX) {
            return Err(CniError::new(
                ErrorCode::InvalidEnvironment,
                format!(
                    "`CNI_ARGS`: {} has {} bytes, and DHCP option {} holds 255: shorten it",
                    option.from_arg.as_deref().unwrap_or_default(),
                    value.len(),
                    option.code
                ),
            ));
        }
        if option.code == code::CLIENT_ID {
            identity.client_id = value.into();
        } else {
            identity.provided.retain(|(code, _)| *code != option.code);
            identity.provided.push((option.code, value.into()));
        }
    }
    Ok(identity)
}

/// Whether the pod's lease is for every life of a pod of its name.
pub(super) fn is_of_name(conf: &DhcpConf, args: &CniArgs) -> bool {
    conf.client_id == ClientId::Pod && args.pod_name.is_some()
}

/// The reference's, so that a server knows the containers that it knew; or the pod's name. The zero says that it is no
/// hardware address (RFC 2132, section 9.14).
fn client_id(conf: &DhcpConf, network: &NetworkName, attachment: &Attachment, args: &CniArgs) -> Vec<u8> {
    let ifname = attachment.ifname();
    let name = match (&args.pod_namespace, &args.pod_name) {
        (namespace, Some(pod)) if is_of_name(conf, args) => {
            format!("{}/{pod}/{network}/{ifname}", namespace.as_deref().unwrap_or("default"))
        }
        _ => format!("{}/{network}/{ifname}", attachment.container_id()),
    };
    let mut id = vec![0];
    if name.len() <= MAX_CLIENT_ID {
        id.extend(name.bytes());
    } else {
        let hash = format!("{:016x}", fnv1a(&[&name]));
        id.extend(name.bytes().take(MAX_CLIENT_ID - hash.len()));
        id.extend(hash.bytes());
    }
    id
}

/// A hardware address that follows from the client id: whoever comes back is known by both.
fn mac_of(client_id: &[u8]) -> [u8; 6] {
    let mut hash = fnv1a(&[&String::from_utf8_lossy(client_id)]);
    hash ^= hash >> 40;
    let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
    // Locally administered, unicast (IEEE 802: the second-lowest bit of the first byte).
    [0x0a, a, b, c, d, e]
}

fn argument<'a>(raw_args: &'a str, key: &str) -> Option<&'a str> {
    let pairs = raw_args.split(';').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(known, _)| *known == key).map(|(_, value)| value).find(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni_spec::DhcpPluginConf;

    fn identity_of(ipam: &str, args: &str) -> Identity {
        let stdin =
            format!(r#"{{"cniVersion":"1.0.0","name":"lan","type":"x","ipam":{{"type":"dhcp"{ipam}}}}}"#);
        let conf = DhcpPluginConf::parse(stdin.as_bytes()).unwrap();
        let attachment = "0123:eth0".parse().unwrap();
        let parsed = CniArgs::parse(args).unwrap();
        identity(&conf.dhcp, (&conf.base.name, &attachment), (&parsed, args), None).unwrap()
    }

    const POD: &str = "K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0";

    #[test]
    fn a_container_has_the_references_client_id_and_its_pods_name() {
        let found = identity_of("", POD);
        assert_eq!(found.client_id, b"\x000123/lan/eth0");
        assert_eq!(found.provided, [(12, b"web-0".to_vec())]);
        assert_eq!(found.mac[0] & 3, 2);
    }

    #[test]
    fn a_pod_is_known_by_its_name_where_that_is_wanted() {
        assert_eq!(identity_of(r#","clientID":"pod""#, POD).client_id, b"\0prod/web-0/lan/eth0");
        assert_eq!(identity_of(r#","clientID":"pod""#, "").client_id, b"\x000123/lan/eth0");
    }

    #[test]
    fn provided_options_go_before_ours_and_an_argument_before_a_text() {
        let provide = r#","provide":[{"option":"host-name","value":"a","fromArg":"K8S_POD_UID"},
            {"option":"dhcp-client-identifier","value":"me"},{"option":"60","value":"pod"}]"#;
        let found = identity_of(provide, POD);
        assert_eq!(found.client_id, b"me");
        assert_eq!(found.provided, [(12, b"a".to_vec()), (60, b"pod".to_vec())]);
        let found = identity_of(provide, &format!("{POD};K8S_POD_UID=u1"));
        assert_eq!(found.provided[0], (12, b"u1".to_vec()));
    }

    #[test]
    fn names_that_differ_only_beyond_the_longest_id_stay_apart() {
        let pod = |last: char| {
            let args = format!("K8S_POD_NAMESPACE={};K8S_POD_NAME={}{last}", "n".repeat(60), "p".repeat(250));
            identity_of(r#","clientID":"pod""#, &args)
        };
        assert_eq!(pod('a').client_id.len(), 255);
        assert_ne!(pod('a').client_id, pod('b').client_id);
        assert_ne!(pod('a').mac, pod('b').mac);
    }
}
