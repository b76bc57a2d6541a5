//! Debian's munin with the values of the plugin at their scripted times: its master asks a node for what it has kept.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{END, HOSTS, START, STEP, STEPS};
use crate::{command, debian};

/// The graphs.
const GRAPHS: [&str; 3] = ["port_8443", "states", "new"];
/// munin refuses to run as root: it runs as nobody.
const NOBODY: u32 = 65_534;
/// Answers as `munin-async` does: what was kept, with its times, in one answer.
const NODE: &str = r##"#!/bin/sh
echo "# munin node at $2"
while read -r word rest; do
    case $word in
    cap) echo "cap multigraph dirtyconfig spool" ;;
    nodes) printf '%s\n.\n' "$2" ;;
    list) echo ;;
    spoolfetch) cat "$1"; echo . ;;
    quit) exit 0 ;;
    *) echo "# Unknown command" ;;
    esac
done
"##;

/// The pictures of the graphs.
pub(super) fn draw(readings: &Path, work: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let root = work.join("munin-root");
    debian::unpack_whole("munin", &root)?;
    let place = work.join("munin");
    for part in ["db", "html", "log", "run", "included"] {
        let directory = place.join(part);
        fs::create_dir_all(&directory)?;
        chown(&directory, Some(NOBODY), Some(NOBODY))?;
    }
    let host = HOSTS[0].0;
    let (node, spool, settings) = (place.join("node"), place.join("spool"), place.join("munin.conf"));
    fs::write(&node, NODE)?;
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755))?;
    fs::write(&spool, kept(readings)?)?;
    let directories = ["db", "html", "log", "run"];
    let directories = directories.map(|part| format!("{part}dir {}\n", place.join(part).display())).concat();
    let text = format!(
        "{directories}tmpldir {}\nincludedir {}\ngraph_width 640\n\
         [{host}]\naddress cmd://{} {} {host}\nuse_node_name yes\n",
        root.join("etc/munin/templates").display(),
        place.join("included").display(),
        node.display(),
        spool.display()
    );
    fs::write(&settings, text)?;
    run(&root, "munin-update", &settings, &["--nofork"])?;
    // The graph ends where the last value is known.
    let span = format!("pinpoint={START},{}", END - 2 * STEP);
    let wanted = GRAPHS.map(|graph| format!("/{host}/{host}/conntrace_{graph}-{span}.png\n")).concat();
    fs::write(place.join("db/graphs"), wanted)?;
    run(
        &root,
        "munin-graph",
        &settings,
        &["--cron", "--log-file", &place.join("log/graph").to_string_lossy()],
    )?;
    let pictures = GRAPHS.iter().map(|&graph| {
        let path = place.join("html").join(host).join(host).join(format!("conntrace_{graph}-{span}.png"));
        let picture = fs::read(&path).with_context(|| format!("munin has not drawn {}", path.display()))?;
        Ok((graph, picture))
    });
    pictures.collect()
}

/// The descriptions and values of all graphs, as a node keeps them.
fn kept(readings: &Path) -> Result<String> {
    let read = |name: String| {
        let path = readings.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut text = String::new();
    for graph in GRAPHS {
        // A String takes any text.
        let _ = write!(text, "multigraph conntrace_{graph}\n{}", read(format!("{graph}.config"))?);
        for step in 0..STEPS {
            let time = START + (step + 1) * STEP;
            for line in read(format!("{step:03}.{graph}"))?.lines() {
                let (name, value) = line.split_once(' ').with_context(|| format!("no value: {line}"))?;
                let _ = writeln!(text, "{name} {time}:{value}");
            }
        }
    }
    Ok(text)
}

/// Runs a program of the master.
fn run(root: &Path, name: &str, settings: &Path, options: &[&str]) -> Result<()> {
    let at = |path: &str| -> PathBuf { root.join(path) };
    let libraries = at("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH));
    let mut modules = vec![at("usr/share/perl5")];
    for version in fs::read_dir(libraries.join("perl5"))? {
        modules.push(version?.path());
    }
    let mut program = Command::new("perl");
    program
        .arg(at("usr/share/munin").join(name))
        .arg("--config")
        .arg(settings)
        .args(options)
        .current_dir("/")
        .env("TZ", "UTC")
        .env("PERL5LIB", env::join_paths(modules)?)
        .env("LD_LIBRARY_PATH", libraries)
        .uid(NOBODY)
        .gid(NOBODY);
    command::run(command::quiet(&mut program))
}
