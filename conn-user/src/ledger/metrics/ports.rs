//! Which ports have series of their own. A remote address is never a label, and a user cannot make series without bound.

use std::collections::BTreeSet;

use conn_common::connection::IN;

/// How many ports have series of their own.
const MOST: usize = 256;

/// The label of all other ports together.
pub(crate) const OTHER: &str = "other";

/// The ports that have series of their own, in the order in which they were seen: a port keeps its series, and the sum of the
/// others never falls.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamedPorts {
    /// All ports of a report, those of outgoing connections included: the command line chose them.
    chosen: bool,
    /// Ranges that have series in both directions in any case.
    configured: Vec<(u16, u16)>,
    named: BTreeSet<(u8, u16)>,
    folded: BTreeSet<(u8, u16)>,
}

impl NamedPorts {
    /// `chosen`: the command line names the ports. Else ports of incoming connections have series, and those of outgoing
    /// connections, which remote hosts choose, do not.
    pub(crate) fn new(chosen: bool) -> Self {
        Self { chosen, ..Self::default() }
    }

    /// These ranges have series of their own, too, in both directions.
    #[must_use]
    pub(crate) fn with(self, configured: Vec<(u16, u16)>) -> Self {
        Self { configured, ..self }
    }

    /// The label of a direction and service port.
    pub(crate) fn label(&mut self, direction: u8, port: u16) -> String {
        let key = (direction, port);
        if self.configured.iter().any(|&(low, high)| (low..=high).contains(&port)) {
            return port.to_string();
        }
        let may = (self.chosen || direction == IN) && !self.folded.contains(&key);
        if self.named.contains(&key) || may && self.named.len() < MOST && self.named.insert(key) {
            port.to_string()
        } else {
            self.folded.insert(key);
            OTHER.into()
        }
    }

    /// How many ports have no series of their own.
    pub(crate) fn folded(&self) -> usize {
        self.folded.len()
    }
}

#[cfg(test)]
mod tests {
    use conn_common::connection::OUT;

    use super::*;

    #[test]
    fn incoming_ports_have_series_up_to_a_bound() {
        let mut ports = NamedPorts::new(false);
        let labels: BTreeSet<String> = (1..=1_000).map(|port| ports.label(IN, port)).collect();
        assert_eq!((labels.len(), ports.folded()), (MOST + 1, 1_000 - MOST));
        // A port keeps its label.
        assert_eq!((ports.label(IN, 1), ports.label(IN, 999)), ("1".into(), OTHER.into()));
        assert_eq!(ports.label(OUT, 443), OTHER);
    }

    #[test]
    fn configured_ports_have_series_beside_the_bound() {
        let mut ports = NamedPorts::new(false).with(vec![(443, 443), (8000, 8100)]);
        for port in 1..=400 {
            ports.label(IN, port);
        }
        assert_eq!((ports.label(OUT, 443), ports.label(IN, 8100)), ("443".into(), "8100".into()));
        assert_eq!((ports.label(OUT, 444), ports.label(IN, 8101)), (OTHER.into(), OTHER.into()));
    }

    #[test]
    fn chosen_ports_have_series_in_both_directions() {
        let mut ports = NamedPorts::new(true);
        assert_eq!((ports.label(OUT, 443), ports.label(IN, 443)), ("443".into(), "443".into()));
        assert_eq!(ports.folded(), 0);
    }
}
