//! Bandwidth: a token bucket for what the node sends to the pod, on the node's end of the pair, and one for what the
//! pod sends, on a link of its own through which that is led. The pod has no hand in either.

use attachment::Record;
use cni_spec::{Bandwidth, CniError, RateLimit};
use kernel::KernelError;
use kernel::link::{self, Link, Made};
use kernel::netlink::{Batch, Socket};
use kernel::traffic_control::{
    Qdisc, TokenBucket, add_ingress, ingress_redirects, qdiscs, redirect_ingress, set_token_bucket,
};

use link_name::LinkName;

use crate::failure::kernel_refused;

/// For how long a packet may wait for tokens, in milliseconds; as the reference plugin.
const LATENCY: u64 = 25;
/// Ethernet's header and a VLAN tag, which count.
const FRAME_HEADER: u64 = 18;
/// So many full packets may always wait, however low the rate: less would starve a TCP flow.
const QUEUED_PACKETS: u64 = 4;

/// Shapes the pod's traffic as configured; `host_index` is the node's end of its pair.
pub(crate) fn limit(
    record: &Record,
    limits: &Bandwidth,
    host_index: u32,
    host: &mut Socket,
) -> Result<(), CniError> {
    let shaping = record.wiring.bandwidth.as_ref().and_then(|bandwidth| bandwidth.ifb.as_ref());
    shape(limits, host_index, record.wiring.mtu, shaping, host).map(drop)
}

/// The same for a pair of this MTU. What the pod sends is led through a link that is made with this name, and given.
pub(crate) fn shape(
    limits: &Bandwidth,
    host_index: u32,
    mtu: u32,
    shaping: Option<&LinkName>,
    host: &mut Socket,
) -> Result<Option<Link>, CniError> {
    if let Some(ingress) = limits.ingress {
        let mut batch = Batch::new();
        set_token_bucket(&mut batch, host_index, &bucket(ingress, mtu));
        host.execute_all(&mut batch).map_err(kernel_refused)?;
    }
    let (Some(egress), Some(name)) = (limits.egress, shaping) else { return Ok(None) };
    let made = link::make(host, name, |batch| link::create_ifb(batch, name, mtu));
    let shaping = match made.map_err(kernel_refused)? {
        Made::New(link) => link,
        Made::Refused(error, _) => {
            return Err(kernel_refused(error.attempting(format!("create ifb link {name}"))));
        }
    };
    let mut batch = Batch::new();
    link::set_no_automatic_link_local(&mut batch, shaping.index);
    set_token_bucket(&mut batch, shaping.index, &bucket(egress, mtu));
    add_ingress(&mut batch, host_index);
    redirect_ingress(&mut batch, host_index, shaping.index);
    host.execute_all(&mut batch).map_err(kernel_refused)?;
    Ok(Some(shaping))
}

/// What of the pod's shaping is not as ADD left it. The record says whether there is any; how much, `limits` says, which
/// the runtime gives again. `links` are the node's.
pub(crate) fn differences(
    record: &Record,
    limits: &Bandwidth,
    host_index: u32,
    links: &[Link],
    host: &mut Socket,
) -> Result<Vec<String>, KernelError> {
    let Some(shaped) = &record.wiring.bandwidth else { return Ok(Vec::new()) };
    shape_differences(limits, host_index, record.wiring.mtu, shaped.ifb.as_ref(), links, host)
}

/// The same for a pair of this MTU, and a link of this name.
pub(crate) fn shape_differences(
    limits: &Bandwidth,
    host_index: u32,
    mtu: u32,
    shaping: Option<&LinkName>,
    links: &[Link],
    host: &mut Socket,
) -> Result<Vec<String>, KernelError> {
    let mut differences = Vec::new();
    if let Some(ingress) = limits.ingress {
        differences.extend(bucket_difference("receives", host_index, &bucket(ingress, mtu), host)?);
    }
    let Some(name) = shaping else { return Ok(differences) };
    let Some(shaping) = links.iter().find(|link| link.name == name.as_str()) else {
        differences.push(format!("link `{name}`, which shapes what the pod sends, is gone"));
        return Ok(differences);
    };
    if !shaping.is_up() {
        differences.push(format!("link `{name}`, which shapes what the pod sends, is down"));
    }
    let led = qdiscs(host, host_index)?.iter().any(|qdisc| qdisc.kind == "ingress")
        && ingress_redirects(host, host_index)?.contains(&shaping.index);
    if !led {
        differences.push(format!("what the pod sends is not led through link `{name}`"));
    }
    if let Some(egress) = limits.egress {
        differences.extend(bucket_difference("sends", shaping.index, &bucket(egress, mtu), host)?);
    }
    Ok(differences)
}

fn bucket_difference(
    verb: &str,
    index: u32,
    wanted: &TokenBucket,
    host: &mut Socket,
) -> Result<Option<String>, KernelError> {
    let held = qdiscs(host, index)?.into_iter().find(Qdisc::is_root).and_then(|qdisc| qdisc.token_bucket);
    Ok(match held {
        None => Some(format!("what the pod {verb} is not limited")),
        Some(held) if wanted.is_held_as(&held) => None,
        Some(held) => Some(format!("what the pod {verb} is limited to {held}, not to {wanted}")),
    })
}

/// From bits, as Kubernetes counts, to the kernel's bytes.
fn bucket(limit: RateLimit, mtu: u32) -> TokenBucket {
    let packet = u64::from(mtu) + FRAME_HEADER;
    let rate = (limit.rate / 8).max(1);
    // A packet larger than the bucket would never go.
    let burst = (limit.burst / 8).max(packet);
    let waiting = (rate.saturating_mul(LATENCY) / 1_000).max(QUEUED_PACKETS * packet);
    let narrow = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    TokenBucket { rate, burst: narrow(burst), limit: narrow(waiting.saturating_add(burst)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_become_bytes_and_what_waits_is_25_ms_and_the_burst() {
        let bucket = bucket(RateLimit { rate: 80_000_000, burst: 8_000_000 }, 1500);
        assert_eq!(bucket, TokenBucket { rate: 10_000_000, burst: 1_000_000, limit: 1_250_000 });
    }

    #[test]
    fn a_full_packet_always_fits() {
        let bucket = bucket(RateLimit { rate: 8, burst: 8 }, 1500);
        assert_eq!(bucket, TokenBucket { rate: 1, burst: 1518, limit: 5 * 1518 });
    }

    #[test]
    fn values_beyond_the_kernels_are_its_largest() {
        let bucket = bucket(RateLimit { rate: u64::MAX, burst: u64::MAX }, 1500);
        assert_eq!((bucket.rate, bucket.burst, bucket.limit), (u64::MAX / 8, u32::MAX, u32::MAX));
    }
}
