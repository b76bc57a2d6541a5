//! Columns that identify a connection: tuple, state, and owner.

use std::net::IpAddr;

use conn_common::connection::PREEXISTING;
use conn_common::owner::SOURCES;
use conn_common::protocol;

use super::{Cell, Column, ConventionNames, PLAIN, STREAM, Type, Unit};
use crate::event::enriched::Enriched;
use crate::event::{direction, state_name};

const KINDS: &[&str] = &["new", "update", "destroy", "attempt", "listen", "closed", "open"];
const FAMILIES: &[&str] = &["ipv4", "ipv6"];
const NO_OWNER: &str = "owner unknown";
const NO_NAME: &str = "not in a container, or the files of its runtime have no name or are slow";
const NO_HOST: &str = "without --resolve, if there is no name, or until it is known";

pub(super) static COLUMNS: [Column; 34] = [
    Column {
        id: "event",
        title: "EVENT",
        kind: Type::Word(KINDS),
        help: "kind of the event: attempt (new), change of state (update), end (destroy), a SYN without a connection \
               (attempt), begin or end of a listener (listen, closed), or a connection that is open now (open)",
        get: |event, _| Cell::Word(event.kind.name()),
        ..PLAIN
    },
    Column {
        id: "time",
        title: "TIME",
        width: 15,
        kind: Type::Time,
        help: "time of the event; of an open connection, the time of the list",
        get: |event, clock| Cell::Time(clock.to_unix_ns(event.time_ns)),
        ..PLAIN
    },
    Column {
        id: "time_ns",
        title: "TIME_NS",
        width: 19,
        unit: Unit::UnixNanoseconds,
        help: "the same time as a number",
        get: |event, clock| Cell::UnixNs(clock.to_unix_ns(event.time_ns)),
        ..PLAIN
    },
    Column {
        id: "id",
        title: "ID",
        width: 16,
        help: "id of the connection: the same in all its events, and unique in one run of conntrace",
        unknown: "in TIME_WAIT, or before the handshake is complete",
        names: ConventionNames { otel: "conntrace.connection.id", ecs: "conntrace.connection.id" },
        get: |event, _| Cell::number(event.id()),
        ..PLAIN
    },
    Column {
        id: "direction",
        title: "DIR",
        width: 3,
        kind: Type::Word(&direction::NAMES),
        help: "end that opened the connection: the peer (in) or this host (out); listen for a listening socket; forward if neither \
               end is here (--forwarded)",
        unknown: "in TIME_WAIT, if the kernel does not show it any more",
        names: ConventionNames { otel: "conntrace.direction", ecs: "conntrace.direction" },
        get: |event, _| Cell::word(event.direction()),
        ..PLAIN
    },
    Column {
        id: "family",
        title: "FAMILY",
        width: 6,
        kind: Type::Word(FAMILIES),
        help: "family of the addresses; an IPv4 address on an IPv6 socket is ipv4",
        names: ConventionNames { otel: "network.type", ecs: "network.type" },
        get: |event, _| Cell::Word(if event.connection.family == 6 { "ipv6" } else { "ipv4" }),
        ..PLAIN
    },
    Column {
        id: "protocol",
        title: "PROTO",
        width: 5,
        kind: Type::Word(&protocol::NAMES),
        help: "layer-4 protocol; conntrace sees sockets of tcp and udp, and with --forwarded flows of all",
        unknown: "a protocol without a name, whose number JSON has as protocol_number",
        names: ConventionNames { otel: "network.transport", ecs: "network.transport" },
        get: |event, _| Cell::word(protocol::name(event.protocol)),
        ..PLAIN
    },
    Column {
        id: "state",
        title: "STATE",
        width: 11,
        kind: Type::Word(&state_name::NAMES),
        help: "TCP state after the event; close in every destroy. A UDP socket is established or unconnected: it has a peer, or \
               none. A flow of UDP is unreplied, replied or assured: packets went one way, both ways, or for long",
        unknown: "a state that conntrace does not know, or that the kernel does not show of a forwarded flow",
        names: ConventionNames { otel: "", ecs: "conntrace.connection.state" },
        get: |event, _| Cell::word(event.state()),
        ..PLAIN
    },
    Column {
        id: "old_state",
        title: "OLD_STATE",
        width: 11,
        kind: Type::Word(&state_name::NAMES),
        help: "TCP state before the event",
        unknown: "in a new",
        kinds: STREAM,
        names: ConventionNames {
            otel: "conntrace.connection.old_state",
            ecs: "conntrace.connection.old_state",
        },
        get: |event, _| Cell::word(state_name::name(event.old_state)),
        ..PLAIN
    },
    Column {
        id: "src",
        title: "SRC",
        width: 15,
        kind: Type::Address,
        help: "address of the initiator; tables add the interface of a link-local address: fe80::1%eth0",
        names: ConventionNames { otel: "source.address", ecs: "source.ip" },
        get: |event, _| address(event, event.src(), event.src_name.as_deref()),
        ..PLAIN
    },
    Column {
        id: "sport",
        title: "SPORT",
        width: 5,
        help: "port of the initiator; 0 if the kernel never chose one",
        names: ConventionNames { otel: "source.port", ecs: "source.port" },
        get: |event, _| Cell::Number(event.connection.sport.into()),
        ..PLAIN
    },
    Column {
        id: "dst",
        title: "DST",
        width: 15,
        kind: Type::Address,
        help: "address of the responder; tables add the interface as in src",
        names: ConventionNames { otel: "destination.address", ecs: "destination.ip" },
        get: |event, _| address(event, event.dst(), event.dst_name.as_deref()),
        ..PLAIN
    },
    Column {
        id: "dport",
        title: "DPORT",
        width: 5,
        help: "port of the responder, which is the service port",
        names: ConventionNames { otel: "destination.port", ecs: "destination.port" },
        get: |event, _| {
            let port = event.connection.dport;
            // The names are those of TCP services.
            let has_name = event.is_directed() && event.protocol == protocol::TCP;
            if has_name { Cell::Service(port) } else { Cell::Number(port.into()) }
        },
        ..PLAIN
    },
    Column {
        id: "src_name",
        title: "SRC_NAME",
        width: 24,
        kind: Type::Text,
        help: "name of the initiator's address, with --resolve; with ? behind it if DNS does not lead back from the name",
        unknown: NO_HOST,
        names: ConventionNames { otel: "conntrace.source.name", ecs: "source.domain" },
        get: |event, _| Cell::text(event.src_name.as_deref()),
        ..PLAIN
    },
    Column {
        id: "dst_name",
        title: "DST_NAME",
        width: 24,
        kind: Type::Text,
        help: "name of the responder's address, with --resolve; with ? as in src_name",
        unknown: NO_HOST,
        names: ConventionNames { otel: "conntrace.destination.name", ecs: "destination.domain" },
        get: |event, _| Cell::text(event.dst_name.as_deref()),
        ..PLAIN
    },
    Column {
        id: "pid",
        title: "PID",
        help: "process id of the owner, in the initial pid namespace",
        unknown: NO_OWNER,
        names: ConventionNames { otel: "process.pid", ecs: "process.pid" },
        get: |event, _| Cell::number(event.owner().map(|owner| owner.pid)),
        ..PLAIN
    },
    Column {
        id: "tid",
        title: "TID",
        help: "thread id of the owner",
        unknown: NO_OWNER,
        names: ConventionNames { otel: "thread.id", ecs: "process.thread.id" },
        get: |event, _| Cell::number(event.owner().map(|owner| owner.tid)),
        ..PLAIN
    },
    Column {
        id: "uid",
        title: "UID",
        width: 5,
        help: "user id of the owner, in the initial user namespace",
        unknown: NO_OWNER,
        names: ConventionNames { otel: "process.user.id", ecs: "process.user.id" },
        get: |event, _| Cell::number(event.owner().map(|owner| owner.uid)),
        ..PLAIN
    },
    Column {
        id: "comm",
        title: "COMM",
        width: 15,
        kind: Type::Text,
        help: "name of the owner's process",
        unknown: NO_OWNER,
        names: ConventionNames { otel: "process.executable.name", ecs: "process.name" },
        get: |event, _| Cell::name(event.owner().map(|owner| owner.comm)),
        ..PLAIN
    },
    Column {
        id: "thread",
        title: "THREAD",
        width: 15,
        kind: Type::Text,
        help: "name of the owner's thread",
        unknown: NO_OWNER,
        names: ConventionNames { otel: "thread.name", ecs: "process.thread.name" },
        get: |event, _| Cell::name(event.owner().map(|owner| owner.thread)),
        ..PLAIN
    },
    Column {
        id: "owner",
        title: "OWNER",
        width: 8,
        kind: Type::Word(&SOURCES),
        help: "how the owner is known: it called connect, or accept; it is the listener; it was found among \
               all open files; it sent or bound (UDP); or its socket has the tuple of a forwarded flow. - if no process is known; with a word and no pid, several qualify",
        names: ConventionNames { otel: "conntrace.owner.source", ecs: "conntrace.owner.source" },
        get: |event, _| Cell::Word(event.owner_source()),
        ..PLAIN
    },
    Column {
        id: "holders",
        title: "HOLDERS",
        help: "how many processes had the socket open when conntrace walked the open files: now in list, at the start in \
               events with the owner files or listener",
        unknown: "the files were not walked for it",
        names: ConventionNames { otel: "conntrace.owner.holders", ecs: "conntrace.owner.holders" },
        get: |event, _| Cell::number(event.holders()),
        ..PLAIN
    },
    Column {
        id: "cgroup",
        title: "CGROUP",
        help: "cgroup v2 id of the owner",
        unknown: "owner unknown, or no cgroup v2",
        names: ConventionNames { otel: "conntrace.owner.cgroup.id", ecs: "conntrace.owner.cgroup.id" },
        get: |event, _| Cell::number(event.owner().map(|owner| owner.cgroup).filter(|&id| id != 0)),
        ..PLAIN
    },
    Column {
        id: "container",
        title: "CONTAINER",
        width: 12,
        kind: Type::Text,
        help: "id of the owner's outermost container, by the path of its cgroup: docker, podman, containerd, CRI-O; \
               its name for lxc and nspawn. Tables add the user of container_user: web@1000",
        unknown: "not in a container, or unknown",
        names: ConventionNames { otel: "container.id", ecs: "container.id" },
        get: |event, _| Cell::container(event.container(), event.container_user()),
        ..PLAIN
    },
    Column {
        id: "container_name",
        title: "NAME",
        width: 15,
        kind: Type::Text,
        help: "name of the container when it was first seen, from the files of docker, podman, containerd and \
               CRI-O; in a pod, the name there",
        unknown: NO_NAME,
        names: ConventionNames { otel: "container.name", ecs: "container.name" },
        get: |event, _| {
            let name = event.container_names().and_then(|names| names.name.as_deref());
            Cell::container(name, event.container_user())
        },
        ..PLAIN
    },
    Column {
        id: "container_user",
        title: "CONTAINER_USER",
        width: 14,
        help: "user whose own runtime made the container, and chose its id and name",
        unknown: "made by a runtime of the host, not in a container, or unknown",
        names: ConventionNames { otel: "conntrace.container.user.id", ecs: "conntrace.container.user.id" },
        get: |event, _| Cell::number(event.container_user()),
        ..PLAIN
    },
    Column {
        id: "pod",
        title: "POD",
        width: 15,
        kind: Type::Text,
        help: "Kubernetes pod of the container, from the same files",
        unknown: NO_NAME,
        names: ConventionNames { otel: "k8s.pod.name", ecs: "kubernetes.pod.name" },
        get: |event, _| Cell::text(event.container_names().and_then(|names| names.pod.as_deref())),
        ..PLAIN
    },
    Column {
        id: "pod_namespace",
        title: "POD_NAMESPACE",
        width: 13,
        kind: Type::Text,
        help: "Kubernetes namespace of the pod",
        unknown: NO_NAME,
        names: ConventionNames { otel: "k8s.namespace.name", ecs: "kubernetes.namespace" },
        get: |event, _| Cell::text(event.container_names().and_then(|names| names.namespace.as_deref())),
        ..PLAIN
    },
    Column {
        id: "unit",
        title: "UNIT",
        width: 16,
        kind: Type::Text,
        help: "the owner's unit of the host's systemd, by the path of its cgroup, as in systemctl and in _SYSTEMD_UNIT \
               of the journal",
        unknown: "not in a unit, or unknown",
        names: ConventionNames { otel: "conntrace.owner.unit", ecs: "conntrace.owner.unit" },
        get: |event, _| Cell::unit(event.unit()),
        ..PLAIN
    },
    Column {
        id: "user_unit",
        title: "USER_UNIT",
        width: 16,
        kind: Type::Text,
        help: "the owner's unit of a user's own systemd, as in systemctl --user and in _SYSTEMD_USER_UNIT of the \
               journal. The user chose its name",
        unknown: "not in such a unit, or unknown",
        names: ConventionNames { otel: "conntrace.owner.user_unit", ecs: "conntrace.owner.user_unit" },
        get: |event, _| Cell::unit(event.user_unit()),
        ..PLAIN
    },
    Column {
        id: "netns",
        title: "NETNS",
        width: 10,
        help: "inode number of the socket's network namespace, as in /proc/PID/ns/net",
        names: ConventionNames { otel: "conntrace.netns.inode", ecs: "conntrace.netns.inode" },
        get: |event, _| Cell::Number(event.connection.netns.into()),
        ..PLAIN
    },
    Column {
        id: "interface",
        title: "INTERFACE",
        width: 9,
        kind: Type::Text,
        help: "the network interface that the socket is bound to, by name; a socket with a link-local peer is always bound",
        unknown: "the socket is not bound to an interface, or the name is not known",
        names: ConventionNames { otel: "network.interface.name", ecs: "conntrace.interface.name" },
        get: |event, _| Cell::text(event.interface.as_deref()),
        ..PLAIN
    },
    Column {
        id: "interface_index",
        title: "IFINDEX",
        width: 7,
        help: "the network interface that the socket is bound to, by its index in the socket's network namespace",
        unknown: "the socket is not bound to an interface",
        names: ConventionNames { otel: "conntrace.interface.index", ecs: "conntrace.interface.id" },
        get: |event, _| Cell::number(event.interface_index()),
        ..PLAIN
    },
    Column {
        id: "preexisting",
        title: "PREEXISTING",
        width: 11,
        kind: Type::Boolean,
        help: "true if the connection is older than this run of conntrace",
        names: ConventionNames {
            otel: "conntrace.connection.preexisting",
            ecs: "conntrace.connection.preexisting",
        },
        get: |event, _| Cell::Boolean(event.connection.is(PREEXISTING)),
        ..PLAIN
    },
];

fn address<'a>(event: &'a Enriched, ip: IpAddr, name: Option<&'a str>) -> Cell<'a> {
    Cell::Address { ip, name, scope: event.scope(ip) }
}
