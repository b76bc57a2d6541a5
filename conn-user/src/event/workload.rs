//! Where a process runs: its container and its systemd units, as plain values.

/// The container and the units of a process. What is unknown or absent is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The outermost container.
    pub container: Option<Container>,
    /// The unit of the host's service manager: the journal's `_SYSTEMD_UNIT`.
    pub unit: Option<String>,
    /// The innermost slice above the unit: the journal's `_SYSTEMD_SLICE`.
    pub slice: Option<String>,
    /// The unit of a user's service manager: the journal's `_SYSTEMD_USER_UNIT`.
    pub user_unit: Option<String>,
    /// The innermost slice above the unit of the user: the journal's `_SYSTEMD_USER_SLICE`.
    pub user_slice: Option<String>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The id, or the name where the runtime has no ids.
    pub id: String,
    /// The user whose runtime made the container; `None` for the host's runtimes. The user chose id and names.
    pub user: Option<u32>,
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

/// The length of a container's id.
const ID_DIGITS: usize = 64;

impl Workload {
    /// True if nothing is known.
    pub const fn is_empty(&self) -> bool {
        self.container.is_none()
            && self.unit.is_none()
            && self.slice.is_none()
            && self.user_unit.is_none()
            && self.user_slice.is_none()
    }
}

impl Container {
    /// A container without known names. A name in place of the id is its name, too.
    pub fn new(id: String, user: Option<u32>) -> Self {
        let name = Some(id.clone()).filter(|id| !is_id(id));
        Self { id, user, names: ContainerNames { name, ..ContainerNames::default() } }
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
