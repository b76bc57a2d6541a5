//! `conntrace doctor` on this host, and on what is left of it when something is hidden.

use conn_tests::{
    harness::{Live, Outcome},
    host::{Host, Need},
    live,
    tracer::Setup,
};
use serde_json::Value;

pub(crate) const TESTS: &[Live] = live!(Need::Tracing; doctor:
    its_connection_is_seen_counted_and_owned,
    without_privileges_it_says_what_is_missing,
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

fn findings_have_no_columns(_: &Host) -> Outcome {
    let ended = Setup::new(["doctor", "-o", "csv"]).run();
    assert!(ended.expect_code(2).contains("use table or json"));
    Ok(())
}
