//! Scopes of a user that look like those of the host's containers.

use super::{
    super::workload::cgroup_root,
    files::{User, id, metadata, trace},
};
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_whole_machine,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::fs;

/// The container of the host whose id the user takes.
const FRAMED: &str = "conn-payments";

/// A scope below the user's slice has the name that the host's docker gives to a container of its own.
#[apply(needs_whole_machine)]
fn a_users_scope_is_no_container_of_the_host(_: &Host) -> Outcome {
    let mut user = User::new()?;
    let lib = user.of_root("lib");
    let container = lib.join("docker/containers").join(id(0));
    fs::create_dir_all(&container).unwrap();
    fs::write(container.join("config.v2.json"), metadata(&id(0), FRAMED)).unwrap();
    let framing = user.scope(&id(0))?;
    let of_host = cgroup_root()?.join(format!("docker-{}.scope", id(0)));
    fs::create_dir(&of_host).map_err(|error| Skip(format!("cannot make {}: {error}", of_host.display())))?;
    user.cgroups.push(of_host.clone());
    let (ends, ended) = trace(&user, &[framing, of_host], Some(&lib))?;
    let names: Vec<&Value> = ends.iter().map(|end| &end["container_name"]).collect();
    println!("scope: the user's {} is {}, the host's is {}", ends[0]["container"], names[0], names[1]);
    assert_ne!(names[0], FRAMED, "{}", ends[0]);
    assert_eq!(names[1], FRAMED, "{}", ends[1]);
    ended.expect_code(0);
    Ok(())
}
