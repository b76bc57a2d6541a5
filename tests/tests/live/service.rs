//! The daemon as a service of systemd.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    tracer::{Setup, binary},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::path::Path;

/// A journal of its own, with the daemon as its client. Prints what the journal has of it.
const JOURNAL: &str = r#"
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
/lib/systemd/systemd-journald >/dev/null 2>&1 &
journal=$!
await() {
    tries=600
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || exit 9
        sleep 0.1
    done
}
has() {
    journalctl -q --no-pager -D /run/log/journal "$@" | grep -q .
}
await test -S /run/systemd/journal/stdout
# As systemd does it.
systemd-cat sh -c 'export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec "$0" "$@"' \
    "$0" serve -v --transient --socket /run/conntrace.sock &
daemon=$!
await "$0" stats --total --daemon=/run/conntrace.sock
kill -KILL $(cat /proc/$daemon/task/$daemon/children)
await has --grep 'is started again'
await "$0" stats --total --daemon=/run/conntrace.sock
kill $daemon
wait $daemon || exit 8
await has CONNTRACE_PART=front
journalctl -q --no-pager -D /run/log/journal -o json CONNTRACE_PART=back + CONNTRACE_PART=front
kill $journal
"#;

#[apply(needs_tracing)]
fn the_journal_has_lines_with_fields(_: &Host) -> Outcome {
    for program in ["/lib/systemd/systemd-journald", "/usr/bin/systemd-cat", "/usr/bin/unshare"] {
        if !Path::new(program).exists() {
            return Err(Skip(format!("there is no {program}")));
        }
    }
    let arguments = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", JOURNAL];
    let setup = Setup::new(arguments).program("/usr/bin/unshare").arguments([binary().display()]);
    let ended = setup.run();
    ended.expect_code(0);
    let records: Vec<Value> = ended.stdout.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |part: &str, text: &str| {
        let is_meant = |record: &&Value| {
            record["CONNTRACE_PART"] == part
                && record["MESSAGE"].as_str().is_some_and(|said| said.contains(text))
        };
        records.iter().find(is_meant).unwrap_or_else(|| panic!("no {text}: {records:#?}"))
    };
    let warning = find("back", "is started again");
    for (field, value) in [("PRIORITY", "4"), ("SYSLOG_IDENTIFIER", "conntrace"), ("_TRANSPORT", "journal")] {
        assert_eq!(warning[field], value, "{warning:#}");
    }
    assert!(warning["CONNTRACE_EPOCH"].as_str().unwrap().contains("; boot_id="), "{warning:#}");
    assert!(warning["CONNTRACE_MODULE"].as_str().unwrap().starts_with("conntrace::serve"), "{warning:#}");
    let confined = find("front", "the front is confined");
    assert_eq!(confined["PRIORITY"], "7", "{confined:#}");
    assert_ne!(confined["_UID"], "0", "{confined:#}");
    Ok(())
}
