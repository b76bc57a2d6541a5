//! `conntrace doctor` on this host, and on what is left of it when something is hidden.

use conn_tests::{
    harness::{Live, Outcome, tool},
    host::{Host, Need},
    live,
    tracer::{self, Setup},
};
use serde_json::Value;

pub(crate) const TESTS: &[Live] = live!(Need::Tracing; doctor:
    its_connection_is_seen_counted_and_owned,
    without_privileges_it_says_what_is_missing,
    a_missing_hierarchy_is_a_degradation_with_a_remedy,
    findings_have_no_columns,
);

fn findings(setup: Setup) -> (i32, Value) {
    let ended = setup.run();
    let findings = serde_json::from_str(&ended.stdout.join("\n")).expect("one object");
    (ended.code.expect("an exit status"), findings)
}

fn its_connection_is_seen_counted_and_owned(_: &Host) -> Outcome {
    let (code, findings) = findings(Setup::new(["doctor", "-o", "json"]));
    let outcomes = findings["selftest"].as_array().expect("outcomes");
    assert!(outcomes.len() >= 6, "{findings}");
    assert!(outcomes.iter().all(|outcome| outcome["passed"] == true), "{findings}");
    assert_eq!(findings["error"], Value::Null);
    assert_eq!(code == 0, findings["well"] == true, "{findings}");
    assert_eq!(code == 0, findings["degradations"] == serde_json::json!([]), "{findings}");
    Ok(())
}

fn without_privileges_it_says_what_is_missing(_: &Host) -> Outcome {
    let (code, findings) = findings(Setup::new(["doctor", "-o", "json"]).nobody());
    let error = findings["error"].as_str().expect("an error");
    assert!(error.contains("sudo") && error.contains("CAP_BPF"), "{error}");
    assert_eq!((code, &findings["well"]), (1, &Value::Bool(false)));
    Ok(())
}

/// The hierarchy is unmounted in a mount namespace of conntrace's own.
fn a_missing_hierarchy_is_a_degradation_with_a_remedy(_: &Host) -> Outcome {
    let script = "awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts | xargs -r umount -l && exec \"$0\" doctor -o json";
    let program = tracer::binary().display().to_string();
    let (code, findings) =
        findings(Setup::new(["--mount", "sh", "-c", script, &program]).program(tool("/usr/bin/unshare")?));
    let degradations = findings["degradations"].as_array().expect("degradations");
    let one =
        degradations.iter().find(|one| one["fact"].as_str().is_some_and(|fact| fact.contains("cgroup v2")));
    assert!(one.expect("no cgroup")["remedy"].as_str().expect("a remedy").contains("mount"), "{findings}");
    assert!(
        findings["selftest"].as_array().expect("outcomes").iter().all(|outcome| outcome["passed"] == true),
        "{findings}"
    );
    assert_eq!(code, 1);
    Ok(())
}

fn findings_have_no_columns(_: &Host) -> Outcome {
    let ended = Setup::new(["doctor", "-o", "csv"]).run();
    assert!(ended.expect_code(2).contains("use table or json"));
    Ok(())
}
