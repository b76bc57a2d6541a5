//! Users and hosts of the host's name service, such as files, LDAP and DNS.
//!
//! getent(1) asks the name service. The released program is static, and a static program crashes in modules of the name
//! service with thread-local storage, such as `libnss_systemd.so` (glibc gives such storage to dynamic programs only).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The users of the host itself. Most users are there, and a process for each look-up would cost more.
const USERS: &str = "/etc/passwd";
/// The groups of the host itself.
const GROUPS: &str = "/etc/group";
/// The exit code of getent(1) for a key that the name service does not have.
const NO_SUCH_KEY: i32 = 2;

/// A user of the host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) group: u32,
    pub(crate) home: PathBuf,
}

/// The user with this login name, or with the user id that `key` writes. `None` if the host has no such user. Fails if
/// the name service cannot be asked.
pub(crate) fn user(key: &str) -> io::Result<Option<User>> {
    if let Some(user) = local_user(key) {
        return Ok(Some(user));
    }
    match ask(&["passwd"], key) {
        // A host without getent(1) has no other users.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        asked => Ok(find(&asked?, key)),
    }
}

/// The same for users of the host itself, without asking the name service.
pub(crate) fn local_user(key: &str) -> Option<User> {
    find(&fs::read_to_string(USERS).ok()?, key)
}

/// The id of a group. `None` if the host has no such group. Fails if the name service cannot be asked.
pub(crate) fn group(name: &str) -> io::Result<Option<u32>> {
    // The id follows the name and the password, group(5).
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    let find = |text: &str| text.lines().find_map(of_line);
    if let Some(group) = fs::read_to_string(GROUPS).ok().and_then(|text| find(&text)) {
        return Ok(Some(group));
    }
    match ask(&["group"], name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        asked => Ok(find(&asked?)),
    }
}

/// The addresses of a host name, each once. Empty if the host has none. Fails if the name service cannot be asked.
pub(crate) fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    // By default getent(1) leaves out IPv6 on a host without IPv6 addresses, though a namespace may have some. The
    // option is new in glibc 2.36.
    let found = ask(&["--no-addrconfig", "ahosts"], name).or_else(|_| ask(&["ahosts"], name))?;
    let mut addresses = Vec::new();
    for line in found.lines() {
        // A scope may follow the address, after a percent sign.
        let address = line.split([' ', '%']).next().unwrap_or_default();
        if let Ok(address) = address.parse::<IpAddr>().map(|address| address.to_canonical())
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// What getent(1) prints for a key of a database. Empty if the database has no such key.
fn ask(database: &[&str], key: &str) -> io::Result<String> {
    // No user and no host has such a name, and getent(1) would read an option.
    if key.starts_with('-') {
        return Ok(String::new());
    }
    let output = Command::new("getent").args(database).arg(key).stdin(Stdio::null()).output()?;
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(NO_SUCH_KEY) => Ok(String::new()),
        _ => {
            let (name, said) = (database.join(" "), String::from_utf8_lossy(&output.stderr));
            Err(io::Error::other(format!("`getent {name}` failed: {}: {}", output.status, said.trim())))
        }
    }
}

/// The user with this name or id in a table of passwd(5).
fn find(table: &str, key: &str) -> Option<User> {
    table.lines().find_map(|line| of_line(line, key))
}

/// The user of a line of `passwd(5)`, if the key is its name or its id.
fn of_line(line: &str, key: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let id = fields.nth(1)?;
    let group = fields.next()?;
    // The field between is the full name.
    let home = fields.nth(1)?;
    (key == name || key == id).then_some(())?;
    Some(User { id: id.parse().ok()?, group: group.parse().ok()?, home: home.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_user() {
        let line = "www-data:x:33:34:The web,,:/var/www:/usr/sbin/nologin";
        let user = || Some(User { id: 33, group: 34, home: "/var/www".into() });
        assert_eq!(of_line(line, "www-data"), user());
        assert_eq!(of_line(line, "33"), user());
        for key in ["34", "x", "www", "/var/www", ""] {
            assert_eq!(of_line(line, key), None, "{key}");
        }
        for broken in ["", "www-data", "www-data:x:33", "www-data:x:many:34::/var/www:", "+::::::"] {
            assert_eq!(of_line(broken, "www-data"), None, "{broken}");
        }
    }

    #[test]
    fn the_host_knows_root() {
        let root = user("root").unwrap();
        assert_eq!(root.as_ref().map(|root| root.id), Some(0));
        assert_eq!(user("0").unwrap(), root);
        assert_eq!(user("no-such-user").unwrap(), None);
        assert_eq!(user("-s").unwrap(), None);
        assert_eq!(user("4294967289").unwrap(), None);
        assert_eq!((group("root").unwrap(), group("no-such-group").unwrap()), (Some(0), None));
    }

    #[test]
    fn the_host_knows_itself() {
        let localhost = addresses("localhost").unwrap();
        assert!(localhost.iter().any(IpAddr::is_loopback), "{localhost:?}");
        assert_eq!(addresses("192.0.2.1").unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }
}
