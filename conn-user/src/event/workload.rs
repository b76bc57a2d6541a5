//! Where a process runs: its container and its systemd unit, as plain values.

/// The container and the unit of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The container; `None` outside of containers.
    pub container: Option<Container>,
    /// The systemd unit; `None` outside of units.
    pub unit: Option<String>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The id, or the name where the runtime has no ids.
    pub id: String,
    /// The names that the runtime gives it.
    pub names: ContainerNames,
}

/// The names of a container. An unknown name is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerNames {
    /// The container's own name; in a pod, its name there.
    pub name: Option<String>,
    /// The Kubernetes pod.
    pub pod: Option<String>,
    /// The namespace of the pod.
    pub namespace: Option<String>,
}

/// The fewest digits that select a container.
const MIN_DIGITS: usize = 4;
/// The length of a container's id.
const ID_DIGITS: usize = 64;

impl Workload {
    /// True if neither a container nor a unit is known.
    pub const fn is_empty(&self) -> bool {
        self.container.is_none() && self.unit.is_none()
    }
}

impl Container {
    /// A container without known names. A name in place of the id is its name, too.
    pub fn new(id: String) -> Self {
        let name = Some(id.clone()).filter(|id| !is_id(id));
        Self { id, names: ContainerNames { name, ..ContainerNames::default() } }
    }

    /// True if `wanted` is the id, the first digits of it, or the name.
    pub fn is(&self, wanted: &str) -> bool {
        self.id == wanted
            || self.names.name.as_deref() == Some(wanted)
            || (is_id(&self.id) && wanted.len() >= MIN_DIGITS && self.id.starts_with(wanted))
    }
}

impl ContainerNames {
    /// True if no name is known.
    pub const fn is_empty(&self) -> bool {
        self.name.is_none() && self.pod.is_none() && self.namespace.is_none()
    }
}

/// True for the id of a container: 64 hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
