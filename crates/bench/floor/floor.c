// The kernel's floor for one pod: what no CNI plugin can avoid, and nothing else. Dual-stack, routed (ptp) or bridged.
//
//   floor loopback ADD|DEL      as the loopback plugin: the pod's `lo` up or down
//   floor pod ADD|DEL           as the network plugin, with one host port
//
// Called as a plugin is: CNI_NETNS and CNI_CONTAINERID in the environment, a configuration on standard input, which is
// read and thrown away. FLOOR_INDEX says which addresses the pod gets, FLOOR_BRIDGE which bridge, if any. With FLOOR_PLAIN
// it does no more than the drop-in `bridge` with `host-local`: IPv4, no host port, the reservation as the reference keeps it,
// and a port that sends frames back. The bridge and the nftables table `floor` must be there; crates/bench/src/side.rs makes
// them.
//
// Each step has its reason in docs/performance.md. No retries and no undo: a plugin needs them, the floor does not.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STORE "/run/hostgw-floor"
#define NETWORK "/var/lib/cni/networks/floor"
#define PATIENCE_MS 5000

static void die(const char *what) {
    fprintf(stderr, "floor: failed to %s: %s\n", what, strerror(errno));
    exit(1);
}

// ---- netlink -------------------------------------------------------------------------------------------------------

struct batch {
    char bytes[8192];
    int length, messages;
    struct nlmsghdr *last;
};

static char answer[32768];

static void message(struct batch *batch, int type, int flags, const void *head, int size) {
    struct nlmsghdr *header = batch->last = (void *)(batch->bytes + batch->length);
    memset(header, 0, sizeof *header);
    header->nlmsg_type = type;
    header->nlmsg_flags = NLM_F_REQUEST | flags;
    header->nlmsg_seq = ++batch->messages;
    header->nlmsg_len = NLMSG_LENGTH(NLMSG_ALIGN(size));
    memcpy(NLMSG_DATA(header), head, size);
    batch->length += NLMSG_ALIGN(header->nlmsg_len);
}

static struct rtattr *attribute(struct batch *batch, int type, const void *value, int size) {
    struct rtattr *made = (void *)(batch->bytes + batch->length);
    memset(made, 0, RTA_SPACE(size));
    made->rta_type = type;
    made->rta_len = RTA_LENGTH(size);
    if (size) memcpy(RTA_DATA(made), value, size);
    batch->length += RTA_ALIGN(made->rta_len);
    batch->last->nlmsg_len += RTA_ALIGN(made->rta_len);
    return made;
}

static struct rtattr *nest(struct batch *batch, int type) { return attribute(batch, type, NULL, 0); }
static void end(struct batch *batch, struct rtattr *nested) {
    nested->rta_len = batch->bytes + batch->length - (char *)nested;
}
static void number(struct batch *batch, int type, unsigned value) { attribute(batch, type, &value, 4); }
static void text(struct batch *batch, int type, const char *value) {
    attribute(batch, type, value, strlen(value) + 1);
}

static int open_netlink(int protocol, unsigned groups) {
    int one = 1, socket_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
    if (socket_fd < 0 || (groups && bind(socket_fd, (void *)&address, sizeof address))) die("open a netlink socket");
    setsockopt(socket_fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
    return socket_fd;
}

// Sends the batch and reads up to the acknowledgement of its last message. Returns the last link that was answered.
static struct ifinfomsg *execute(int socket_fd, struct batch *batch, const char *what) {
    static struct ifinfomsg link[64];
    int awaited = batch->messages, size;
    batch->last->nlmsg_flags |= NLM_F_ACK;
    if (send(socket_fd, batch->bytes, batch->length, 0) < 0) die(what);
    batch->length = batch->messages = 0;
    for (;;) {
        if ((size = recv(socket_fd, answer, sizeof answer, 0)) < 0) die(what);
        for (struct nlmsghdr *header = (void *)answer; NLMSG_OK(header, size); header = NLMSG_NEXT(header, size)) {
            if (header->nlmsg_type == RTM_NEWLINK) {
                int length = header->nlmsg_len - NLMSG_HDRLEN;
                memcpy(link, NLMSG_DATA(header), length < (int)sizeof link ? length : (int)sizeof link);
            }
            if (header->nlmsg_type != NLMSG_ERROR) continue;
            errno = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
            if (errno) die(what);
            if ((int)header->nlmsg_seq == awaited) return link;
        }
    }
}

// ---- links, addresses, routes --------------------------------------------------------------------------------------

static void link_message(struct batch *batch, int type, int flags, int index, unsigned up) {
    struct ifinfomsg head = {.ifi_index = index, .ifi_flags = up, .ifi_change = up};
    message(batch, type, flags, &head, sizeof head);
}

// One queue each: with more, the kernel waits for two RCU grace periods. The pod's end is born in the pod.
static void create_veth(struct batch *batch, const char *host, const char *pod, int netns, int bridge) {
    link_message(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, 0);
    text(batch, IFLA_IFNAME, host);
    number(batch, IFLA_NUM_TX_QUEUES, 1);
    number(batch, IFLA_NUM_RX_QUEUES, 1);
    if (bridge) number(batch, IFLA_MASTER, bridge);
    struct rtattr *info = nest(batch, IFLA_LINKINFO);
    text(batch, IFLA_INFO_KIND, "veth");
    struct rtattr *data = nest(batch, IFLA_INFO_DATA), *peer = nest(batch, VETH_INFO_PEER);
    struct ifinfomsg head = {0};
    memcpy(batch->bytes + batch->length, &head, sizeof head);
    batch->length += sizeof head;
    batch->last->nlmsg_len += sizeof head;
    text(batch, IFLA_IFNAME, pod);
    number(batch, IFLA_NUM_TX_QUEUES, 1);
    number(batch, IFLA_NUM_RX_QUEUES, 1);
    number(batch, IFLA_NET_NS_FD, netns);
    end(batch, peer);
    end(batch, data);
    end(batch, info);
}

static void no_link_local(struct batch *batch, int index) {
    unsigned char none = 1; // IN6_ADDR_GEN_MODE_NONE
    link_message(batch, RTM_NEWLINK, 0, index, 0);
    struct rtattr *families = nest(batch, IFLA_AF_SPEC), *inet6 = nest(batch, AF_INET6);
    attribute(batch, IFLA_INET6_ADDR_GEN_MODE, &none, 1);
    end(batch, inet6);
    end(batch, families);
}

static void hairpin(struct batch *batch, int index) {
    unsigned char on = 1;
    struct ifinfomsg head = {.ifi_family = AF_BRIDGE, .ifi_index = index};
    message(batch, RTM_SETLINK, 0, &head, sizeof head);
    struct rtattr *port = nest(batch, IFLA_PROTINFO | NLA_F_NESTED);
    attribute(batch, IFLA_BRPORT_MODE, &on, 1);
    end(batch, port);
}

static int width(int family) { return family == AF_INET ? 4 : 16; }

static void add_address(struct batch *batch, int family, const void *ip, int prefix, int index) {
    struct ifaddrmsg head = {
        .ifa_family = family, .ifa_prefixlen = prefix, .ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0, .ifa_index = index};
    message(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof head);
    attribute(batch, IFA_LOCAL, ip, width(family));
    attribute(batch, IFA_ADDRESS, ip, width(family));
}

static void add_route(struct batch *batch, int family, const void *to, const void *gateway, int index) {
    struct rtmsg head = {.rtm_family = family,
                         .rtm_dst_len = to ? width(family) * 8 : 0,
                         .rtm_table = RT_TABLE_MAIN,
                         .rtm_protocol = RTPROT_BOOT,
                         .rtm_scope = gateway || family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
                         .rtm_type = RTN_UNICAST};
    message(batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof head);
    if (to) attribute(batch, RTA_DST, to, width(family));
    if (gateway) attribute(batch, RTA_GATEWAY, gateway, width(family));
    number(batch, RTA_OIF, index);
}

// The index of the link that was answered, and of its peer.
static int peer_of(struct ifinfomsg *link) {
    struct rtattr *at = IFLA_RTA(link);
    for (int length = sizeof(struct ifinfomsg) * 64 - sizeof *link; RTA_OK(at, length); at = RTA_NEXT(at, length))
        if (at->rta_type == IFLA_LINK) return *(int *)RTA_DATA(at);
    return 0;
}

// Waits for the event that `is_it` knows. An address is usable, and a deletion done, when the kernel tells of it.
static void await(int events, int (*is_it)(struct nlmsghdr *, const void *), const void *what) {
    for (;;) {
        struct pollfd polled = {.fd = events, .events = POLLIN};
        if (poll(&polled, 1, PATIENCE_MS) != 1) errno = ETIMEDOUT, die("wait for an event");
        int size = recv(events, answer, sizeof answer, 0);
        if (size < 0) die("read an event");
        for (struct nlmsghdr *header = (void *)answer; NLMSG_OK(header, size); header = NLMSG_NEXT(header, size))
            if (is_it(header, what)) return;
    }
}

static int is_usable(struct nlmsghdr *header, const void *ip) {
    struct ifaddrmsg *head = NLMSG_DATA(header);
    if (header->nlmsg_type != RTM_NEWADDR || head->ifa_flags & IFA_F_TENTATIVE) return 0;
    struct rtattr *at = IFA_RTA(head);
    for (int length = IFA_PAYLOAD(header); RTA_OK(at, length); at = RTA_NEXT(at, length))
        if (at->rta_type == IFA_ADDRESS && !memcmp(RTA_DATA(at), ip, 16)) return 1;
    return 0;
}

static int is_deleted(struct nlmsghdr *header, const void *index) {
    struct ifinfomsg *head = NLMSG_DATA(header);
    return header->nlmsg_type == RTM_DELLINK && head->ifi_family == AF_UNSPEC && head->ifi_index == *(const int *)index;
}

// ---- the host port: one element in each family's map ---------------------------------------------------------------

static void nft_message(struct batch *batch, int type, int flags, int resource) {
    struct nfgenmsg head = {.nfgen_family = NFPROTO_INET, .version = NFNETLINK_V0, .res_id = htons(resource)};
    if (resource == NFNL_SUBSYS_NFTABLES) head.nfgen_family = AF_UNSPEC;
    message(batch, type, flags, &head, sizeof head);
}

static void value(struct batch *batch, int type, const void *bytes, int size) {
    struct rtattr *data = nest(batch, type | NLA_F_NESTED);
    attribute(batch, NFTA_DATA_VALUE, bytes, size);
    end(batch, data);
}

static void host_port(int netfilter, int type, int index, const void *pod4, const void *pod6) {
    struct batch batch = {.length = 0};
    struct { unsigned protocol; unsigned short port, pad; } key = {6, htons(10000 + index % 50000), 0};
    struct { unsigned ip; unsigned short port, pad; } to4 = {*(unsigned *)pod4, htons(80), 0};
    struct { unsigned char ip[16]; unsigned short port, pad; } to6 = {{0}, htons(80), 0};
    memcpy(to6.ip, pod6, 16);
    key.protocol = 0;
    *(unsigned char *)&key.protocol = 6;
    nft_message(&batch, NFNL_MSG_BATCH_BEGIN, 0, NFNL_SUBSYS_NFTABLES);
    for (int family = 0; family < 2; family++) {
        nft_message(&batch, NFNL_SUBSYS_NFTABLES << 8 | type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE | NLM_F_EXCL : 0, 0);
        text(&batch, NFTA_SET_ELEM_LIST_TABLE, "floor");
        text(&batch, NFTA_SET_ELEM_LIST_SET, family ? "port6" : "port4");
        struct rtattr *list = nest(&batch, NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED);
        struct rtattr *element = nest(&batch, NFTA_LIST_ELEM | NLA_F_NESTED);
        value(&batch, NFTA_SET_ELEM_KEY, &key, 8);
        if (type == NFT_MSG_NEWSETELEM) value(&batch, NFTA_SET_ELEM_DATA, family ? (void *)&to6 : &to4, family ? 20 : 8);
        end(&batch, element);
        end(&batch, list);
    }
    // The last change is acknowledged, not the end of the batch.
    struct nlmsghdr *change = batch.last;
    int changes = batch.messages;
    change->nlmsg_flags |= NLM_F_ACK;
    nft_message(&batch, NFNL_MSG_BATCH_END, 0, NFNL_SUBSYS_NFTABLES);
    if (send(netfilter, batch.bytes, batch.length, 0) < 0) die("send the host port");
    int size = recv(netfilter, answer, sizeof answer, 0);
    struct nlmsghdr *header = (void *)answer;
    if (size < (int)NLMSG_LENGTH(4) || header->nlmsg_type != NLMSG_ERROR || (int)header->nlmsg_seq != changes)
        errno = EPROTO, die("change the host port");
    if ((errno = -((struct nlmsgerr *)NLMSG_DATA(header))->error)) die("change the host port");
}

// ---- the verbs -----------------------------------------------------------------------------------------------------

static const char *need(const char *name) {
    const char *found = getenv(name);
    if (!found) errno = EINVAL, die(name);
    return found;
}

static void enter(int netns) {
    if (setns(netns, CLONE_NEWNET)) die("enter a network namespace");
}

static void write_file(const char *path, int flags, const char *bytes, int size) {
    int file = open(path, O_WRONLY | O_CLOEXEC | flags, 0600);
    if (file < 0 || write(file, bytes, size) != size || close(file)) die(path);
}

struct pod {
    int index, plain;
    unsigned ip4;
    unsigned char ip6[16];
    char host_link[16], record[300], claim4[64], claim6[64];
};

static struct pod describe(void) {
    struct pod pod = {.index = atoi(need("FLOOR_INDEX")), .plain = getenv("FLOOR_PLAIN") != NULL};
    pod.ip4 = htonl(0x0a580002 + pod.index); // 10.88.0.2 and on
    inet_pton(AF_INET6, "fd00:88::", pod.ip6);
    pod.ip6[14] = (pod.index + 2) >> 8;
    pod.ip6[15] = pod.index + 2;
    snprintf(pod.host_link, sizeof pod.host_link, "flr%08x", pod.index);
    snprintf(pod.record, sizeof pod.record, STORE "/%.200s", need("CNI_CONTAINERID"));
    snprintf(pod.claim4, sizeof pod.claim4, STORE "/v4-%d", pod.index);
    snprintf(pod.claim6, sizeof pod.claim6, STORE "/v6-%d", pod.index);
    return pod;
}

// The reference's format: a lock, a file for each address, and the address that was given last.
static void lock_network(void) {
    int lock = open(NETWORK "/lock", O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX)) die("lock the network");
}

static const char *shown(const struct pod *pod) {
    struct in_addr ip = {pod->ip4};
    return inet_ntoa(ip);
}

static void reserve_plainly(const struct pod *pod) {
    char path[80], holder[300];
    mkdir("/var/lib/cni", 0700), mkdir("/var/lib/cni/networks", 0700), mkdir(NETWORK, 0700);
    lock_network();
    snprintf(path, sizeof path, NETWORK "/%s", shown(pod));
    write_file(path, O_CREAT | O_EXCL, holder, snprintf(holder, sizeof holder, "%.200s\r\neth0", need("CNI_CONTAINERID")));
    write_file(NETWORK "/last_reserved_ip.0", O_CREAT, shown(pod), strlen(shown(pod)));
}

static void release_plainly(const struct pod *pod) {
    char path[80];
    lock_network();
    snprintf(path, sizeof path, NETWORK "/%s", shown(pod));
    if (unlink(path)) die("release the address");
}

static void reserve(const struct pod *pod) {
    // The reservation: a record, and a link to it for each address.
    mkdir(STORE, 0700);
    char record[1024] = "";
    write_file(pod->record, O_CREAT | O_EXCL, record, sizeof record);
    if (link(pod->record, pod->claim4) || link(pod->record, pod->claim6)) die("reserve the addresses");
}

static void add(struct pod *pod, const char *bridge_name) {
    unsigned gateway4 = htonl(0x0a580001);
    unsigned char gateway6[16], link_local[16];
    inet_pton(AF_INET6, "fd00:88::1", gateway6);
    inet_pton(AF_INET6, "fe80::1", link_local);
    memcpy(link_local + 12, &pod->ip4, 4);
    struct batch batch = {.length = 0};
    if (pod->plain) reserve_plainly(pod);
    else reserve(pod);

    int node_ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int pod_ns = open(need("CNI_NETNS"), O_RDONLY | O_CLOEXEC);
    if (node_ns < 0 || pod_ns < 0) die("open the network namespaces");
    int host = open_netlink(NETLINK_ROUTE, 0), bridge = 0;
    if (bridge_name) bridge = if_nametoindex(bridge_name);
    create_veth(&batch, pod->host_link, "eth0", pod_ns, bridge);
    link_message(&batch, RTM_GETLINK, 0, 0, 0);
    text(&batch, IFLA_IFNAME, pod->host_link);
    struct ifinfomsg *link = execute(host, &batch, "create the veth pair");
    int host_index = link->ifi_index, pod_index = peer_of(link);

    enter(pod_ns);
    int inside = open_netlink(NETLINK_ROUTE, 0);
    int pod_events = pod->plain ? -1 : open_netlink(NETLINK_ROUTE, RTMGRP_IPV6_IFADDR);
    // Before the link comes up: a pod believes no router advertisement.
    write_file("/proc/sys/net/ipv6/conf/eth0/accept_ra", 0, "0", 1);
    enter(node_ns);
    add_address(&batch, AF_INET, &pod->ip4, bridge ? 16 : 32, pod_index);
    if (!pod->plain) {
        no_link_local(&batch, pod_index);
        add_address(&batch, AF_INET6, pod->ip6, bridge ? 64 : 128, pod_index);
        add_address(&batch, AF_INET6, link_local, 64, pod_index);
    }
    link_message(&batch, RTM_NEWLINK, 0, pod_index, IFF_UP);
    if (!bridge) {
        add_route(&batch, AF_INET, &gateway4, NULL, pod_index);
        add_route(&batch, AF_INET6, gateway6, NULL, pod_index);
    }
    add_route(&batch, AF_INET, NULL, &gateway4, pod_index);
    if (!pod->plain) add_route(&batch, AF_INET6, NULL, gateway6, pod_index);
    execute(inside, &batch, "set up the pod's end");

    int host_events = bridge ? -1 : open_netlink(NETLINK_ROUTE, RTMGRP_IPV6_IFADDR);
    no_link_local(&batch, host_index);
    if (pod->plain) hairpin(&batch, host_index);
    if (!bridge) {
        add_address(&batch, AF_INET, &gateway4, 32, host_index);
        add_address(&batch, AF_INET6, gateway6, 128, host_index);
    }
    link_message(&batch, RTM_NEWLINK, 0, host_index, IFF_UP);
    if (!bridge) {
        add_route(&batch, AF_INET, &pod->ip4, NULL, host_index);
        add_route(&batch, AF_INET6, pod->ip6, NULL, host_index);
    }
    // Looking a link up makes the kernel finish what "up" began; else the first packet may wait for a second.
    link_message(&batch, RTM_GETLINK, 0, host_index, 0);
    if (bridge) link_message(&batch, RTM_GETLINK, 0, bridge, 0);
    execute(host, &batch, "set up the node's end");
    link_message(&batch, RTM_GETLINK, 0, pod_index, 0);
    execute(inside, &batch, "look the pod's end up");

    if (!pod->plain) {
        host_port(open_netlink(NETLINK_NETFILTER, 0), NFT_MSG_NEWSETELEM, pod->index, &pod->ip4, pod->ip6);
        await(pod_events, is_usable, pod->ip6);
    }
    if (!bridge) await(host_events, is_usable, gateway6);
    // The result, as long as a plugin's.
    char result[600];
    memset(result, ' ', sizeof result);
    if (write(1, result, sizeof result) < 0) die("write the result");
}

static void del(struct pod *pod) {
    if (!pod->plain) {
        char record[1024];
        int file = open(pod->record, O_RDONLY | O_CLOEXEC);
        if (file < 0 || read(file, record, sizeof record) < 0) die("read the record");
        host_port(open_netlink(NETLINK_NETFILTER, 0), NFT_MSG_DELSETELEM, pod->index, &pod->ip4, pod->ip6);
    }

    int host = open_netlink(NETLINK_ROUTE, 0), events = open_netlink(NETLINK_ROUTE, RTMGRP_LINK);
    struct batch batch = {.length = 0};
    link_message(&batch, RTM_GETLINK, 0, 0, 0);
    text(&batch, IFLA_IFNAME, pod->host_link);
    int index = execute(host, &batch, "find the link")->ifi_index;
    // The kernel lets whoever deletes a link, or closes the netfilter socket last, wait for RCU: a child does.
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        close(0), close(1), close(2);
        link_message(&batch, RTM_DELLINK, 0, index, 0);
        execute(host, &batch, "delete the link");
        _exit(0);
    }
    await(events, is_deleted, &index);
    if (pod->plain) release_plainly(pod);
    else if (unlink(pod->claim4) || unlink(pod->claim6) || unlink(pod->record)) die("release the addresses");
}

static void loopback(unsigned up) {
    int netns = open(need("CNI_NETNS"), O_RDONLY | O_CLOEXEC);
    if (netns < 0) die("open the network namespace");
    enter(netns);
    struct batch batch = {.length = 0};
    struct ifinfomsg head = {.ifi_index = 1, .ifi_flags = up, .ifi_change = IFF_UP};
    message(&batch, RTM_NEWLINK, 0, &head, sizeof head);
    execute(open_netlink(NETLINK_ROUTE, 0), &batch, "change lo");
    if (up && write(1, "{}", 2) < 0) die("write the result");
}

int main(int count, char **arguments) {
    char conf[8192];
    while (read(0, conf, sizeof conf) > 0) {}
    if (count != 3) errno = EINVAL, die("understand the arguments");
    int adds = !strcmp(arguments[2], "ADD");
    if (!strcmp(arguments[1], "loopback")) {
        loopback(adds ? IFF_UP : 0);
    } else {
        struct pod pod = describe();
        if (adds) add(&pod, getenv("FLOOR_BRIDGE"));
        else del(&pod);
    }
    return 0;
}
