//! `cargo xtask pictures`: what Grafana and munin show of a scripted day of traffic, drawn into docs/pictures.
//!
//! The connections, the daemon, Prometheus and munin are real. Only the times are scripted: the day takes a minute.

mod chart;
mod dashboard;
mod munin;
mod prometheus;
mod words;

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::{binary, command, debian, setup, toolchain};
use prometheus::Prometheus;

/// The directory of the pictures.
const PICTURES: &str = "docs/pictures";
/// When the day begins, Unix time: 1 June 2026.
const START: u64 = 1_780_272_000;
/// Seconds between two readings, and how many there are.
const STEP: u64 = 300;
const STEPS: u64 = 288;
/// When the day ends.
const END: u64 = START + STEPS * STEP;

/// A host: its name, how many connections it has in percent of the first, and whether it has a day without failures.
const HOSTS: [(&str, u32, bool); 3] = [("web-1", 100, false), ("web-2", 70, true), ("db-1", 40, true)];

/// Options of `pictures`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Use the program without optimisation, faster to compile
    #[arg(long)]
    debug: bool,
    /// Leave the readings of the day here; readings that are there are drawn again without traffic
    #[arg(long, value_name = "DIR")]
    readings: Option<PathBuf>,
}

/// A directory that goes with this value.
struct Work(PathBuf);

impl Work {
    /// One that other users may enter.
    fn new() -> Result<Self> {
        let path = env::temp_dir().join(format!("conntrace-pictures-{}", process::id()));
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What is left there harms nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes the traffic, and draws.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(toolchain::is_root(), "conntrace and network namespaces need root: run this task as root");
    setup::ensure_toolchain()?;
    let work = Work::new()?;
    let readings = arguments.readings.clone().unwrap_or_else(|| work.0.join("readings"));
    for (name, load, is_calm) in HOSTS {
        let directory = readings.join(name);
        if !directory.is_dir() {
            live(&directory, load, is_calm, arguments.debug)?;
        }
    }
    let (_, programs) = debian::ensure();
    let server = Prometheus::start(&programs, &readings, &work.0)?;
    for (file, instance) in [("host", prometheus::instance(HOSTS[0].0)), ("fleet", ".*".to_owned())] {
        let source = command::workspace().join("packaging/grafana").join(format!("{file}.json"));
        let text =
            fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
        let panels = dashboard::panels(&text, &instance, &server)?;
        let picture = chart::picture(&panels);
        write(&format!("grafana-{file}.svg"), picture.as_bytes())?;
    }
    for (graph, picture) in munin::draw(&readings.join(HOSTS[0].0), &work.0)? {
        write(&format!("munin-{graph}.png"), &picture)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A day of a host.
fn live(directory: &Path, load: u32, is_calm: bool, debug: bool) -> Result<()> {
    let program = binary::conntrace(debug)?;
    let mut day = command::cargo(["run", "--quiet", "--package", "conn-tests", "--bin", "day", "--"]);
    day.arg("--directory").arg(directory).args(["--load", &load.to_string()]);
    if is_calm {
        day.args(["--calm", "--no-munin"]);
    }
    eprintln!("A day of {} (a minute)", directory.display());
    command::run(day.env("CONNTRACE_BIN", program))
}

fn write(name: &str, picture: &[u8]) -> Result<()> {
    let path = command::workspace().join(PICTURES).join(name);
    eprintln!("{PICTURES}/{name}: {} KB", picture.len().div_ceil(1_000));
    fs::write(&path, picture).with_context(|| format!("cannot write {}", path.display()))
}
