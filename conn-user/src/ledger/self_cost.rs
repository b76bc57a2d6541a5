//! The cost of conntrace itself: `stats --self`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::Serialize;

use crate::kernel::program_stats::{Cost, ProgramClock};

/// Has the kernel time its programs, and measures what conntrace uses since the start.
#[derive(Debug)]
pub(crate) struct SelfCostWatch {
    since: Instant,
    /// Why the programs are not timed, if they are not.
    clock: Result<ProgramClock, String>,
}

impl SelfCostWatch {
    /// Starts the clock. To be called before the programs are loaded, so that no run is missing.
    pub(crate) fn start() -> Self {
        let clock = ProgramClock::start().map_err(|error| {
            format!(
                "the kernel refused to time them ({error}): CAP_SYS_ADMIN or kernel.bpf_stats_enabled=1 is needed"
            )
        });
        Self { since: Instant::now(), clock }
    }

    /// One reading. `costs` are the programs', `lost` the events that found no room.
    pub(crate) fn read(&self, costs: &BTreeMap<&'static str, Cost>, lost: u64) -> SelfCost {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let programs = match &self.clock {
            Ok(_) => Ok(costs.clone()),
            Err(reason) => Err(reason.clone()),
        };
        SelfCost {
            seconds: self.since.elapsed().as_secs_f64(),
            runs: programs.as_ref().ok().map(|programs| sum(programs).0),
            run_ns: programs.as_ref().ok().map(|programs| sum(programs).1),
            programs,
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

/// Processor time of this process in seconds, and its memory in bytes, as far as they can be read.
pub(crate) fn of_process() -> (Option<f64>, Option<u64>) {
    let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    let cpu = usage.map(|usage| seconds(usage.user_time()) + seconds(usage.system_time()));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    (cpu, kibibytes(&status, "VmRSS:"))
}

/// The cost of conntrace since its start. An unreadable number is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SelfCost {
    /// Time since the start.
    seconds: f64,
    /// The kernel's counts of each program, or the reason why the programs are not timed. A report has them elsewhere.
    #[serde(skip)]
    programs: Result<BTreeMap<&'static str, Cost>, String>,
    /// Runs of all programs.
    runs: Option<u64>,
    /// Time of all runs, nanoseconds.
    run_ns: Option<u64>,
    /// Runs that the kernel skipped.
    skipped: u64,
    /// Events that found no room in the ring.
    lost: u64,
    user_seconds: Option<f64>,
    system_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    memory_peak_bytes: Option<u64>,
    /// Programs and maps, without socket storage.
    kernel_memory_bytes: Option<u64>,
}

impl SelfCost {
    /// Lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let seconds = self.seconds;
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
}

/// Runs and nanoseconds of all programs.
fn sum(programs: &BTreeMap<&'static str, Cost>) -> (u64, u64) {
    programs.values().fold((0, 0), |(runs, ns), cost| (runs + cost.runs, ns + cost.run_ns))
}

/// Nanoseconds per run; a dash if there was none.
fn mean(runs: u64, run_ns: u64) -> String {
    run_ns.checked_div(runs).map_or_else(|| "-".to_owned(), |ns| format!("{ns} ns"))
}

/// A field of `/proc/PID/status`, in bytes.
fn kibibytes(status: &str, field: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Bytes that the kernel holds for the maps and programs that this process has open.
fn kernel_memory() -> Option<u64> {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    for entry in fs::read_dir("/proc/self/fdinfo").ok()? {
        // The descriptor of this directory is closed before its file can be read.
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
    use serde_json::json;

    use super::*;

    fn self_cost() -> SelfCost {
        let cost = |runs, run_ns| Cost { runs, run_ns, missed: 1 };
        SelfCost {
            seconds: 10.0,
            runs: Some(1_000_000),
            run_ns: Some(450_000_000),
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
    fn lines_show_the_cost() {
        insta::assert_snapshot!(self_cost().lines().join("\n"), @"
        self: the programs ran 1000000 times in 10.0 s, 450 ns each: 4.50 % of a CPU
        self: set_state 1000000 x 450 ns, sock_ops 0 x -
        self: skipped by the kernel 2, events lost 7
        self: CPU 0.250 s user, 0.062 s system; memory 12.0 MiB, at most 12.5 MiB; in the kernel -
        ");
    }

    #[test]
    fn unknown_run_time_has_a_reason() {
        let unknown = SelfCost {
            programs: Err("the kernel refused".into()),
            runs: None,
            run_ns: None,
            user_seconds: None,
            ..self_cost()
        };
        insta::assert_snapshot!(unknown.lines().join("\n"), @"
        self: how long the programs run is not known: the kernel refused
        self: skipped by the kernel 2, events lost 7
        self: CPU - user, 0.062 s system; memory 12.0 MiB, at most 12.5 MiB; in the kernel -
        ");
        let json = json!(unknown);
        assert!(json["runs"].is_null() && json["run_ns"].is_null());
        assert_eq!(json["lost"], 7);
    }

    #[test]
    fn json_has_the_cost() {
        insta::assert_snapshot!(json!(self_cost()).to_string(), @r#"{"kernel_memory_bytes":null,"lost":7,"memory_bytes":12582912,"memory_peak_bytes":13107200,"run_ns":450000000,"runs":1000000,"seconds":10.0,"skipped":2,"system_seconds":0.0625,"user_seconds":0.25}"#);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tconntrace\nVmHWM:\t   10240 kB\nVmRSS:\t    8192 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(8 << 20));
        assert_eq!(kibibytes(status, "VmHWM:"), Some(10 << 20));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }
}
