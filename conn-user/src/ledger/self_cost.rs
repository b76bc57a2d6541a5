//! What conntrace itself costs: `stats --self`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use aya::sys::{Stats, enable_stats};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value as Json, json};

use crate::kernel::probe::Cost;

/// Where an administrator turns the kernel's clock of programs on for everybody.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Lets the kernel time its programs, all of them, as long as this lives. That costs each run some 25 ns.
#[derive(Debug)]
pub struct OwnWatch {
    since: Instant,
    /// Why the programs are not timed, if they are not.
    clock: Result<Option<OwnedFd>, String>,
}

impl OwnWatch {
    /// Begins. To be called before the programs are loaded, so that no run is missing.
    pub fn start() -> Self {
        let is_on = || fs::read_to_string(SWITCH).is_ok_and(|value| value.trim() == "1");
        let clock = match enable_stats(Stats::RunTime) {
            Ok(fd) => Ok(Some(fd)),
            Err(_) if is_on() => Ok(None),
            Err(error) => Err(format!(
                "the kernel refused to time them ({}): CAP_SYS_ADMIN or kernel.bpf_stats_enabled=1 is needed",
                error.io_error
            )),
        };
        Self { since: Instant::now(), clock }
    }

    /// One reading. `costs` are the programs', `lost` the events that found no room.
    pub fn look(&self, costs: &BTreeMap<&'static str, Cost>, lost: u64) -> Own {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Own {
            elapsed: self.since.elapsed(),
            programs: match &self.clock {
                Ok(_) => Ok(costs.clone()),
                Err(reason) => Err(reason.clone()),
            },
            skipped: costs.values().map(|cost| cost.missed).sum(),
            lost,
            user_seconds: usage.map(|usage| seconds(usage.user_time())),
            system_seconds: usage.map(|usage| seconds(usage.system_time())),
            memory_bytes: kibibytes(&status, "VmRSS:"),
            memory_peak_bytes: kibibytes(&status, "VmHWM:"),
            kernel_memory_bytes: kernel_memory(),
        }
    }
}

/// What conntrace has cost since its start. What cannot be read is unknown.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    elapsed: Duration,
    /// What the kernel timed, or why it did not.
    programs: Result<BTreeMap<&'static str, Cost>, String>,
    skipped: u64,
    lost: u64,
    user_seconds: Option<f64>,
    system_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    memory_peak_bytes: Option<u64>,
    /// Programs and maps, without what sockets remember.
    kernel_memory_bytes: Option<u64>,
}

impl Own {
    /// Lines for people.
    pub fn lines(&self) -> Vec<String> {
        let seconds = self.elapsed.as_secs_f64();
        let mut lines = match &self.programs {
            Ok(programs) => {
                let (runs, run_ns) = sum(programs);
                let each = programs
                    .iter()
                    .map(|(name, cost)| format!("{name} {} x {}", cost.runs, mean(cost.runs, cost.run_ns)));
                vec![
                    format!(
                        "self: the programs ran {runs} times in {seconds:.1} s, {} each: {:.2} % of a CPU",
                        mean(runs, run_ns),
                        run_ns as f64 / 1e7 / seconds.max(1e-9)
                    ),
                    format!("self: {}", each.collect::<Vec<_>>().join(", ")),
                ]
            }
            Err(reason) => vec![format!("self: how long the programs run is not known: {reason}")],
        };
        let time = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3} s"));
        let size = |bytes: Option<u64>| {
            bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0))
        };
        lines.push(format!("self: skipped by the kernel {}, events lost {}", self.skipped, self.lost));
        lines.push(format!(
            "self: CPU {} user, {} system; memory {}, at most {}; in the kernel {}",
            time(self.user_seconds),
            time(self.system_seconds),
            size(self.memory_bytes),
            size(self.memory_peak_bytes),
            size(self.kernel_memory_bytes)
        ));
        lines
    }

    /// An object. The programs one by one are elsewhere in the report.
    pub fn json(&self) -> Json {
        let programs = self.programs.as_ref().ok().map(sum);
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "runs": programs.map(|(runs, _)| runs),
            "run_ns": programs.map(|(_, run_ns)| run_ns),
            "skipped": self.skipped,
            "lost": self.lost,
            "user_seconds": self.user_seconds,
            "system_seconds": self.system_seconds,
            "memory_bytes": self.memory_bytes,
            "memory_peak_bytes": self.memory_peak_bytes,
            "kernel_memory_bytes": self.kernel_memory_bytes,
        })
    }
}

/// Runs and nanoseconds of all programs.
fn sum(programs: &BTreeMap<&'static str, Cost>) -> (u64, u64) {
    programs.values().fold((0, 0), |(runs, ns), cost| (runs + cost.runs, ns + cost.run_ns))
}

/// A dash for what never ran.
fn mean(runs: u64, run_ns: u64) -> String {
    run_ns.checked_div(runs).map_or_else(|| "-".to_owned(), |ns| format!("{ns} ns"))
}

/// A field of `/proc/PID/status`, in bytes.
fn kibibytes(status: &str, field: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the kernel holds for the maps and programs that this process has open.
fn kernel_memory() -> Option<u64> {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    for entry in fs::read_dir("/proc/self/fdinfo").ok()? {
        // The descriptor of this directory is gone before its file can be read.
        let Ok(info) = fs::read_to_string(entry.ok()?.path()) else { continue };
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let object = field("map_id:").map(|id| (true, id)).or_else(|| Some((false, field("prog_id:")?)));
        if let Some((is_map, id)) = object
            && seen.insert((is_map, id.to_owned()))
        {
            bytes += field("memlock:")?.parse::<u64>().ok()?;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        let cost = |runs, run_ns| Cost { runs, run_ns, missed: 1 };
        Own {
            elapsed: Duration::from_secs(10),
            programs: Ok(BTreeMap::from([
                ("set_state", cost(1_000_000, 450_000_000)),
                ("sock_ops", cost(0, 0)),
            ])),
            skipped: 2,
            lost: 7,
            user_seconds: Some(0.25),
            system_seconds: Some(0.0625),
            memory_bytes: Some(12 << 20),
            memory_peak_bytes: Some(25 << 19),
            kernel_memory_bytes: None,
        }
    }

    #[test]
    fn the_cost_is_told_to_people() {
        insta::assert_snapshot!(own().lines().join("\n"), @"
        self: the programs ran 1000000 times in 10.0 s, 450 ns each: 4.50 % of a CPU
        self: set_state 1000000 x 450 ns, sock_ops 0 x -
        self: skipped by the kernel 2, events lost 7
        self: CPU 0.250 s user, 0.062 s system; memory 12.0 MiB, at most 12.5 MiB; in the kernel -
        ");
    }

    #[test]
    fn what_is_not_known_has_a_reason() {
        let unknown = Own { programs: Err("the kernel refused".into()), user_seconds: None, ..own() };
        insta::assert_snapshot!(unknown.lines().join("\n"), @"
        self: how long the programs run is not known: the kernel refused
        self: skipped by the kernel 2, events lost 7
        self: CPU - user, 0.062 s system; memory 12.0 MiB, at most 12.5 MiB; in the kernel -
        ");
        assert!(unknown.json()["runs"].is_null() && unknown.json()["run_ns"].is_null());
        assert_eq!(unknown.json()["lost"], 7);
    }

    #[test]
    fn the_cost_is_told_to_machines() {
        insta::assert_snapshot!(own().json().to_string(), @r#"{"kernel_memory_bytes":null,"lost":7,"memory_bytes":12582912,"memory_peak_bytes":13107200,"run_ns":450000000,"runs":1000000,"seconds":10.0,"skipped":2,"system_seconds":0.0625,"user_seconds":0.25}"#);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tconntrace\nVmHWM:\t   10240 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(8 << 20));
        assert_eq!(kibibytes(status, "VmHWM:"), Some(10 << 20));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }
}
