//! The kernel's own counters of a network namespace.

use crate::netns::NetNs;
use std::{collections::BTreeMap, fs};

/// Counters by `Section.Name`, as `nstat` has them: `Tcp.PassiveOpens`, `TcpExt.ListenDrops`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snmp(BTreeMap<String, i64>);

impl Snmp {
    /// Reads them in a namespace.
    pub fn of(ns: &NetNs) -> Self {
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("counters");
        let text = ns.run(|| read("snmp") + &read("netstat"));
        let mut counters = BTreeMap::new();
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks(2) {
            let [names, values] = pair else { continue };
            let section = names.split(':').next().unwrap_or_default();
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()).skip(1) {
                counters.insert(format!("{section}.{name}"), value.parse().expect("a number"));
            }
        }
        Self(counters)
    }

    /// One counter.
    ///
    /// # Panics
    /// The kernel has none of this name.
    pub fn get(&self, name: &str) -> u64 {
        let value = *self.0.get(name).unwrap_or_else(|| panic!("no counter {name}"));
        u64::try_from(value).expect("a count")
    }
}
