//! What a running process uses: processor time, memory, descriptors, and maps in the kernel.

use std::{collections::BTreeMap, fs, time::Duration};

/// Clock ticks of a second in `/proc` (`USER_HZ`), the same on all kernels of x86 and arm64.
const TICKS: u64 = 100;

/// Processor time so far, in user and kernel mode.
///
/// # Panics
/// The process is gone.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // The 14th and 15th field, proc_pid_stat(5).
    let times = after_name.split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = times.map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 1_000 / TICKS)
}

/// Memory of the process itself, in bytes.
///
/// # Panics
/// The process is gone.
pub fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The same without files and maps that it shares with the kernel.
///
/// # Panics
/// The process is gone.
pub fn own_memory(pid: u32) -> u64 {
    status(pid, "RssAnon:")
}

/// A size that the kernel shows of a process, in bytes.
fn status(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let size = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
    size.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("a size") * 1024
}

/// The number of its open files.
///
/// # Panics
/// The process is gone.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count()
}

/// Memory that the kernel charges for the maps of the process, in bytes.
///
/// # Panics
/// The process is gone.
pub fn map_memory(pid: u32) -> u64 {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("a process") {
        // Descriptors come and go.
        let Ok(text) = fs::read_to_string(entry.expect("an entry").path()) else { continue };
        let number = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        if let (Some(id), Some(bytes)) = (number("map_id:"), number("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    maps.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_this_process_is_read() {
        let own = std::process::id();
        assert!(memory(own) > 100_000 && open_files(own) > 2);
        assert_eq!(map_memory(own), 0);
        let before = cpu(own);
        while cpu(own) == before {
            std::hint::spin_loop();
        }
    }
}
