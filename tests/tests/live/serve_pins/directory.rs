//! Where pins may be, and their end.

use super::unpinned;
use conn_tests::{
    harness::Outcome,
    host::Host,
    needs_tracing,
    pins::{Pins, TAKEN_OVER, kill},
    tracer::{Ended, Setup},
};
use macro_rules_attribute::apply;
use nix::{
    mount::{MsFlags, mount},
    unistd::{Gid, Uid, chown},
};
use std::{fs, os::unix::fs::PermissionsExt as _, os::unix::fs::symlink, path::Path};

/// Starts a daemon that pins nothing for this reason.
fn expect_unpinned(pins: &Pins, point: &Path, reason: &str) {
    let daemon = pins.serve_at(point).start();
    let why = unpinned(&daemon);
    assert!(why.contains(reason), "{reason}: {why}");
    daemon.stop().expect_code(0);
}

fn removed(detached: &Ended) -> &str {
    detached.expect_code(0);
    detached.stdout.first().expect("a line")
}

#[apply(needs_tracing)]
fn unfit_directories_are_named_and_never_used(_: &Host) -> Outcome {
    let pins = Pins::bare();
    let point = pins.point();
    fs::write(point.join("file"), "").unwrap();
    expect_unpinned(&pins, &point, "it is not empty): mount -t bpf");
    fs::remove_file(point.join("file")).unwrap();

    expect_unpinned(&pins, &point.join("none"), "cannot be opened (No such file");
    let link = point.with_extension("link");
    symlink(&point, &link).unwrap();
    expect_unpinned(&pins, &link, "is a symbolic link or no directory");

    chown(&point, Some(Uid::from_raw(1234)), None).unwrap();
    expect_unpinned(&pins, &point, "belongs to user 1234, not to root");
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0, "mounted on a user's directory");
    Ok(())
}

#[apply(needs_tracing)]
fn unfit_file_systems_are_named_and_never_used(_: &Host) -> Outcome {
    let pins = Pins::new();
    let point = pins.point();
    let remount = |flags| {
        mount(None::<&str>, &point, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
    };
    kill(pins.serve().start());
    remount(MsFlags::MS_RDONLY);
    expect_unpinned(&pins, &point, "is read-only: mount -o remount,rw");
    remount(MsFlags::empty());

    let own = point.join("conntrace");
    chown(&own, Some(Uid::from_raw(1234)), Some(Gid::from_raw(0))).unwrap();
    expect_unpinned(&pins, &point, "belongs to user 1234, not to root");
    chown(&own, Some(Uid::from_raw(0)), None).unwrap();

    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    expect_unpinned(&pins, &point, "has mode 0755, so that other users reach it: chmod 0700");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();

    fs::set_permissions(&point, fs::Permissions::from_mode(0o777)).unwrap();
    expect_unpinned(&pins, &point, "has mode 0777, so that other users reach it");
    // As the kernel makes it: others may write, and replace nothing.
    fs::set_permissions(&point, fs::Permissions::from_mode(0o1777)).unwrap();
    let daemon = pins.serve().start();
    daemon.await_stderr(TAKEN_OVER, |line| line.contains(TAKEN_OVER));
    daemon.stop().expect_code(0);
    Ok(())
}

#[apply(needs_tracing)]
fn empty_directory_gets_a_file_system(_: &Host) -> Outcome {
    let pins = Pins::bare();
    let daemon = pins.serve().start();
    let mounted = "conntrace has mounted a bpf file system on";
    daemon.await_stderr(mounted, |line| line.contains(mounted));
    daemon.stop().expect_code(0);
    let daemon = pins.serve().start();
    daemon.await_stderr(TAKEN_OVER, |line| line.contains(TAKEN_OVER));
    assert!(!daemon.has_stderr(|line| line.contains(mounted)));
    Ok(())
}

#[apply(needs_tracing)]
fn transient_daemon_pins_nothing(_: &Host) -> Outcome {
    let pins = Pins::bare();
    let socket = pins.point().join("socket").display().to_string();
    for (option, is_pinned) in [(Some("--transient"), false), (None, true)] {
        let setup = Setup::new(["serve", "--group", "65534", "--socket", &socket]).arguments(option);
        let daemon = setup.mounting(c"bpf", Path::new("/sys/fs/bpf")).start();
        let pinned = format!("/proc/{}/root/sys/fs/bpf/conntrace", daemon.pid());
        assert_eq!(Path::new(&pinned).exists(), is_pinned, "{option:?}");
        daemon.stop().expect_code(0);
    }
    Ok(())
}

#[apply(needs_tracing)]
fn detach_takes_all_away_but_what_is_not_ours(_: &Host) -> Outcome {
    let pins = Pins::new();
    assert_eq!(removed(&pins.detach()), "removed 0 links, 0 programs and 0 maps");
    kill(pins.serve().start());
    let links = fs::read_dir(pins.epoch().join("links")).unwrap().count();
    let text = pins.detach();
    assert!(removed(&text).starts_with(&format!("removed {links} links, {links} programs and ")), "{text:?}");
    assert!(!pins.point().join("conntrace").exists());

    // Half of the pins, and strangers among them.
    kill(pins.serve().start());
    let epoch = pins.epoch();
    fs::remove_file(epoch.join("maps/LEDGER")).unwrap();
    fs::remove_file(epoch.join("progs/sock_ops")).unwrap();
    fs::rename(epoch.join("maps/NETNS"), epoch.join("links/NETNS")).unwrap();
    let stranger = pins.point().join("conntrace/stranger");
    fs::create_dir(&stranger).unwrap();
    fs::create_dir(stranger.join("directory")).unwrap();
    let text = pins.detach();
    assert!(
        removed(&text).starts_with(&format!("removed {links} links, {} programs", links - 1)),
        "{text:?}"
    );
    let left = text.stdout[1..].join("\n");
    for path in [epoch.join("links/NETNS"), stranger.clone()] {
        assert!(left.contains(&format!("left {}: conntrace did not make it", path.display())), "{left}");
        assert!(path.exists());
    }
    Ok(())
}
