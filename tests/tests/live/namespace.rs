//! The namespaces themselves, without conntrace.

use conn_tests::{harness::Outcome, host::Host, needs_namespaces, netns::NetNs};
use macro_rules_attribute::apply;
use std::{
    fs,
    net::{IpAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    thread,
};

#[apply(needs_namespaces)]
fn namespaces_are_isolated(_: &Host) -> Outcome {
    let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    assert_ne!(a.inum(), b.inum());
    let listener = a.run(|| TcpListener::bind("127.0.0.1:7").unwrap());
    let address = listener.local_addr().unwrap();
    assert!(b.run(|| TcpStream::connect(address)).is_err());
    a.run(|| TcpStream::connect(address)).unwrap();
    Ok(())
}

#[apply(needs_namespaces)]
fn namespaces_have_distinct_inodes(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let seen = || fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    assert_eq!(ns.run(seen), ns.inum());
    assert_ne!(seen(), ns.inum());
    Ok(())
}

#[apply(needs_namespaces)]
fn veth_pairs_carry_both_families(_: &Host) -> Outcome {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
                let (first, second) = (a.join(&b).unwrap(), a.join(&b).unwrap());
                assert_ne!(first.name, second.name);
                for ip in [first.there.v4.into(), IpAddr::from(second.there.v6)] {
                    let listener = b.run(|| TcpListener::bind((ip, 7)).unwrap());
                    let stream = a.run(|| TcpStream::connect((ip, 7)).unwrap());
                    assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
                }
            });
        }
    });
    Ok(())
}

#[apply(needs_namespaces)]
fn sysctls_stay_in_their_namespace(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let read = || fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_retries").unwrap();
    let outside = read();
    ns.sysctl("net.ipv4.tcp_syn_retries", "3").unwrap();
    assert_eq!(ns.run(read).trim(), "3");
    assert_eq!(read(), outside);
    Ok(())
}
