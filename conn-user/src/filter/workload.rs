//! A filter of workloads: containers and systemd units. The kernel knows neither, so user space decides.

use crate::event::workload::Workload;

/// Containers and units. An empty list admits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadFilter {
    /// Ids of containers, the first digits of ids, or names.
    pub containers: Vec<String>,
    /// Names of systemd units, with or without `.service`.
    pub units: Vec<String>,
}

impl WorkloadFilter {
    /// True if every workload passes, an unknown one too.
    pub const fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.units.is_empty()
    }

    /// True if a workload passes. An unknown workload passes an empty filter only.
    pub fn matches(&self, workload: Option<&Workload>) -> bool {
        let container = || workload.and_then(|workload| workload.container.as_ref());
        let unit = || workload.and_then(|workload| workload.unit.as_ref());
        let is_container = |wanted: &String| container().is_some_and(|one| one.is(wanted));
        let is_unit = |wanted: &String| {
            unit().is_some_and(|one| one == wanted || one.strip_suffix(".service") == Some(wanted))
        };
        (self.containers.is_empty() || self.containers.iter().any(is_container))
            && (self.units.is_empty() || self.units.iter().any(is_unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::workload::Container;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn workloads_are_chosen_by_container_and_unit() {
        let of_container = |id: &str| Workload { container: Some(Container::new(id.into())), unit: None };
        let (mut docker, lxc) = (of_container(ID), of_container("web"));
        let nginx = Workload { container: None, unit: Some("nginx.service".into()) };
        let container = |id: &str| WorkloadFilter { containers: vec![id.into()], units: Vec::new() };
        let unit = |name: &str| WorkloadFilter { containers: Vec::new(), units: vec![name.into()] };
        assert!(WorkloadFilter::default().is_empty() && WorkloadFilter::default().matches(None));
        assert!(container("0123").matches(Some(&docker)) && container(ID).matches(Some(&docker)));
        assert!(!container("012").matches(Some(&docker)) && !container("0123").matches(Some(&nginx)));
        assert!(!container("web").matches(Some(&docker)) && container("web").matches(Some(&lxc)));
        docker.container.as_mut().unwrap().names.name = Some("web".into());
        assert!(container("web").matches(Some(&docker)) && !container("we").matches(Some(&docker)));
        assert!(unit("nginx").matches(Some(&nginx)) && unit("nginx.service").matches(Some(&nginx)));
        assert!(!unit("nginx").matches(None) && !unit("ngin").matches(Some(&nginx)));
    }
}
