//! The Debian package: made by dpkg-deb, then installed, run and removed in a directory of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{DOCUMENTS, Dist, install, install_all, reset, skipped};
use crate::command::{self, run};
use crate::toolchain;

const DOC: &str = "usr/share/doc/conntrace";

/// The directory of documents that programs read.
const PLACES: [(&str, &str); 5] = [
    ("LICENSE", "usr/share/doc/conntrace/copyright"),
    ("docs/man", "usr/share/man/man1"),
    ("docs/completions/conntrace.bash", "usr/share/bash-completion/completions/conntrace"),
    ("docs/completions/_conntrace", "usr/share/zsh/vendor-completions/_conntrace"),
    ("docs/completions/conntrace.fish", "usr/share/fish/vendor_completions.d/conntrace.fish"),
];

/// The files of the service, and those for programs that ask it: below `packaging`, and in the package.
const SERVICE: [(&str, &str); 18] = [
    ("conntrace.service", "usr/lib/systemd/system/conntrace.service"),
    ("conntrace.socket", "usr/lib/systemd/system/conntrace.socket"),
    ("sysusers.conf", "usr/lib/sysusers.d/conntrace.conf"),
    ("tmpfiles.conf", "usr/lib/tmpfiles.d/conntrace.conf"),
    ("conntrace.toml", "etc/conntrace/conntrace.toml"),
    ("rules.example.toml", "usr/share/doc/conntrace/rules.example.toml"),
    ("munin/plugin.conf", "etc/munin/plugin-conf.d/conntrace"),
    ("prometheus/scrape.yml", "usr/share/doc/conntrace/prometheus/scrape.yml"),
    ("prometheus/rules.yml", "usr/share/doc/conntrace/prometheus/rules.yml"),
    ("prometheus/rules.test.yml", "usr/share/doc/conntrace/prometheus/rules.test.yml"),
    ("grafana/host.json", "usr/share/doc/conntrace/grafana/host.json"),
    ("grafana/fleet.json", "usr/share/doc/conntrace/grafana/fleet.json"),
    ("clickhouse/schema.sql", "usr/share/doc/conntrace/clickhouse/schema.sql"),
    ("clickhouse/questions.sql", "usr/share/doc/conntrace/clickhouse/questions.sql"),
    ("otel/agent.yaml", "usr/share/doc/conntrace/otel/agent.yaml"),
    ("otel/gateway.yaml", "usr/share/doc/conntrace/otel/gateway.yaml"),
    ("otel/daemonset.yaml", "usr/share/doc/conntrace/otel/daemonset.yaml"),
    ("vector/vector.yaml", "usr/share/doc/conntrace/vector/vector.yaml"),
];
/// A program beside them.
const PLUGIN: (&str, &str) = ("munin/conntrace_", "usr/share/munin/plugins/conntrace_");
/// The files that an administrator may change.
const CONFFILES: &str = "/etc/conntrace/conntrace.toml\n/etc/munin/plugin-conf.d/conntrace\n";

/// The scripts that dpkg runs, below `packaging`.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes the package, and tries it.
pub(super) fn make(dist: &Dist) -> Result<()> {
    let root = dist.directory.join("package");
    install(&dist.program, &root.join("usr/bin/conntrace"), 0o755)?;
    let source = command::workspace();
    for document in DOCUMENTS {
        install_all(&source.join(document), &root.join(DOC).join(document))?;
    }
    for (made, place) in PLACES {
        let (from, to) = (root.join(DOC).join(made), root.join(place));
        let parent = to.parent().context("a file is in a directory")?;
        fs::create_dir_all(parent)?;
        fs::rename(&from, &to).with_context(|| format!("{} is missing", from.display()))?;
    }
    fs::remove_dir(root.join(DOC).join("docs/completions"))?;
    for (from, to) in SERVICE {
        install(&source.join("packaging").join(from), &root.join(to), 0o644)?;
    }
    install(&source.join("packaging").join(PLUGIN.0), &root.join(PLUGIN.1), 0o755)?;
    for script in SCRIPTS {
        install(&source.join("packaging").join(script), &root.join("DEBIAN").join(script), 0o755)?;
    }
    fs::write(root.join("DEBIAN/conffiles"), CONFFILES)?;
    let control = root.join("DEBIAN/control");
    fs::write(&control, self::control(size(&root)?)).context("cannot write the package's control file")?;

    let file = format!("conntrace_{}_amd64.deb", Dist::VERSION);
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(&file);
    // The messages of dpkg-deb carry no news.
    build
        .current_dir(&dist.directory)
        .env("SOURCE_DATE_EPOCH", &dist.epoch)
        .stdout(std::process::Stdio::null());
    run(&mut build)?;
    fs::remove_dir_all(&root)?;
    dist.made(&file)?;
    try_it(&dist.directory, &file)
}

fn control(kilobytes: u64) -> String {
    format!(
        "Package: conntrace\n\
         Version: {}\n\
         Architecture: amd64\n\
         Maintainer: conntrace maintainers <maintainers@conntrace.invalid>\n\
         Installed-Size: {kilobytes}\n\
         Section: net\n\
         Priority: optional\n\
         Homepage: {}\n\
         Description: shows every TCP connection of this host\n \
         conntrace shows every TCP connection that a host opens, accepts, fails to open\n \
         and closes, as it happens, with its owner, how long it lived and why it failed.\n \
         It looks at sockets, through eBPF, and needs no connection tracking.\n",
        Dist::VERSION,
        env!("CARGO_PKG_REPOSITORY"),
    )
}

/// Installs the package into a directory that stands for a root file system. No package of this host changes.
fn try_it(directory: &Path, file: &str) -> Result<()> {
    if !toolchain::is_root() {
        skipped("trying the Debian package", "dpkg --root needs root");
        return Ok(());
    }
    let root = directory.join("root");
    reset(&root)?;
    for part in ["info", "updates", "triggers"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(part))?;
    }
    fs::write(root.join("var/lib/dpkg/status"), "")?;
    let dpkg = |arguments: [&str; 2]| {
        let mut dpkg = Command::new("dpkg");
        // The scripts leave the running system alone when they run for another root.
        dpkg.arg("--force-script-chrootless").arg("--root").arg(&root).args(arguments).current_dir(directory);
        run(dpkg.stdout(std::process::Stdio::null()))
    };
    dpkg(["--install", file])?;
    let program = root.join("usr/bin/conntrace");
    let output = Command::new(&program).arg("--version").output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.trim() == format!("conntrace {}", Dist::VERSION), "the package's program says {said:?}");
    dpkg(["--purge", "conntrace"])?;
    let left: Vec<_> = ["usr", "etc"].iter().filter(|part| root.join(part).exists()).collect();
    ensure!(left.is_empty(), "removed, the package leaves {left:?} behind");
    fs::remove_dir_all(&root)?;
    println!("{file}: installs, runs, and leaves nothing behind");
    Ok(())
}

/// Its installed size, in KiB.
fn size(path: &Path) -> Result<u64> {
    if path.is_dir() {
        let mut sum = 1;
        for entry in fs::read_dir(path)? {
            sum += size(&entry?.path())?;
        }
        return Ok(sum);
    }
    Ok(fs::metadata(path)?.len().div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_file_is_one_paragraph() {
        let text = control(4096);
        assert!(text.starts_with("Package: conntrace\n") && !text.contains("\n\n"), "{text}");
        assert!(text.contains("\nInstalled-Size: 4096\n"), "{text}");
        let long = text.lines().skip_while(|line| !line.starts_with("Description: ")).skip(1);
        assert!(long.clone().count() == 3 && long.clone().all(|line| line.starts_with(' ')), "{text}");
    }
}
