//! `cargo xtask vm`: the live tests and the truth in stock kernels, each in a machine of its own.

pub(crate) mod archive;
mod emulator;
mod freeze;
mod guest;
mod initramfs;
mod job;
mod kernel;
mod page;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::binary::{self, IS_STATIC_HOST, Programs, one};
use crate::tally::Tally;
use crate::toolchain::Places;
use crate::{command, setup};
use archive::Mirrors;
use emulator::Emulator;
use guest::{Event, Fate, Logs};
use initramfs::Initramfs;
use job::{Extent, Job, Kind};
use kernel::{Kernel, Wanted};

/// The least number of machines at a time. Most of a test's time is waiting.
const MACHINES: usize = 2;

/// The part of `/etc/services` that the tests use.
const SERVICES: &[u8] = b"ssh 22/tcp\nhttp 80/tcp\nhttps 443/tcp\n";

/// Options of `vm`.
#[derive(Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "options, most of which exclude each other")]
pub(crate) struct Arguments {
    /// Only these kernels: 5.10, 6.1, 6.12, newest
    #[arg(long, value_name = "KERNEL", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Run what `cargo xtask test` runs in machines, a few minutes
    #[arg(long, conflicts_with = "filter")]
    short: bool,
    /// Write the results to docs/kernels.md
    #[arg(long, conflicts_with_all = ["kernel", "filter"])]
    write: bool,
    /// Write the BTF that the unit tests need, of each kernel and of this machine, to conn-user/tests/kernel
    #[arg(long, conflicts_with_all = ["filter", "short", "write"])]
    freeze: bool,
    /// Look for newer kernels than those in the cache
    #[arg(long)]
    update: bool,
    /// Given to the live tests: a part of a name, or options of theirs; nothing else runs then
    #[arg(last = true)]
    filter: Vec<String>,
}

impl Arguments {
    /// The options of the short selection, which every run of all tests includes.
    pub(crate) fn short() -> Self {
        Self { short: true, ..Self::default() }
    }

    fn extent(&self) -> Extent {
        match &self.filter[..] {
            _ if self.short => Extent::Short,
            _ if self.freeze => Extent::Freeze,
            [] => Extent::All,
            filter => Extent::Filter(filter.to_vec()),
        }
    }
}

/// Runs the task alone.
pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure_toolchain()?;
    setup::ensure_machine_tools()?;
    let mut tally = Tally::default();
    let complete = conntrace().and_then(|program| run(arguments, &program, &mut tally));
    Ok(tally.report(complete))
}

/// Builds the conntrace that runs in machines: the release program. Hosts without machines get a plain build.
pub(crate) fn conntrace() -> Result<PathBuf> {
    if IS_STATIC_HOST { binary::static_conntrace() } else { binary::conntrace(false) }
}

/// A machine that has run.
struct Ran {
    kernel: Kernel,
    /// Its processor.
    cpu: &'static str,
    tally: Tally,
    jobs: Vec<RanJob>,
}

/// A job that has run.
struct RanJob {
    name: String,
    kind: Kind,
    lines: Vec<String>,
    tally: Tally,
}

/// Runs the matrix with this conntrace, which must be static. Skips kernels that cannot be fetched.
pub(crate) fn run(arguments: &Arguments, program: &Path, tally: &mut Tally) -> Result<()> {
    let wanted = kernel::choose(&arguments.kernel)?;
    if !IS_STATIC_HOST {
        skip_all(&wanted, "the kernels are for x86_64, and this is another machine", tally);
        return Ok(());
    }
    let cache = Places::here().cache.join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let mirrors = Mirrors::of_host();
    if let Err(error) = &mirrors {
        eprintln!("note: {error:#}");
    }
    let mirrors = mirrors.as_ref().ok();
    let mut emulator = match Emulator::get(&cache, mirrors) {
        Ok(emulator) => emulator,
        Err(error) => {
            skip_all(&wanted, &format!("no QEMU: {error:#}"), tally);
            return Ok(());
        }
    };
    let mut kernels = Vec::new();
    for wanted in wanted {
        match wanted.get(&cache, mirrors, arguments.update) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => tally.skip(format!("vm {}", wanted.name), &format!("cannot be fetched: {error:#}")),
        }
    }
    let mut programs = binary::static_tests()?;
    programs.insert("conntrace".to_owned(), program.to_owned());
    let matrix =
        Matrix { extent: arguments.extent(), programs, directory: directory()?, output: Mutex::default() };
    if let Some(kernel) = kernels.first() {
        emulator.try_kvm(&cache, |emulator| matrix.boots(emulator, kernel))?;
    }
    let mut ran = matrix.run(&emulator, &kernels).into_iter().collect::<Result<Vec<_>>>()?;
    ran.sort_by_key(|one| kernels.iter().position(|kernel| *kernel == one.kernel));
    for one in &ran {
        tally.add(one.tally.clone());
    }
    if arguments.write {
        page::write(&ran)?;
    }
    if arguments.freeze {
        freeze::write(&ran, &matrix.programs["freeze"])?;
    }
    Ok(())
}

/// Skips all kernels for one reason.
fn skip_all(wanted: &[Wanted], reason: &str, tally: &mut Tally) {
    for wanted in wanted {
        tally.skip(format!("vm {}", wanted.name), reason);
    }
}

/// The directory of the initramfs files and logs.
fn directory() -> Result<PathBuf> {
    let directory = command::target().join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// The machines of one run.
struct Matrix {
    extent: Extent,
    programs: Programs,
    directory: PathBuf,
    /// Held while a line is printed.
    output: Mutex<()>,
}

impl Matrix {
    /// Runs as many machines at a time as the host has pairs of processors: a machine has two.
    fn run(&self, emulator: &Emulator, kernels: &[Kernel]) -> Vec<Result<Ran>> {
        let at_a_time =
            thread::available_parallelism().map_or(1, |cpus| cpus.get().div_ceil(2)).max(MACHINES);
        let next = Mutex::new(kernels.iter());
        let ran = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..at_a_time.min(kernels.len()) {
                scope.spawn(|| {
                    loop {
                        let Some(kernel) = locked(&next).next() else { break };
                        let one = self.one(emulator, kernel);
                        locked(&ran).push(one);
                    }
                });
            }
        });
        ran.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs one machine.
    fn one(&self, emulator: &Emulator, kernel: &Kernel) -> Result<Ran> {
        let name = kernel.wanted.name;
        let jobs = job::list(kernel.wanted, &self.extent, emulator.kvm);
        let (initramfs, logs) = self.prepare(kernel, &jobs, name)?;
        let mut machine = emulator.machine(kernel, &initramfs);
        let start = Instant::now();
        let cpu = if emulator.kvm { "host" } else { kernel.wanted.cpu };
        let mut ran = Ran { kernel: kernel.clone(), cpu, tally: Tally::default(), jobs: Vec::new() };
        let mut lines = Vec::new();
        let mut began = Instant::now();
        let fate = guest::run(&mut machine, &logs, |event| match event {
            Event::Ready(release) => {
                let how = if emulator.kvm { "KVM" } else { "emulated" };
                self.print(
                    name,
                    &format!("Linux {release} has booted in {:.0} s, {how}", start.elapsed().as_secs_f64()),
                );
            }
            Event::Begin(job) => {
                lines.clear();
                began = Instant::now();
                self.print(name, &format!("== {job}"));
            }
            Event::Line(line) => {
                self.print(name, &line);
                lines.push(line);
            }
            Event::End(job, outcome) => {
                let took = began.elapsed().as_secs_f64();
                if let Some(job) = jobs.iter().find(|one| one.name == job) {
                    let verdict = job.judge(&outcome, &lines);
                    self.print(
                        name,
                        &format!(
                            "== {}: {}, {took:.0} s",
                            job.name,
                            verdict.as_ref().err().unwrap_or(&outcome)
                        ),
                    );
                    ran.take(job, std::mem::take(&mut lines), &verdict);
                }
            }
            Event::Warning(line) => self.print(name, &format!("kernel: {line}")),
        })?;
        let _ = fs::remove_file(&initramfs);
        let bad = match fate {
            Fate::Done if ran.jobs.len() == jobs.len() => None,
            Fate::Done => Some(format!("only {} of {} jobs have ended", ran.jobs.len(), jobs.len())),
            Fate::Panic(reason) => Some(format!("the kernel panicked: {reason}")),
            Fate::Hang(reason) => Some(format!("the machine hangs: {reason}")),
            Fate::Broken(reason) => Some(format!("the machine came to no end: {reason}")),
        };
        if let Some(reason) = bad {
            self.print(name, &reason);
            ran.tally.fail(format!("vm {name}: {reason}"), &lines);
        }
        self.print(name, &format!("{} in {:.0} s", ran.tally, start.elapsed().as_secs_f64()));
        Ok(ran)
    }

    /// Whether a machine without jobs ends soon.
    fn boots(&self, emulator: &Emulator, kernel: &Kernel) -> bool {
        const SOON: Duration = Duration::from_secs(10);
        let fate = self.prepare(kernel, &[], "probe").and_then(|(initramfs, logs)| {
            let mut machine = emulator.machine(kernel, &initramfs);
            guest::run_with(SOON, &mut machine, &logs, |_| {})
        });
        matches!(fate, Ok(Fate::Done))
    }

    /// Writes the initramfs of a machine.
    fn prepare(&self, kernel: &Kernel, jobs: &[Job], name: &str) -> Result<(PathBuf, Logs)> {
        let mut archive = Initramfs::new();
        archive.copy("init", &one(self.programs.clone(), "guest-init")?)?;
        for program in ["conntrace", "live", "truth", "freeze"] {
            archive.copy(&format!("bin/{program}"), &one(self.programs.clone(), program)?)?;
        }
        for (module, path) in kernel.modules()? {
            archive.copy(&format!("modules/{module}"), &path)?;
        }
        tools::add(&mut archive)?;
        archive.file("etc/services", SERVICES);
        // Tests put files of their own in the place of these.
        archive.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n");
        archive.file("etc/resolv.conf", b"nameserver 127.0.0.1\n");
        archive.file("etc/hosts", b"127.0.0.1 localhost\n");
        archive.file("jobs.json", job::to_json(jobs).to_string().as_bytes());
        let path = |end: &str| self.directory.join(format!("{name}.{end}"));
        let initramfs = path("initramfs");
        fs::write(&initramfs, archive.finish())
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        Ok((initramfs, Logs { results: path("results.log"), kernel: path("kernel.log") }))
    }

    fn print(&self, name: &str, line: &str) {
        let _one_at_a_time = locked(&self.output);
        println!("[{name}] {line}");
    }
}

impl Ran {
    /// Adds the result of a job.
    fn take(&mut self, job: &Job, lines: Vec<String>, verdict: &Result<(), String>) {
        let mut tally = Tally::default();
        match verdict {
            Err(reason) => tally.fail(format!("{}: {reason}", job.name), &lines),
            Ok(()) if job.kind != Kind::Tests => tally.passed += 1,
            Ok(()) => {}
        }
        if job.kind == Kind::Tests {
            for line in &lines {
                tally.line(line);
            }
        }
        let tally = tally.of(&format!("vm {} ", self.kernel.wanted.name));
        self.tally.add(tally.clone());
        self.jobs.push(RanJob { name: job.name.clone(), kind: job.kind, lines, tally });
    }

    /// The output of the first job of this kind.
    fn lines_of(&self, kind: Kind) -> Option<&[String]> {
        self.jobs.iter().find(|job| job.kind == kind).map(|job| &job.lines[..])
    }

    /// The findings of `conntrace doctor`.
    fn findings(&self) -> Option<Value> {
        let lines = self.lines_of(Kind::Doctor)?;
        lines.iter().find_map(|line| serde_json::from_str(line).ok())
    }

    /// The output of all jobs of this kind.
    fn all_lines_of(&self, kind: Kind) -> impl Iterator<Item = &String> {
        self.jobs.iter().filter(move |job| job.kind == kind).flat_map(|job| &job.lines)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
