//! What the kernel and the file system hold, seen through iproute2 and not through code of ours.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::error::{SuiteError, failed};
use crate::neutral::Neutral;
use crate::scene::{PATH, Scene, output};

/// Settings of each link that plugins are known to touch, or that change what packets may do.
const SYSCTLS_V4: [&str; 5] = ["arp_ignore", "arp_notify", "proxy_arp", "route_localnet", "rp_filter"];
const SYSCTLS_V6: [&str; 8] = [
    "accept_dad",
    "accept_ra",
    "autoconf",
    "dad_transmits",
    "disable_ipv6",
    "forwarding",
    "keep_addr_on_down",
    "proxy_ndp",
];
/// Folders that hold state of plugins.
const STATE: [&str; 3] = ["/var/lib/cni", "/run/cni", "/run/hostgw"];

/// What of a picture takes programs that most cases have no need of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detail {
    pub(crate) vlans: bool,
    pub(crate) queues: bool,
    /// Rules of policy.
    pub(crate) policy: bool,
    /// Whether rules still speak of a pod: in chains and maps of any table.
    pub(crate) rules: bool,
}

/// All of it, for the node and each pod; `neutral` learns which links belong together.
pub(crate) fn take(
    scene: &Scene,
    pods: &[&str],
    detail: Detail,
    neutral: &mut Neutral,
) -> Result<Value, SuiteError> {
    let mut picture = Map::new();
    let mut node_links = Vec::new();
    for name in std::iter::once(&"node").chain(pods) {
        let shown = batch(scene, name, if detail.policy { POLICY_TOO } else { LINKS_AND_ROUTES })?;
        let links = shown.first().map_or(&[][..], Vec::as_slice);
        match *name {
            "node" => node_links = links.to_vec(),
            pod => neutral.learn(&node_links, pod, links),
        }
        picture.insert((*name).to_owned(), namespace(scene, name, detail, &shown)?);
    }
    let mut files = Map::new();
    for folder in STATE {
        read_files(Path::new(folder), &mut files)?;
    }
    picture.insert("files".to_owned(), Value::Object(files));
    Ok(Value::Object(picture))
}

/// Whether every address is the link's for good: one that is still tried for duplicates answers nobody.
pub(crate) fn is_settled(scene: &Scene, name: &str) -> Result<bool, SuiteError> {
    let links = batch(scene, name, "addr show tentative -dadfailed\n")?;
    Ok(links.iter().flatten().all(|link| link["addr_info"].as_array().is_none_or(Vec::is_empty)))
}

/// What `ip` is asked: all tables of both families, and where a case has rules of policy, those of IPv4.
const LINKS_AND_ROUTES: &str = "addr show\nroute show table all\n";
const POLICY_TOO: &str = "addr show\nroute show table all\nrule show\n";

/// The answers of one `ip` to several questions.
fn batch(scene: &Scene, name: &str, questions: &str) -> Result<Vec<Vec<Value>>, SuiteError> {
    let asked = scene.inside(name, || {
        let mut command = Command::new("ip");
        command.args(["-j", "-d", "-batch", "-"]).env_clear().env("PATH", PATH);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(questions.as_bytes())?;
        }
        child.wait_with_output()
    })?;
    let lost = |source| SuiteError::Io { attempted: "execute ip".to_owned(), source };
    json_of(&String::from_utf8_lossy(&asked.map_err(lost)?.stdout), "ip")
}

fn namespace(scene: &Scene, name: &str, detail: Detail, shown: &[Vec<Value>]) -> Result<Value, SuiteError> {
    let part = |index: usize| shown.get(index).map_or(&[][..], Vec::as_slice);
    let links = part(0);
    let names: Vec<&str> = links.iter().filter_map(|link| link["ifname"].as_str()).collect();
    let routes: Vec<&Value> = part(1).iter().collect();
    let of_link = |link: &Value| -> Result<(String, Value), SuiteError> {
        let name = text(link, "ifname");
        let over = routes.iter().filter(|route| route["dev"] == link["ifname"]);
        let mut picture = link_picture(link);
        picture["addresses"] = told(addresses(link));
        picture["routes"] = told(over.filter_map(|route| self::route(route)));
        picture["sysctls"] = sysctls(&name);
        Ok((name, picture))
    };
    let of_no_link = routes.iter().filter(|route| route["dev"].is_null());
    let mut picture = json!({
        "links": scene.inside(name, || links.iter().map(of_link).collect::<Result<Map<_, _>, _>>())??,
        "routes": told(of_no_link.filter_map(|route| self::route(route))),
        "policy": told(part(2).iter().map(policy)),
        "sysctls": scene.inside(name, node_sysctls)?,
    });
    if detail.vlans {
        let ports = json_of(&scene.run(name, "bridge -j vlan show")?, "bridge")?;
        picture["vlans"] = told(ports.iter().flatten().flat_map(vlans));
    }
    if detail.queues {
        picture["queues"] = told(queues(scene, name, &names)?);
    }
    if detail.rules {
        let rules = scene.inside(name, || output(Command::new("nft").args(["list", "ruleset"]), "nft"))??;
        picture["rules speak of"] = told(pod_addresses(&rules));
    }
    Ok(picture)
}

/// Facts as a set, so that a difference names the fact.
fn told(facts: impl IntoIterator<Item = String>) -> Value {
    Value::Object(facts.into_iter().map(|fact| (fact, Value::Bool(true))).collect())
}

fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn link_picture(link: &Value) -> Value {
    let info = &link["linkinfo"];
    let flag = |name: &str| link["flags"].as_array().is_some_and(|flags| flags.iter().any(|it| it == name));
    let mut picture = json!({
        "kind": info["info_kind"], "mtu": link["mtu"], "up": flag("UP"), "promisc": link["promiscuity"],
        "allmulti": flag("ALLMULTI"), "multicast": flag("MULTICAST"), "arp": !flag("NOARP"),
        "queue": link["txqlen"], "master": link["master"], "alias": link["ifalias"],
        "link-local by": link["inet6_addr_gen_mode"], "group": link["group"], "mac": link["address"],
        "over": if info["info_kind"] == "vlan" { &link["link"] } else { &Value::Null },
    });
    for (part, keys) in [
        (
            "info_data",
            &["vlan_filtering", "vlan_default_pvid", "stp_state", "id", "table", "mcast_snooping"][..],
        ),
        ("info_slave_data", &["hairpin", "isolated", "guard", "learning", "flood", "proxy_arp"][..]),
    ] {
        for key in keys.iter().filter(|key| !info[part][**key].is_null()) {
            picture[*key] = info[part][*key].clone();
        }
    }
    picture
}

fn addresses(link: &Value) -> Vec<String> {
    let none = Vec::new();
    let held = link["addr_info"].as_array().unwrap_or(&none);
    // The kernel makes link-local addresses in its own time, once it has noticed a carrier.
    let told = held.iter().filter(|address| !text(address, "local").starts_with("fe80:"));
    let shown = told.map(|address| {
        let flag = |name: &str| if address[name] == true { format!(" {name}") } else { String::new() };
        let broadcast = match text(address, "broadcast") {
            none if none.is_empty() => none,
            some => format!(" brd {some}"),
        };
        format!(
            "{}/{} {}{broadcast}{}{}{}",
            text(address, "local"),
            text(address, "prefixlen"),
            text(address, "scope"),
            flag("noprefixroute"),
            flag("dynamic"),
            flag("dadfailed"),
        )
    });
    shown.collect()
}

/// A route as a line; those that the kernel makes for every address and link are left out.
fn route(route: &Value) -> Option<String> {
    let (destination, table) = (text(route, "dst"), text(route, "table"));
    let of_the_kernel = table == "local"
        || (destination == "fe80::/64" && route["protocol"] == "kernel")
        || destination.starts_with("ff00::/8")
        || route["type"] == "multicast";
    if of_the_kernel {
        return None;
    }
    let mut line = destination;
    for key in
        ["type", "gateway", "table", "protocol", "scope", "prefsrc", "metric", "mtu", "advmss", "priority"]
    {
        // The kernel's default, which some versions of iproute2 say and others do not.
        let usual = (key == "type" && route[key] == "unicast") || (key == "table" && route[key] == "main");
        if !route[key].is_null() && !usual {
            line = format!("{line} {key} {}", text(route, key));
        }
    }
    Some(line)
}

fn policy(rule: &Value) -> String {
    let parts = ["priority", "src", "srclen", "dst", "iif", "oif", "l3mdev", "fwmark", "table"];
    let told = parts.iter().filter(|key| !rule[**key].is_null());
    told.map(|key| format!("{key} {}", text(rule, key))).collect::<Vec<_>>().join(" ")
}

fn vlans(port: &Value) -> Vec<String> {
    let none = Vec::new();
    let held = port["vlans"].as_array().unwrap_or(&none).iter();
    held.map(|vlan| {
        let end = if vlan["vlanEnd"].is_null() { String::new() } else { format!("-{}", vlan["vlanEnd"]) };
        format!("{} {}{end} {}", text(port, "ifname"), vlan["vlan"], vlan["flags"])
    })
    .collect()
}

/// Queueing disciplines that somebody chose, and what sends packets to them.
fn queues(scene: &Scene, name: &str, links: &[&str]) -> Result<Vec<String>, SuiteError> {
    let shown = json_of(&scene.run(name, "tc -j qdisc show")?, "tc")?;
    let mut lines = Vec::new();
    for queue in shown.iter().flatten() {
        if !["noqueue", "pfifo_fast", "fq_codel", "mq"].contains(&text(queue, "kind").as_str()) {
            lines.push(format!("{} {} {}", text(queue, "dev"), text(queue, "kind"), queue["options"]));
        }
    }
    for link in links {
        let filters =
            scene.run(name, &format!("tc filter show dev {link} ingress; tc filter show dev {link}"))?;
        let redirected = filters.lines().filter(|line| line.contains("mirred"));
        lines.extend(redirected.map(|line| format!("{link}: {}", line.trim())));
    }
    Ok(lines)
}

/// The pods' addresses (10.… and fd…) that the rules name.
fn pod_addresses(rules: &str) -> Vec<String> {
    let words = rules.split(|char: char| !char.is_ascii_hexdigit() && !".:".contains(char));
    let is_pods = |word: &&str| {
        word.parse::<std::net::IpAddr>().is_ok() && (word.starts_with("10.") || word.starts_with("fd"))
    };
    let mut named: Vec<String> = words.filter(is_pods).map(str::to_owned).collect();
    named.sort();
    named.dedup();
    named
}

/// The settings of a link, read in the calling thread's namespace.
fn sysctls(link: &str) -> Value {
    let mut values = BTreeMap::new();
    for (family, names) in [("ipv4", &SYSCTLS_V4[..]), ("ipv6", &SYSCTLS_V6[..])] {
        for name in names {
            read_sysctl(&format!("{family}/conf/{link}/{name}"), &format!("{family} {name}"), &mut values);
        }
    }
    json!(values)
}

/// Those of no link, and those of every one.
fn node_sysctls() -> Value {
    let mut values = BTreeMap::new();
    read_sysctl("ipv4/ip_forward", "ipv4 ip_forward", &mut values);
    json!({"node": values, "all": sysctls("all"), "default": sysctls("default")})
}

fn read_sysctl(path: &str, name: &str, values: &mut BTreeMap<String, String>) {
    if let Ok(value) = std::fs::read_to_string(Path::new("/proc/sys/net").join(path)) {
        values.insert(name.to_owned(), value.trim().to_owned());
    }
}

/// Each file with what is in it. A file that is no text is told by its length.
fn read_files(folder: &Path, files: &mut Map<String, Value>) -> Result<(), SuiteError> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(failed("list", folder))?.path();
        if path.is_dir() {
            read_files(&path, files)?;
        } else if path.is_file() {
            let bytes = std::fs::read(&path).map_err(failed("read", &path))?;
            let length = bytes.len();
            let content = String::from_utf8(bytes).unwrap_or_else(|_| format!("({length} bytes)"));
            // How JSON is laid out is no content.
            let document = serde_json::from_str(&content).ok().filter(Value::is_object);
            files.insert(path.display().to_string(), document.unwrap_or(Value::String(content)));
        }
    }
    Ok(())
}

/// The JSON arrays that a program printed, one behind the other.
fn json_of(printed: &str, program: &str) -> Result<Vec<Vec<Value>>, SuiteError> {
    let documents = serde_json::Deserializer::from_str(printed).into_iter::<Vec<Value>>();
    let unreadable = |source| SuiteError::Unreadable { program: program.to_owned(), source };
    documents.map(|document| document.map_err(unreadable)).collect()
}
