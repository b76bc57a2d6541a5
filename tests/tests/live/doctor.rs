//! `conntrace doctor` on this host, and on what is left of it when something is hidden.

use conn_tests::{harness::Outcome, host::Host, needs_tracing, tracer::Setup};
use macro_rules_attribute::apply;
use serde_json::Value;

fn findings(setup: Setup) -> (i32, Value) {
    let ended = setup.run();
    let findings = serde_json::from_str(&ended.stdout.join("\n")).expect("one object");
    (ended.code.expect("an exit status"), findings)
}

#[apply(needs_tracing)]
fn selftest_sees_counts_and_owns_its_connection(_: &Host) -> Outcome {
    let (code, findings) = findings(Setup::new(["doctor", "-o", "json"]));
    let outcomes = findings["selftest"].as_array().expect("outcomes");
    assert!(outcomes.len() >= 6, "{findings}");
    assert!(outcomes.iter().all(|outcome| outcome["passed"] == true), "{findings}");
    assert_eq!(findings["error"], Value::Null);
    // Every supported kernel has this iterator.
    let udp = serde_json::json!({"name": "UDP sockets", "value": "yes"});
    assert!(findings["plan"].as_array().is_some_and(|plan| plan.contains(&udp)), "{findings}");
    assert_eq!(code == 0, findings["well"] == true, "{findings}");
    assert_eq!(code == 0, findings["degradations"] == serde_json::json!([]), "{findings}");
    Ok(())
}

#[apply(needs_tracing)]
fn missing_privileges_are_named(_: &Host) -> Outcome {
    let (code, findings) = findings(Setup::new(["doctor", "-o", "json"]).unprivileged());
    let error = findings["error"].as_str().expect("an error");
    assert!(error.contains("sudo") && error.contains("CAP_BPF"), "{error}");
    assert_eq!((code, &findings["well"]), (1, &Value::Bool(false)));
    Ok(())
}

#[apply(needs_tracing)]
fn findings_have_no_columns(_: &Host) -> Outcome {
    let ended = Setup::new(["doctor", "-o", "csv"]).run();
    assert!(ended.expect_code(2).contains("use table or json"));
    Ok(())
}
