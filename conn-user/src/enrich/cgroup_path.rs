//! What the path of a cgroup names: the container, and the systemd units and slices.
//!
//! A process can only make a cgroup in a directory that the process may write. So the owners of the directories above a
//! cgroup say who made it: the host's runtimes and service manager, or a user.

use crate::event::workload::{Container, Workload, is_id};

/// The words before the id in the name of a scope: of docker, podman (twice), containerd (twice) and CRI-O.
const PREFIXES: [&str; 6] = ["docker-", "libpod-payload-", "libpod-", "cri-containerd-", "nerdctl-", "crio-"];
/// The word before the name of a machine of systemd-nspawn in the name of a scope.
const MACHINE: &str = "machine-";
/// The directory of lxc whose children are containers, with their names.
const LXC: &str = "lxc";
/// Kinds of units that have processes.
const KINDS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
/// The kind of units that group others.
const SLICE: &str = ".slice";
/// The slice above all others.
const ROOT_SLICE: &str = "-.slice";
/// The longest name of a unit, bytes (`UNIT_NAME_MAX` of systemd, without the final zero).
const MAX_UNIT: usize = 255;

/// The maker of the cgroups in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    /// The host: its service manager and its container runtimes.
    Host,
    /// A user, by number.
    User(u32),
    /// Not known: several users may write the directory.
    Unknown,
}

/// The workload that the path of a cgroup names. The path begins below the root of the hierarchy. `maker_in` says who
/// makes the cgroups in a directory, by the same kind of path.
pub(super) fn workload(path: &str, maker_in: impl Fn(&str) -> Maker) -> Workload {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (mut maker, mut above) = (Maker::Host, String::new());
    let (mut found, mut made_by_host) = (None, 0);
    for (at, part) in parts.iter().enumerate() {
        // What is below a directory of a user is the user's.
        if maker == Maker::Host {
            maker = maker_in(&above);
        }
        made_by_host += usize::from(maker == Maker::Host);
        let parent = at.checked_sub(1).map(|above| parts[above]);
        if found.is_none()
            && let Some(id) = container(part, parent)
        {
            found = Some((id, maker));
        }
        above.push('/');
        above.push_str(part);
    }
    let container = found.and_then(|(id, maker)| match maker {
        Maker::Host => Some(Container::new(id, None)),
        Maker::User(user) => Some(Container::new(id, Some(user))),
        Maker::Unknown => None,
    });
    let (slice, unit, below) = units(&parts[..made_by_host]);
    let is_user_manager = unit.is_some_and(|unit| unit.starts_with("user@") && unit.ends_with(".service"));
    let (user_slice, user_unit) = if is_user_manager {
        let (slice, unit, _) = units(&parts[below..]);
        (slice, unit)
    } else {
        (None, None)
    };
    let owned = |name: Option<&str>| name.map(str::to_owned);
    Workload {
        container,
        unit: owned(unit),
        slice: owned(slice),
        user_unit: owned(user_unit),
        user_slice: owned(user_slice),
    }
}

/// The innermost of the leading slices, the unit in it, and how many parts both are, as systemd's `cg_path_get_unit()`.
fn units<'a>(parts: &[&'a str]) -> (Option<&'a str>, Option<&'a str>, usize) {
    let slices = parts.iter().take_while(|part| is_unit(name(part), &[SLICE])).count();
    let unit = parts.get(slices).map(|part| name(part)).filter(|name| is_unit(name, &KINDS));
    let slice = match slices.checked_sub(1) {
        Some(last) => Some(name(parts[last])),
        None => unit.map(|_| ROOT_SLICE),
    };
    (slice, unit, slices + usize::from(unit.is_some()))
}

/// The name behind the name of a directory. systemd writes `_` before names that are like files of the kernel
/// (`cg_escape()`).
fn name(part: &str) -> &str {
    part.strip_prefix('_').unwrap_or(part)
}

/// True for the name of a unit of these kinds, as systemd's `unit_name_is_valid()`.
fn is_unit(name: &str, kinds: &[&str]) -> bool {
    name.len() <= MAX_UNIT
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
        && kinds.iter().any(|kind| name.strip_suffix(kind).is_some_and(|rest| !rest.is_empty()))
}

/// The id of the container that a directory is, or its name where the runtime has no ids.
fn container(part: &str, parent: Option<&str>) -> Option<String> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if let Some(id) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).filter(|id| is_id(id)) {
        return Some(id.to_owned());
    }
    if let Some(machine) = name.strip_prefix(MACHINE).filter(|machine| name != part || is_id(machine)) {
        return Some(unescape(machine));
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(name.to_owned());
    }
    (is_id(name) || parent == Some(LXC)).then(|| name.to_owned())
}

/// The name of a machine behind the name of its scope: systemd writes `\x2d` for `-` there.
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.strip_prefix(b"x").and_then(|after| after.get(..2));
        let byte = digits
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const USER: &str = "/user.slice/user-1000.slice/user@1000.service";

    /// The workload of a path whose directories belong to the host, but for the manager of user 1000.
    fn found(path: &str) -> Workload {
        let maker = |above: &str| if above.starts_with(USER) { Maker::User(1_000) } else { Maker::Host };
        workload(&path.replace("ID", ID).replace("USER", USER), maker)
    }

    /// The container as people write it: the first twelve digits of an id, and the user.
    fn contained(path: &str) -> String {
        let Some(container) = found(path).container else { return "-".into() };
        let id = if is_id(&container.id) { &container.id[..12] } else { &container.id };
        container.user.map_or_else(|| id.to_owned(), |user| format!("{id}@{user}"))
    }

    #[test]
    fn paths_name_containers() {
        for (path, id) in [
            ("/system.slice/docker-ID.scope", "0123456789ab"),
            ("/docker/ID", "0123456789ab"),
            ("/machine.slice/libpod-ID.scope/container", "0123456789ab"),
            ("/system.slice/web.service/libpod-payload-ID", "0123456789ab"),
            ("/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope", "0123456789ab"),
            ("/kubepods/burstable/pod12/ID", "0123456789ab"),
            ("/kubepods.slice/crio-ID.scope", "0123456789ab"),
            ("/lxc.payload.web/system.slice/nginx.service", "web"),
            ("/lxc/web", "web"),
            (r"/machine.slice/machine-my\x2dbox.scope/payload", "my-box"),
            ("/system.slice/ssh.service", "-"),
            ("/", "-"),
            // The containers of a container are the container's own.
            ("/lxc/web/system.slice/docker-ID.scope", "web"),
            ("/system.slice/docker-ID.scope/docker/web/lxc/other", "0123456789ab"),
            // Below a user's service manager a container is the user's, whatever its name.
            ("USER/user.slice/libpod-ID.scope/container", "0123456789ab@1000"),
            ("USER/docker-ID.scope", "0123456789ab@1000"),
            ("USER/system.slice/docker-ID.scope", "0123456789ab@1000"),
            ("USER/app.slice/lxc/web", "web@1000"),
            ("/user.slice/user-1000.slice/session-1.scope", "-"),
        ] {
            assert_eq!(contained(path), id, "{path}");
        }
    }

    #[test]
    fn directories_that_several_users_write_name_no_container() {
        let shared = |above: &str| if above == "/shared" { Maker::Unknown } else { Maker::Host };
        assert_eq!(workload(&format!("/shared/docker-{ID}.scope"), shared).container, None);
        // The container was made before, by the host.
        let path = format!("/lxc.payload.web/docker-{ID}.scope");
        let group = |above: &str| if above == "/lxc.payload.web" { Maker::Unknown } else { Maker::Host };
        assert_eq!(workload(&path, group).container, Some(Container::new("web".into(), None)));
    }

    #[test]
    fn units_and_slices_have_the_names_of_systemd() {
        for (path, expected) in [
            ("/system.slice/ssh.service", ["system.slice", "ssh.service", "-", "-"]),
            (
                r"/system.slice/system-openvpn.slice/openvpn@site\x2da.service/sub",
                ["system-openvpn.slice", r"openvpn@site\x2da.service", "-", "-"],
            ),
            ("/init.scope", ["-.slice", "init.scope", "-", "-"]),
            ("/system.slice/_cpu.service", ["system.slice", "cpu.service", "-", "-"]),
            ("/user.slice/user-1000.slice", ["user-1000.slice", "-", "-", "-"]),
            ("/user.slice/user-1000.slice/session-3.scope", ["user-1000.slice", "session-3.scope", "-", "-"]),
            (
                "USER/app.slice/app-firefox.scope",
                ["user-1000.slice", "user@1000.service", "app.slice", "app-firefox.scope"],
            ),
            // A user's unit is no unit of the host.
            ("USER/nginx.service", ["user-1000.slice", "user@1000.service", "-.slice", "nginx.service"]),
            (
                "USER/system.slice/nginx.service",
                ["user-1000.slice", "user@1000.service", "system.slice", "nginx.service"],
            ),
            // Units of a container are not units of the host.
            ("/lxc.payload.web/system.slice/nginx.service", ["-", "-", "-", "-"]),
            (
                "/machine.slice/machine-web.scope/payload/nginx.service",
                ["machine.slice", "machine-web.scope", "-", "-"],
            ),
            ("/", ["-", "-", "-", "-"]),
            ("/system.slice/.service", ["system.slice", "-", "-", "-"]),
            ("/system.slice/a b.service", ["system.slice", "-", "-", "-"]),
        ] {
            let found = found(path);
            let names = [found.slice, found.unit, found.user_slice, found.user_unit];
            assert_eq!(names.map(|name| name.unwrap_or("-".into())), expected, "{path}");
        }
    }

    #[test]
    fn a_name_in_place_of_an_id_needs_no_look_up() {
        let names = |path| found(path).container.unwrap().names;
        assert_eq!(names("/lxc/web").name.as_deref(), Some("web"));
        assert!(names("/docker/ID").is_empty());
    }

    #[test]
    fn machine_names_are_unescaped() {
        assert_eq!(unescape(r"odd\xzz\x2.service"), r"odd\xzz\x2.service");
        assert_eq!(unescape(r"a\x2db\x5c"), r"a-b\");
    }
}
