//! What daemons have pinned.

use std::path::Path;

use super::Fact;
use crate::host::clock::rfc3339;
use crate::kernel::pin::{self, DEFAULT_ROOT, Found};

/// One fact: the pins on the usual bpf file system, with the version that made them.
pub(super) fn fact() -> Fact {
    Fact { name: "pins", value: describe(Path::new(DEFAULT_ROOT)) }
}

fn describe(point: &Path) -> String {
    match pin::found(point) {
        Ok(found) if found.is_empty() => format!("none below {}", point.display()),
        Ok(found) => found.iter().map(line).collect::<Vec<_>>().join("\n"),
        Err(unfit) => format!("none can be used: {unfit}"),
    }
}

fn line(found: &Found) -> String {
    let Found { directory, version, epoch, hooks, maps, is_in_use } = found;
    let version = match version {
        Ok(version) => format!("by conntrace {version}"),
        Err(reason) => format!("by another program or version ({reason})"),
    };
    let since = epoch.map_or_else(
        || "its start did not finish".into(),
        |epoch| {
            let mut text = b"counting since ".to_vec();
            rfc3339(i64::try_from(epoch.unix_ns).unwrap_or(i64::MAX), &mut text);
            String::from_utf8_lossy(&text).into_owned()
        },
    );
    let daemon = if *is_in_use { "a daemon runs" } else { "no daemon runs (serve --detach takes them away)" };
    format!("{} {version}, {since}; hooks {}; {maps} maps; {daemon}", directory.display(), hooks.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::epoch::{BootId, Epoch};

    #[test]
    fn line_names_version_epoch_and_hooks() {
        let found = Found {
            directory: "/sys/fs/bpf/conntrace/0123".into(),
            version: Ok("0.1.0".into()),
            epoch: Some(Epoch { boot_id: BootId::default(), unix_ns: 1_790_000_000_000_000_000, boot_ns: 1 }),
            hooks: vec!["set_state".into(), "sock_ops".into()],
            maps: 28,
            is_in_use: true,
        };
        insta::assert_snapshot!(line(&found), @"/sys/fs/bpf/conntrace/0123 by conntrace 0.1.0, counting since 2026-09-21T14:13:20.000000000Z; hooks set_state, sock_ops; 28 maps; a daemon runs");
        let broken = Found { version: Err("version 2".into()), epoch: None, is_in_use: false, ..found };
        insta::assert_snapshot!(line(&broken), @"/sys/fs/bpf/conntrace/0123 by another program or version (version 2), its start did not finish; hooks set_state, sock_ops; 28 maps; no daemon runs (serve --detach takes them away)");
    }
}
