//! Errors name their cause and the remedy, and the exit code separates usage errors (2) from the others (1).

use conn_tests::{harness::Outcome, host::Host, needs_nothing, tracer::Setup};
use macro_rules_attribute::apply;
use nix::unistd::Uid;

/// Exit 2, nothing on stdout, and `named` in the message.
fn is_wrong_usage(arguments: &[&str], named: &str) {
    let ended = Setup::new(arguments).run();
    assert!(ended.expect_code(2).contains(named), "{arguments:?} must name {named:?}: {ended:#?}");
    assert!(ended.stdout.is_empty(), "{ended:#?}");
}

#[apply(needs_nothing)]
fn an_unknown_option_is_named(_: &Host) -> Outcome {
    is_wrong_usage(&["--no-such-option"], "--no-such-option");
    is_wrong_usage(&["no-such-command"], "no-such-command");
    Ok(())
}

#[apply(needs_nothing)]
fn a_port_out_of_range_is_named(_: &Host) -> Outcome {
    for (option, value) in
        [("--dport", "65536"), ("--sport", "70000"), ("--dport", "22,99999"), ("--dport", "1-65536")]
    {
        is_wrong_usage(&[option, value], value.rsplit([',', '-']).next().unwrap());
    }
    is_wrong_usage(&["--dport", "90-80"], "90-80");
    Ok(())
}

#[apply(needs_nothing)]
fn an_unknown_service_is_named(_: &Host) -> Outcome {
    is_wrong_usage(&["--dport", "no-such-service"], "no-such-service");
    Ok(())
}

#[apply(needs_nothing)]
fn an_unknown_kind_is_named(_: &Host) -> Outcome {
    is_wrong_usage(&["-e", "NEWER"], "NEWER");
    is_wrong_usage(&["-e", "NEW,BOGUS"], "BOGUS");
    Ok(())
}

#[apply(needs_nothing)]
fn other_bad_values_are_named(_: &Host) -> Outcome {
    for (option, value) in [
        ("--direction", "sideways"),
        ("-f", "ipx"),
        ("-o", "no-such-format"),
        ("--count", "many"),
        ("--timeout", "soon"),
        ("-p", "no-such-protocol"),
    ] {
        is_wrong_usage(&[option, value], value);
    }
    Ok(())
}

#[apply(needs_nothing)]
fn a_wrong_filter_is_marked(_: &Host) -> Outcome {
    for command in ["events", "count", "stats"] {
        let ended = Setup::new([command, "dport = :ssh or", "dport = :no-such-service"]).run();
        let message = ended.expect_code(2);
        assert!(message.contains("unknown service \"no-such-service\""), "{message}");
        let lines: Vec<&str> = message.lines().collect();
        let [text, carets] = [1, 2].map(|n: usize| lines[n]);
        assert_eq!(text.find(":no-such-service"), carets.find('^'), "{message}");
        assert_eq!(carets.trim().len(), ":no-such-service".len(), "{message}");
    }
    is_wrong_usage(&["dport = 22", "and", "mark", "=", "5"], "mark");
    is_wrong_usage(&["stats", "pid = 5"], "pid");
    is_wrong_usage(&["-s", "localhost"], "localhost");
    is_wrong_usage(&["events", "192.0.2.1"], "src, dst, client or server");
    is_wrong_usage(&["--netns", "no-such-namespace"], "no-such-namespace");
    Ok(())
}

#[apply(needs_nothing)]
fn options_of_conntrack_without_a_meaning_are_named(_: &Host) -> Outcome {
    for (words, instead) in [
        (["-m", "5"].as_slice(), "--dport"),
        (&["-z"], "--interval"),
        (&["--src-nat"], "--src"),
        (&["-n", "192.0.2.1"], "--src-nat"),
        (&["-E", "-u", "ASSURED"], "--state"),
        (&["-E", "-t", "120"], "--timeout"),
        (&["-w", "3"], "--netns"),
        (&["-D"], "ss -K"),
        (&["-C", "expect"], "connections only"),
    ] {
        is_wrong_usage(words, instead);
    }
    Ok(())
}

#[apply(needs_nothing)]
fn options_of_other_tools_get_the_right_form(_: &Host) -> Outcome {
    for (words, instead) in [
        (["-t"].as_slice(), "ss -t is here: conntrace list -o table"),
        (&["-a"], "--state all"),
        (&["-4"], "-f ipv4"),
        (&["-l"], "conntrace list --listening"),
        (&["-tulpn"], "ss -tulpn is here: conntrace list --listening -n"),
        (&["-s"], "conntrace count --by state"),
        (&["-p", "181"], "conntrace life --pid 181"),
        (&["-D", "80"], "conntrace life --direction out --dport 80"),
        (&["-L", "80"], "conntrace life --direction in --dport 80"),
        (&["-P", "80"], "conntrace -e NEW --direction out --dport 80"),
    ] {
        is_wrong_usage(words, instead);
    }
    Ok(())
}

#[apply(needs_nothing)]
fn wrong_options_of_the_environment_are_named(_: &Host) -> Outcome {
    for (options, named) in [("--no-such", "--no-such"), ("dport = 22", "options only"), ("'", "quote")] {
        let ended = Setup::new(["count"]).variable("CONNTRACE_OPTS", options).run();
        let message = ended.expect_code(2);
        assert!(message.contains("CONNTRACE_OPTS") && message.contains(named), "{message}");
    }
    Ok(())
}

#[apply(needs_nothing)]
fn help_and_version_succeed(_: &Host) -> Outcome {
    let help = Setup::new(["--help"]).run();
    assert_eq!(help.expect_code(0), "");
    assert!(!help.stdout.is_empty());
    let version = Setup::new(["--version"]).run();
    version.expect_code(0);
    assert_eq!(version.stdout, [format!("conntrace {}", env!("CARGO_PKG_VERSION"))]);
    Ok(())
}

#[apply(needs_nothing)]
fn missing_privileges_are_named(_: &Host) -> Outcome {
    let arguments = ["-e", "NEW", "--timeout", "10s"];
    let setup = Setup::new(arguments);
    let ended = if Uid::effective().is_root() { setup.unprivileged() } else { setup }.run();
    let message = ended.expect_code(1);
    assert!(message.contains("root") && message.contains("sudo"), "no remedy: {message}");
    assert!(!message.contains("panicked") && ended.stdout.is_empty(), "{ended:#?}");
    Ok(())
}
