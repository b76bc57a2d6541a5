//! Names of ports, from `/etc/services`.

use std::collections::HashMap;
use std::fs;

/// The table of names, services(5).
const FILE: &str = "/etc/services";

/// Service names and their ports. The names are of TCP, but for those that only UDP has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    ports: HashMap<String, u16>,
    names: HashMap<u16, String>,
    udp_names: HashMap<u16, String>,
}

impl Services {
    /// Reads the host's table. Without a readable file, the table is empty: numbers still work.
    pub fn load() -> Self {
        fs::read(FILE).map(|text| Self::parse(&String::from_utf8_lossy(&text))).unwrap_or_default()
    }

    /// Parses a table: `name port/protocol alias… # comment`. Malformed lines are left out. The first entry of a name
    /// counts, as with getservbyname(3).
    pub fn parse(text: &str) -> Self {
        let mut services = Self::default();
        let mut of_udp = Vec::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some((number, protocol)) = port.split_once('/') else { continue };
            let Ok(number) = number.parse() else { continue };
            let names = std::iter::once(name).chain(words);
            match protocol {
                "tcp" => {
                    services.names.entry(number).or_insert_with(|| name.to_owned());
                    names.for_each(|name| {
                        services.ports.entry(name.to_owned()).or_insert(number);
                    });
                }
                "udp" => {
                    services.udp_names.entry(number).or_insert_with(|| name.to_owned());
                    of_udp.extend(names.map(|name| (name.to_owned(), number)));
                }
                _ => {}
            }
        }
        for (name, number) in of_udp {
            services.ports.entry(name).or_insert(number);
        }
        services
    }

    /// The port of a service or of one of its aliases.
    pub fn port(&self, name: &str) -> Option<u16> {
        self.ports.get(name).copied()
    }

    /// An empty table if `numeric`, else a copy.
    #[must_use]
    pub fn unless(&self, numeric: bool) -> Self {
        if numeric { Self::default() } else { self.clone() }
    }

    /// The same table with the names that ports have in UDP.
    #[must_use]
    pub(crate) fn of_udp(&self) -> Self {
        Self { names: self.udp_names.clone(), ..self.clone() }
    }

    /// The name of a port; of several the first, as with getservbyport(3).
    pub fn name(&self, port: u16) -> Option<&str> {
        self.names.get(&port).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_aliases() {
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
            [Some(22), Some(53), Some(53), Some(80), Some(80), Some(69), None, None]
        );
        assert_eq!(
            [22, 53, 80, 81, 69].map(|port| services.name(port)),
            [Some("ssh"), Some("domain"), Some("http"), Some("www"), None]
        );
        let of_udp = services.of_udp();
        assert_eq!([22, 53, 69].map(|port| of_udp.name(port)), [None, Some("domain"), Some("tftp")]);
    }
}
