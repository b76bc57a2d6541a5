//! Names of containers, from the files of their runtimes.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::enrich::runtime_files::RuntimeFiles;
use crate::event::workload::ContainerNames as Names;
use crate::host::name_service;

/// The directories of docker's data: root's below `/`, another user's below the user's home. Then those of podman and
/// CRI-O.
const DOCKER: [&str; 2] = ["var/lib/docker", ".local/share/docker"];
const STORAGE: [&str; 2] = ["var/lib/containers/storage", ".local/share/containers/storage"];
/// The directories of containerd's running bundles, with a subdirectory for each namespace of containerd.
const CONTAINERD: [&str; 2] =
    ["run/containerd/io.containerd.runtime.v2.task", "run/k3s/containerd/io.containerd.runtime.v2.task"];
/// The lists of podman's containers, those made with `--rm` apart.
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// The keys of names among the annotations of a bundle, or docker's labels: container, pod, and the pod's namespace.
/// A row each for containerd, CRI-O (and cri-dockerd), and nerdctl.
const KEYS: [[&str; 3]; 3] = [
    [
        "io.kubernetes.cri.container-name",
        "io.kubernetes.cri.sandbox-name",
        "io.kubernetes.cri.sandbox-namespace",
    ],
    ["io.kubernetes.container.name", "io.kubernetes.pod.name", "io.kubernetes.pod.namespace"],
    ["nerdctl/name", "", ""],
];

/// The longest name, bytes: twice that of a Kubernetes object. A longer one counts as none.
const MAX_NAME: usize = 256;

/// docker's `config.v2.json`.
#[derive(Deserialize)]
struct Docker {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Config")]
    config: Option<DockerConfig>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "Labels")]
    labels: Option<HashMap<String, String>>,
}

/// A bundle's `config.json` (OCI runtime specification).
#[derive(Deserialize)]
struct Bundle {
    annotations: Option<HashMap<String, String>>,
}

/// A container in the lists of podman.
#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

/// The names of the container with this id. The host's containers are named by files below `root`, a user's containers
/// by files below the home of that user only. Empty if no file names the container.
pub(crate) fn names(root: &Path, id: &str, user: Option<u32>) -> Names {
    if id.contains('/') || id.starts_with('.') {
        return Names::default();
    }
    match user {
        None => RuntimeFiles::of_system(root).map(|files| {
            let [docker, storage] = [DOCKER[0], STORAGE[0]].map(Path::new);
            of_docker(&files, docker, id)
                .or_else(|| CONTAINERD.iter().find_map(|directory| of_containerd(&files, directory, id)))
                .or_else(|| of_storage(&files, storage, id))
        }),
        Some(user) => home(root, user).map(|files| {
            let [docker, storage] = [DOCKER[1], STORAGE[1]].map(Path::new);
            let names = of_docker(&files, docker, id).or_else(|| of_storage(&files, storage, id));
            // Pods belong to the host's kubelet; a user can write any annotation.
            names.map(|names| Names { name: names.name, ..Names::default() })
        }),
    }
    .flatten()
    .unwrap_or_default()
}

/// The files below the home of a user.
fn home(root: &Path, user: u32) -> Option<RuntimeFiles> {
    let user = name_service::user(&user.to_string()).ok().flatten()?;
    let home = root.join(user.home.strip_prefix("/").unwrap_or(&user.home));
    RuntimeFiles::of_user(&home, user.id)
}

fn of_docker(files: &RuntimeFiles, directory: &Path, id: &str) -> Option<Names> {
    let file: Docker = read(files, &directory.join("containers").join(id).join("config.v2.json"))?;
    let labels = file.config.and_then(|config| config.labels);
    Some(labels.and_then(|labels| annotated(&labels)).unwrap_or_else(|| {
        let name = file.name.strip_prefix('/').unwrap_or(&file.name);
        Names { name: name_of(name), ..Names::default() }
    }))
}

fn of_containerd(files: &RuntimeFiles, directory: &str, id: &str) -> Option<Names> {
    let namespaces = fs::read_dir(files.path().join(directory)).ok()?;
    namespaces
        .flatten()
        .find_map(|namespace| of_bundle(files, &Path::new(directory).join(namespace.file_name()).join(id)))
}

/// CRI-O's containers have names in their bundle, podman's in lists.
fn of_storage(files: &RuntimeFiles, directory: &Path, id: &str) -> Option<Names> {
    let directory = directory.join("overlay-containers");
    let listed = |list: &&'static str| {
        let all: Vec<Listed> = read(files, &directory.join(list))?;
        let name = all.into_iter().find(|one| one.id == id)?.names.into_iter().next()?;
        Some(Names { name: name_of(&name), ..Names::default() })
    };
    of_bundle(files, &directory.join(id).join("userdata")).or_else(|| LISTS.iter().find_map(listed))
}

fn of_bundle(files: &RuntimeFiles, directory: &Path) -> Option<Names> {
    annotated(&read::<Bundle>(files, &directory.join("config.json"))?.annotations?)
}

fn annotated(annotations: &HashMap<String, String>) -> Option<Names> {
    let value = |key: &str| annotations.get(key).and_then(|value| name_of(value));
    KEYS.iter().find_map(|[name, pod, namespace]| {
        let names = Names { name: value(name), pod: value(pod), namespace: value(namespace) };
        (names != Names::default()).then_some(names)
    })
}

/// A name, unless it is empty or longer than [`MAX_NAME`].
fn name_of(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= MAX_NAME).then(|| text.to_owned())
}

fn read<T: DeserializeOwned>(files: &RuntimeFiles, below: &Path) -> Option<T> {
    serde_json::from_slice(&files.read(below)?).ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// The root of a file system, as far as runtimes have files there.
    struct Root(PathBuf);

    impl Root {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("conntrace-runtime-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn path(&self, path: &str) -> PathBuf {
            let path = self.0.join(path.trim_start_matches('/').replace("ID", ID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        fn with(self, path: &str, text: &str) -> Self {
            fs::write(self.path(path), text.replace("ID", ID)).unwrap();
            self
        }

        fn names(&self, user: Option<u32>) -> [Option<String>; 3] {
            let Names { name, pod, namespace } = names(&self.0, ID, user);
            [name, pod, namespace]
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn text(names: [&str; 3]) -> [Option<String>; 3] {
        names.map(|name| Some(name.to_owned()).filter(|name| !name.is_empty()))
    }

    /// The user of this process, and its home.
    fn own() -> (u32, String) {
        let user = name_service::user(&nix::unistd::getuid().to_string()).unwrap().unwrap();
        (user.id, user.home.to_str().unwrap().to_owned())
    }

    const DOCKERS: &str = "var/lib/docker/containers/ID/config.v2.json";

    #[test]
    fn docker() {
        let root = Root::new()
            .with(DOCKERS, r#"{"ID":"ID","State":{"Pid":7},"Name":"/web","Config":{"Labels":{"a":"b"}}}"#);
        assert_eq!(root.names(None), text(["web", "", ""]));
        let kubernetes = r#"{"Name":"/k8s_app_web-1_prod_12_0","Config":{"Labels":{
            "io.kubernetes.container.name":"app","io.kubernetes.pod.name":"web-1","io.kubernetes.pod.namespace":"prod"}}}"#;
        assert_eq!(Root::new().with(DOCKERS, kubernetes).names(None), text(["app", "web-1", "prod"]));
        assert_eq!(
            Root::new().with(DOCKERS, r#"{"Name":"","Config":{"Labels":null}}"#).names(None),
            text([""; 3])
        );
    }

    #[test]
    fn containerd() {
        let bundle = "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json";
        let kubernetes = r#"{"ociVersion":"1.1.0","annotations":{"io.kubernetes.cri.container-type":"container",
            "io.kubernetes.cri.container-name":"app","io.kubernetes.cri.sandbox-name":"web-1",
            "io.kubernetes.cri.sandbox-namespace":"prod","nerdctl/network-namespace":"/run/netns/x"}}"#;
        assert_eq!(Root::new().with(bundle, kubernetes).names(None), text(["app", "web-1", "prod"]));
        // The sandbox, which holds the pod's namespaces, has no container name.
        let sandbox = r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox",
            "io.kubernetes.cri.sandbox-name":"web-1","io.kubernetes.cri.sandbox-namespace":"prod"}}"#;
        assert_eq!(Root::new().with(bundle, sandbox).names(None), text(["", "web-1", "prod"]));
        let nerdctl = r#"{"annotations":{"nerdctl/name":"web","nerdctl/namespace":"default"}}"#;
        let bundle = "run/k3s/containerd/io.containerd.runtime.v2.task/default/ID/config.json";
        assert_eq!(Root::new().with(bundle, nerdctl).names(None), text(["web", "", ""]));
    }

    #[test]
    fn cri_o_and_podman() {
        let storage = "var/lib/containers/storage/overlay-containers";
        let list = r#"[{"id":"0","names":["other"]},{"id":"ID","names":["k8s_app"],"image":"x"}]"#;
        let annotations = r#"{"annotations":{"io.container.manager":"cri-o","io.kubernetes.container.name":"app",
            "io.kubernetes.pod.name":"web-1","io.kubernetes.pod.namespace":"prod"}}"#;
        let root = Root::new().with(&format!("{storage}/containers.json"), list);
        assert_eq!(root.names(None), text(["k8s_app", "", ""]));
        let root = root.with(&format!("{storage}/ID/userdata/config.json"), annotations);
        assert_eq!(root.names(None), text(["app", "web-1", "prod"]));
        let podman = r#"{"annotations":{"io.container.manager":"libpod"}}"#;
        let root = Root::new()
            .with(&format!("{storage}/ID/userdata/config.json"), podman)
            .with(&format!("{storage}/containers.json"), r#"[{"id":"0"}]"#)
            .with(&format!("{storage}/volatile-containers.json"), r#"[{"id":"ID","names":["brief"]}]"#);
        assert_eq!(root.names(None), text(["brief", "", ""]));
    }

    #[test]
    fn names_of_a_users_containers_come_from_the_home() {
        let (user, home) = own();
        let list = format!("{home}/.local/share/containers/storage/overlay-containers/containers.json");
        let root = Root::new().with(&list, r#"[{"id":"ID","names":["mine"]}]"#);
        assert_eq!(root.names(Some(user)), text(["mine", "", ""]));
        assert_eq!(root.names(None), text([""; 3]));
        assert_eq!(root.names(Some(u32::MAX - 7)), text([""; 3]));
    }

    #[test]
    fn a_user_claims_neither_a_container_of_the_host_nor_a_pod() {
        let (user, home) = own();
        let uid = Some(user);
        // The host's runtime knows the id, the user's does not.
        let root = Root::new().with(DOCKERS, r#"{"Name":"/web"}"#);
        assert_eq!((root.names(None), root.names(uid)), (text(["web", "", ""]), text([""; 3])));
        let bundle =
            format!("{home}/.local/share/containers/storage/overlay-containers/ID/userdata/config.json");
        let annotations = r#"{"annotations":{"io.kubernetes.container.name":"app",
            "io.kubernetes.pod.name":"db-1","io.kubernetes.pod.namespace":"prod"}}"#;
        assert_eq!(Root::new().with(&bundle, annotations).names(uid), text(["app", "", ""]));
    }

    #[test]
    fn long_names_and_odd_ids_yield_no_name() {
        let named = |name: &str| Root::new().with(DOCKERS, &format!("{{\"Name\":\"/{name}\"}}")).names(None);
        assert_eq!(named(&"a".repeat(256))[0].as_ref().map(String::len), Some(256));
        assert_eq!(named(&"a".repeat(257)), text([""; 3]));
        let root = Root::new().with(DOCKERS, r#"{"Name":"/web"}"#);
        for id in [".", "..", "../containers/ID", "a/../ID"] {
            assert_eq!(names(&root.0, &id.replace("ID", ID), None), Names::default(), "{id}");
        }
    }

    #[test]
    fn unreadable_metadata_yields_no_name() {
        assert_eq!(Root::new().names(Some(0)), text([""; 3]));
        assert_eq!(Root::new().with(DOCKERS, "{\"Name\":").names(None), text([""; 3]));
        assert_eq!(Root::new().with(DOCKERS, "[7]").names(None), text([""; 3]));
        let root = Root::new();
        mkfifo(&root.path(DOCKERS), Mode::S_IRWXU).unwrap();
        assert_eq!(root.names(None), text([""; 3]));
    }
}
