//! The handle against shell scripts in the place of conntrace.

use super::*;

/// A shell script in the place of conntrace.
fn script(text: &str) -> Setup {
    Setup::new(["-c", text]).program("/bin/sh")
}

const READY: &str = "echo >/proc/self/fd/$CONNTRACE_READY_FD; ";

#[test]
fn lines_are_awaited_wherever_they_stand() {
    let tracer = script(&format!("{READY} echo one; echo two; echo oops >&2; read x <&2")).start();
    assert_eq!(tracer.await_stdout("two", |line| line == "two"), "two");
    assert_eq!(tracer.await_stdout("one, seen before", |line| line == "one"), "one");
    assert_eq!(tracer.await_stderr("oops", |line| line.contains("oops")), "oops");
}

#[test]
fn an_end_before_readiness_is_noticed_at_once() {
    let start = Instant::now();
    let outcome = std::panic::catch_unwind(|| script("echo broken >&2; exit 1").start());
    assert!(outcome.is_err());
    assert!(start.elapsed() < *START);
}

#[test]
fn an_end_without_the_line_is_noticed_at_once() {
    let tracer = script(&format!("{READY} echo one")).start();
    let wait = || tracer.await_stdout("two", |line| line == "two");
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(wait)).is_err());
    assert_eq!(tracer.await_end().expect_code(0), "");
}

#[test]
fn signals_and_codes_are_reported() {
    let tracer =
        script(&format!("trap 'echo bye >&2; exit 3' INT; {READY} while :; do read x; done")).start();
    let ended = tracer.stop();
    assert_eq!(ended.expect_code(3), "bye\n");
    let killed = script("kill -9 $$").run();
    assert_eq!((killed.code, killed.signal), (None, Some(libc::SIGKILL)));
}

#[test]
fn the_reading_end_closes_after_so_many_lines() {
    let tracer = script("trap '' PIPE; echo 1; read x; while echo more 2>/dev/null; do :; done; exit 7")
        .head(1)
        .spawn();
    tracer.await_hang_up();
    assert_eq!(tracer.await_end().stdout, ["1"]);
}

#[test]
fn events_are_parsed() {
    let line = "    [NEW] tcp      6 SYN_SENT src=::1 dst=::1 sport=4 dport=2 [UNREPLIED] src=::1 dst=::1 sport=2 dport=4 dir=out";
    let tracer = script(&format!("{READY} echo '{line}'")).start();
    let tuple = crate::truth::Tuple::new("[::1]:4".parse().unwrap(), "[::1]:2".parse().unwrap());
    assert!(tracer.await_flow(Kind::New, "out", tuple).unreplied);
    let broken = script(&format!("{READY} echo nonsense")).start();
    let wait = || broken.await_event("anything", |_| true);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(wait)).is_err());
}
