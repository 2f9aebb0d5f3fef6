//! Traffic control: a token bucket on what leaves a link, and the way by which what comes in is led to another link to
//! be shaped there (`linux/rtnetlink.h`, `linux/pkt_sched.h`, `linux/pkt_cls.h`).

use std::fmt;

use crate::KernelError;
use crate::netlink::{Attributes, Batch, CREATE, EXCL, REPLACE, Socket};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

/// `TC_H_ROOT`: what leaves the link.
const ROOT: u32 = 0xffff_ffff;
/// `TC_H_INGRESS`: what comes in.
const INGRESS: u32 = 0xffff_fff1;
/// `1:`, the handle that the reference bandwidth plugin gives.
const TBF_HANDLE: u32 = 1 << 16;
/// `ffff:`, the handle that the kernel gives the ingress qdisc.
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// `ETH_P_ALL`.
const ETH_P_ALL: u16 = 3;
/// `TC_LINKLAYER_ETHERNET`.
const LINKLAYER_ETHERNET: u8 = 1;
/// `TC_ACT_STOLEN`: the packet is no longer this link's.
const STOLEN: i32 = 4;
/// `TCA_EGRESS_REDIR`.
const EGRESS_REDIRECT: i32 = 1;
/// `TC_U32_TERMINAL`: the filter decides, none behind it is asked.
const U32_TERMINAL: u8 = 1;
/// Nanoseconds in a tick of the packet scheduler (`PSCHED_SHIFT` of 6; `/proc/net/psched`).
const NANOSECONDS_PER_TICK: u128 = 64;
/// `struct tc_tbf_qopt`.
const TBF_PARAMETERS: usize = 36;

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes a second, in the long run.
    pub rate: u64,
    /// Bytes at once; at the least one frame.
    pub burst: u32,
    /// Bytes that may wait; what comes beyond is dropped.
    pub limit: u32,
}

impl TokenBucket {
    /// Whether `held`, as the kernel gives it back, is this bucket: it keeps the burst as a time, rounded, of at most
    /// 274 seconds.
    #[must_use]
    pub fn is_held_as(&self, held: &Self) -> bool {
        let bursts_agree = held.burst.abs_diff(self.burst) <= self.burst / 50 + 1;
        (self.rate, self.limit) == (held.rate, held.limit) && (bursts_agree || self.buffer() == u32::MAX)
    }

    /// The time that the burst takes at this rate, in ticks.
    fn buffer(&self) -> u32 {
        let nanoseconds = u128::from(self.burst) * 1_000_000_000 / u128::from(self.rate.max(1));
        u32::try_from(nanoseconds / NANOSECONDS_PER_TICK).unwrap_or(u32::MAX)
    }

    /// `struct tc_tbf_qopt`: two `struct tc_ratespec`, limit, buffer, mtu.
    fn parameters(&self) -> [u8; TBF_PARAMETERS] {
        let mut parameters = [0; TBF_PARAMETERS];
        parameters[1] = LINKLAYER_ETHERNET;
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX);
        parameters[8..12].copy_from_slice(&rate.to_ne_bytes());
        parameters[24..28].copy_from_slice(&self.limit.to_ne_bytes());
        parameters[28..32].copy_from_slice(&self.buffer().to_ne_bytes());
        parameters
    }
}

impl fmt::Display for TokenBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B/s with {} B at once and {} B waiting", self.rate, self.burst, self.limit)
    }
}

/// A queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The link.
    pub index: u32,
    /// Its number.
    pub handle: u32,
    /// What it hangs on.
    pub parent: u32,
    /// `tbf`, `ingress`, `noqueue`, …
    pub kind: String,
    /// What a `tbf` does. The kernel keeps the burst as a time, so that it comes back rounded.
    pub token_bucket: Option<TokenBucket>,
}

impl Qdisc {
    /// Reads the payload of an `RTM_NEWQDISC` message.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let header: [u8; 20] = payload.get(..20)?.try_into().ok()?;
        let attributes = Attributes::new(&payload[20..]);
        let kind = attributes.get(TCA_KIND)?.text();
        let options = attributes.get(TCA_OPTIONS).map(|options| options.nested());
        let token_bucket = options.filter(|_| kind == "tbf").and_then(|options| {
            let parameters: [u8; TBF_PARAMETERS] = options.get(TCA_TBF_PARMS)?.array()?;
            let rate = options
                .get(TCA_TBF_RATE64)
                .and_then(|rate| rate.array().map(u64::from_ne_bytes))
                .unwrap_or_else(|| u64::from(word(&parameters, 8)));
            let nanoseconds = u128::from(word(&parameters, 28)) * NANOSECONDS_PER_TICK;
            let burst = nanoseconds * u128::from(rate) / 1_000_000_000;
            Some(TokenBucket {
                rate,
                burst: u32::try_from(burst).unwrap_or(u32::MAX),
                limit: word(&parameters, 24),
            })
        });
        Some(Self {
            index: word(&header, 4),
            handle: word(&header, 8),
            parent: word(&header, 12),
            kind,
            token_bucket,
        })
    }

    /// Whether it shapes what leaves the link.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.parent == ROOT
    }
}

fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// `struct tcmsg`.
fn header(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut header = [0; 20];
    for (place, word) in [(4, index), (8, handle), (12, parent), (16, info)] {
        header[place..place + 4].copy_from_slice(&word.to_ne_bytes());
    }
    header
}

/// Shapes what leaves a link, whatever shaped it before.
pub fn set_token_bucket(batch: &mut Batch, index: u32, bucket: &TokenBucket) {
    let header = header(index, TBF_HANDLE, ROOT, 0);
    batch.message("set a token bucket", RTM_NEWQDISC, CREATE | REPLACE, &header).text(TCA_KIND, "tbf").nest(
        TCA_OPTIONS,
        |options| {
            options.attribute(TCA_TBF_PARMS, &bucket.parameters()).u32(TCA_TBF_BURST, bucket.burst);
            if bucket.rate > u64::from(u32::MAX) {
                options.u64(TCA_TBF_RATE64, bucket.rate);
            }
        },
    );
}

/// Gives a link the place at which what comes in can be filtered.
pub fn add_ingress(batch: &mut Batch, index: u32) {
    batch
        .message(
            "add an ingress qdisc",
            RTM_NEWQDISC,
            CREATE | EXCL,
            &header(index, INGRESS_HANDLE, INGRESS, 0),
        )
        .text(TCA_KIND, "ingress");
}

/// Takes that place away, and every filter with it.
pub fn delete_ingress(batch: &mut Batch, index: u32) {
    batch.message("delete an ingress qdisc", RTM_DELQDISC, 0, &header(index, INGRESS_HANDLE, INGRESS, 0));
}

/// Leads everything that comes in on a link out of another one (an `ifb`), before any protocol sees it. Needs
/// [`add_ingress`].
pub fn redirect_ingress(batch: &mut Batch, index: u32, to: u32) {
    // One key that every packet matches: `match u32 0 0`.
    let mut selector = [0; 32];
    selector[0] = U32_TERMINAL;
    selector[2] = 1;
    // `struct tc_mirred`: index, capabilities, action, two counts; what to do, and where to.
    let mut mirred = [0; 28];
    mirred[8..12].copy_from_slice(&STOLEN.to_ne_bytes());
    mirred[20..24].copy_from_slice(&EGRESS_REDIRECT.to_ne_bytes());
    mirred[24..28].copy_from_slice(&to.to_ne_bytes());
    let info = 1 << 16 | u32::from(ETH_P_ALL.to_be());
    batch
        .message(
            "redirect what comes in",
            RTM_NEWTFILTER,
            CREATE | EXCL,
            &header(index, 0, INGRESS_HANDLE, info),
        )
        .text(TCA_KIND, "u32")
        .nest(TCA_OPTIONS, |options| {
            options.attribute(TCA_U32_SEL, &selector).nest(TCA_U32_ACT, |actions| {
                actions.nest(1, |action| {
                    action.text(TCA_ACT_KIND, "mirred").nest(TCA_ACT_OPTIONS, |options| {
                        options.attribute(TCA_MIRRED_PARMS, &mirred);
                    });
                });
            });
        });
}

/// The queueing disciplines of a link.
pub fn qdiscs(socket: &mut Socket, index: u32) -> Result<Vec<Qdisc>, KernelError> {
    let mut request = Batch::new();
    drop(request.message("list queueing disciplines", RTM_GETQDISC, 0, &header(0, 0, 0, 0)));
    let mut found = Vec::new();
    socket.dump(&mut request, |object| match object {
        Some((RTM_NEWQDISC, payload)) => {
            found.extend(Qdisc::parse(payload).filter(|qdisc| qdisc.index == index));
        }
        Some(_) => {}
        None => found.clear(),
    })?;
    Ok(found)
}

/// The links to which what comes in on a link is led.
pub fn ingress_redirects(socket: &mut Socket, index: u32) -> Result<Vec<u32>, KernelError> {
    let mut request = Batch::new();
    let header = header(index, 0, INGRESS_HANDLE, 0);
    drop(request.message("list filters", RTM_GETTFILTER, 0, &header));
    let mut found = Vec::new();
    socket.dump(&mut request, |object| match object {
        Some((RTM_NEWTFILTER, payload)) => found.extend(redirect_of(payload)),
        Some(_) => {}
        None => found.clear(),
    })?;
    Ok(found)
}

/// Where a filter's first action leads, if that is a redirection.
fn redirect_of(payload: &[u8]) -> Option<u32> {
    let options = Attributes::new(payload.get(20..)?).get(TCA_OPTIONS)?;
    let action = options.nested().get(TCA_U32_ACT)?.nested().next()?.nested();
    if action.get(TCA_ACT_KIND)?.text() != "mirred" {
        return None;
    }
    let parameters: [u8; 28] = action.get(TCA_ACT_OPTIONS)?.nested().get(TCA_MIRRED_PARMS)?.array()?;
    (word(&parameters, 20) == EGRESS_REDIRECT.cast_unsigned()).then(|| word(&parameters, 24))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_buffer_is_the_bursts_time_in_ticks() {
        // 1 Mbit/s and 100 kbit of burst take 100 ms, in ticks of 64 ns.
        let bucket = TokenBucket { rate: 125_000, burst: 12_500, limit: 15_625 };
        assert_eq!(bucket.buffer(), 1_562_500);
    }

    #[test]
    fn no_rate_or_burst_is_too_large_or_too_small_to_be_written() {
        for (rate, burst) in [(0, 0), (1, u32::MAX), (u64::MAX, u32::MAX), (u64::MAX, 0)] {
            let bucket = TokenBucket { rate, burst, limit: u32::MAX };
            let mut batch = Batch::new();
            set_token_bucket(&mut batch, 1, &bucket);
            assert_eq!(batch.len(), 1);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(rate in 1000u64..1 << 40, burst in 1500u32..1 << 20, limit: u32) {
            let bucket = TokenBucket { rate, burst, limit };
            let mut batch = Batch::new();
            set_token_bucket(&mut batch, 7, &bucket);
            let read = Qdisc::parse(&batch.bytes()[16..]).unwrap();
            let found = read.token_bucket.unwrap();
            prop_assert!(read.is_root() && read.index == 7);
            prop_assert_eq!((found.rate, found.limit), (rate, bucket.limit));
            prop_assert!(u64::from(burst.abs_diff(found.burst)) <= rate / 10_000_000 + 1);
            let faster = TokenBucket { rate: rate + 1, ..bucket };
            let larger = TokenBucket { burst: burst * 2, ..bucket };
            prop_assert!(!faster.is_held_as(&found));
            prop_assert!(!larger.is_held_as(&found) || larger.buffer() == u32::MAX);
        }

        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Qdisc::parse(&bytes), redirect_of(&bytes));
        }
    }
}
