//! conntrace with less than root on the whole host: single capabilities, a container, hidden directories, another
//! network namespace. It does the same, or says what it does without, and why.

use super::{owner::event, workload::cgroup_root};
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::{Ended, Setup},
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::path::Path;

/// `include/uapi/linux/capability.h`.
const NET_ADMIN: u8 = 12;
const SYS_ADMIN: u8 = 21;
const PERFMON: u8 = 38;
const BPF: u8 = 39;

/// Checks the end of a connection on both sides, which any tracer must report alike.
fn sees_a_connection(setup: Setup, port: &Port) -> Ended {
    let port_text = port.to_string();
    let tracer =
        setup.arguments(["-o", "json", "--dport", &port_text, "--count", "2", "-e", "DESTROY"]).start();
    let tuple = close::orderly(port.v4(), 1, First::Client).tuple();
    let [out, inn] = ["out", "in"].map(|direction| event(&tracer, "destroy", direction, tuple.client.port()));
    let ended = tracer.await_end();
    let message = ended.expect_code(0);
    for (end, reason) in [(&out, "closed_by_us"), (&inn, "closed_by_peer")] {
        assert_eq!((&end["reason"], &end["preexisting"]), (&reason.into(), &false.into()), "{end}");
        assert!(end["handshake_ns"].is_u64() && end["lifetime_ns"].is_u64(), "{end}");
    }
    let us = Value::from(std::process::id());
    assert_eq!((&out["owner"], &out["pid"]), (&"connect".into(), &us), "{out}");
    // What is not known is not guessed, and was said.
    let expected = if !message.contains("lets no program see accepts") {
        ("accept", us)
    } else if !message.contains("nor named as owners") {
        ("listener", us)
    } else {
        ("-", Value::Null)
    };
    assert_eq!((&inn["owner"], &inn["pid"]), (&expected.0.into(), &expected.1), "{inn} {message}");
    ended
}

/// What the doctor says, the facts of its degradations, and its exit status.
fn findings(setup: Setup) -> (Value, Vec<String>, i32) {
    let ended = setup.arguments(["doctor", "-o", "json"]).run();
    let findings: Value = serde_json::from_str(&ended.stdout.join("\n")).expect("one object");
    let degradations = findings["degradations"].as_array().expect("degradations");
    let facts = degradations.iter().map(|one| {
        assert!(one["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{one}");
        one["fact"].as_str().expect("a fact").to_owned()
    });
    let facts = facts.collect();
    (findings, facts, ended.code.expect("an exit status"))
}

/// The self-test passed.
#[track_caller]
fn works(findings: &Value) {
    let outcomes = findings["selftest"].as_array().expect("outcomes");
    assert!(outcomes.len() >= 6 && outcomes.iter().all(|outcome| outcome["passed"] == true), "{findings}");
}

fn none() -> Setup {
    Setup::new([""; 0])
}

#[apply(needs_tracing)]
fn three_capabilities_are_enough(_: &Host) -> Outcome {
    let port = Port::claim();
    let ended = sees_a_connection(none().nobody_with(&[BPF, PERFMON, NET_ADMIN]), &port);
    assert!(!ended.stderr.contains("CAP_NET_ADMIN"), "{}", ended.stderr);
    let (findings, facts, _) = findings(none().nobody_with(&[BPF, PERFMON, NET_ADMIN]));
    // What it cannot do with these three is said.
    assert!(facts.iter().any(|fact| fact.contains("CAP_SYS_ADMIN")), "{facts:?}");
    works(&findings);
    Ok(())
}

/// `CAP_SYS_ADMIN` includes what programs need.
#[apply(needs_tracing)]
fn one_capability_for_all_of_them(_: &Host) -> Outcome {
    let port = Port::claim();
    let ended = sees_a_connection(none().nobody_with(&[SYS_ADMIN]), &port);
    assert!(!ended.stderr.contains("CAP_NET_ADMIN"), "{}", ended.stderr);
    Ok(())
}

#[apply(needs_tracing)]
fn missing_capabilities_are_named(_: &Host) -> Outcome {
    for (has, lacks) in [
        (vec![PERFMON, NET_ADMIN], "missing here: CAP_BPF\n"),
        (vec![BPF, NET_ADMIN], "missing here: CAP_PERFMON\n"),
        (vec![NET_ADMIN], "missing here: CAP_BPF, CAP_PERFMON\n"),
    ] {
        for command in ["events", "count", "list", "stats"] {
            let ended = Setup::new([command]).nobody_with(&has).run();
            let message = ended.expect_code(1);
            assert!(message.contains(lacks) && message.contains("sudo"), "{command} with {has:?}: {message}");
            assert!(ended.stdout.is_empty(), "{ended:?}");
        }
    }
    Ok(())
}

#[apply(needs_tracing)]
fn sock_ops_is_left_out_without_net_admin(_: &Host) -> Outcome {
    let port = Port::claim();
    let ended = sees_a_connection(none().nobody_with(&[BPF, PERFMON]), &port);
    assert!(ended.stderr.contains("CAP_NET_ADMIN is missing: NEW of an outgoing"), "{}", ended.stderr);
    let (findings, facts, code) = findings(none().nobody_with(&[BPF, PERFMON]));
    assert!(facts.contains(&"CAP_NET_ADMIN is missing".to_owned()), "{facts:?}");
    let transitions =
        findings["plan"].as_array().expect("a plan").iter().find(|one| one["name"] == "transitions");
    assert_eq!(transitions.expect("hooks")["value"], "set_state, set_state_again, destroy_sock");
    works(&findings);
    assert_eq!(code, 1);
    Ok(())
}

/// With a container's namespaces and its bare file system, and all capabilities.
#[apply(needs_tracing)]
fn a_container_traces_the_host(_: &Host) -> Outcome {
    let port = Port::claim();
    // The connection is outside, and so are its processes.
    sees_a_connection(none().contained(), &port);
    let (findings, facts, code) = findings(none().contained());
    for expected in ["cgroup v2 hierarchy is not mounted", "pid namespace of its own"] {
        assert!(facts.iter().any(|fact| fact.contains(expected)), "{expected}: {facts:?}");
    }
    works(&findings);
    assert_eq!(code, 1);
    Ok(())
}

/// Everything is seen from there, its own connections and those of others.
#[apply(needs_tracing)]
fn another_network_namespace_traces_the_host(_: &Host) -> Outcome {
    let here = NetNs::new().expect("a namespace");
    let port = Port::claim();
    here.run(|| {
        sees_a_connection(none(), &port);
    });
    let tracer = here.run(|| Setup::new(["-o", "json", "--dport", &port.to_string()]).start());
    let outside = close::orderly(port.v4(), 1, First::Server).tuple();
    let end = event(&tracer, "destroy", "in", outside.client.port());
    assert_ne!(end["netns"], here.inum(), "{end}");
    Ok(())
}

/// Root mounts tracefs for itself. A tracer that may not has other hooks for accepts, or none and a warning.
#[apply(needs_tracing)]
fn tracing_needs_no_tracefs(_: &Host) -> Outcome {
    let tracefs = Path::new("/sys/kernel/tracing");
    if !tracefs.exists() {
        return Err(Skip(format!("this kernel has no {}", tracefs.display())));
    }
    let accepts = |setup: Setup| {
        let (findings, facts, _) = findings(setup);
        works(&findings);
        let plan = findings["plan"].as_array().expect("a plan");
        let hook = plan.iter().find(|one| one["name"] == "accepts").expect("a hook")["value"].clone();
        (hook, facts)
    };
    let (with, _) = accepts(none());
    let (without, _) = accepts(none().without(tracefs));
    assert_eq!(with, without);
    let (hook, facts) = accepts(none().without(tracefs).nobody_with(&[BPF, PERFMON, NET_ADMIN]));
    let none_at_all = facts.iter().any(|fact| fact.contains("lets no program see accepts"));
    assert_eq!(hook == "listener's owner only", none_at_all, "{hook} {facts:?}");
    assert_eq!(hook == with, with != "syscalls", "{hook} {with}");
    Ok(())
}

#[apply(needs_tracing)]
fn tracing_needs_no_cgroup_hierarchy(_: &Host) -> Outcome {
    let root = cgroup_root()?;
    let port = Port::claim();
    let ended = sees_a_connection(none().without(&root), &port);
    assert!(
        ended.stderr.contains("cgroup v2 hierarchy is not mounted: NEW of an outgoing"),
        "{}",
        ended.stderr
    );
    let (findings, facts, code) = findings(none().without(&root));
    assert!(facts.iter().any(|fact| fact.contains("cgroup v2")), "{facts:?}");
    works(&findings);
    assert_eq!(code, 1);
    Ok(())
}

#[apply(needs_tracing)]
fn a_kernel_without_btf_is_refused(_: &Host) -> Outcome {
    let ended = Setup::new(["-e", "NEW", "--timeout", "10s"]).without(Path::new("/sys/kernel/btf")).run();
    let message = ended.expect_code(1);
    assert!(message.contains("/sys/kernel/btf/vmlinux"), "{message}");
    assert!(message.contains("CONFIG_DEBUG_INFO_BTF"), "no remedy: {message}");
    Ok(())
}
