//! Names of TCP ports, from `/etc/services`.

use std::collections::HashMap;
use std::fs;

/// Where the names stand, services(5).
const FILE: &str = "/etc/services";

/// Service names and their TCP ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    ports: HashMap<String, u16>,
}

impl Services {
    /// Reads the host's table. A file that is missing or unreadable has no names: numbers still work.
    pub fn load() -> Self {
        fs::read(FILE).map(|text| Self::parse(&String::from_utf8_lossy(&text))).unwrap_or_default()
    }

    /// Parses a table: `name port/protocol alias… # comment`. Lines that are none are left out, the
    /// first entry of a name counts, as with getservbyname(3).
    pub fn parse(text: &str) -> Self {
        let mut ports = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some((number, "tcp")) = port.split_once('/') else { continue };
            let Ok(number) = number.parse() else { continue };
            for name in std::iter::once(name).chain(words) {
                ports.entry(name.to_owned()).or_insert(number);
            }
        }
        Self { ports }
    }

    /// The port of a service or of one of its aliases.
    pub fn port(&self, name: &str) -> Option<u16> {
        self.ports.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_aliases_of_tcp() {
        let services = Services::parse(
            "# comment\n\
             ssh\t\t22/tcp\t\t\t# SSH Remote Login\n\
             domain 53/udp\n\
             domain 53/tcp nameserver\n\
             http   80/tcp   www   # WorldWideWeb\n\
             www    81/tcp\n\
             tftp   69/udp\n\
             broken\nbroken 99\nbroken x/tcp\nbroken 70000/tcp\n\n",
        );
        let ports = ["ssh", "domain", "nameserver", "http", "www", "tftp", "broken", "SSH"];
        assert_eq!(
            ports.map(|name| services.port(name)),
            [Some(22), Some(53), Some(53), Some(80), Some(80), None, None, None]
        );
    }
}
