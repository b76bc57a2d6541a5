//! Messages on hosts that lack something, made from this host by hiding it.

#![expect(unsafe_code, reason = "seccomp filters have no safe form, nor has code between fork and exec")]

use conn_tests::{
    harness::Outcome,
    host::Host,
    needs_tracing,
    port::Port,
    tracer::{self, Setup},
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use nix::libc;
use std::{io, os::unix::process::CommandExt as _, process::Command};

/// Lets bpf(2) fail with EPERM in this process, as the usual profile of containers does.
fn forbid_bpf() -> io::Result<()> {
    let filter = |code: u32, jump: (u8, u8), k: u32| libc::sock_filter {
        code: code as u16,
        jt: jump.0,
        jf: jump.1,
        k,
    };
    let mut filters = [
        // Offset 0 of struct seccomp_data is the number of the system call.
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), 0),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (0, 1), libc::SYS_bpf as u32),
        filter(libc::BPF_RET | libc::BPF_K, (0, 0), libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        filter(libc::BPF_RET | libc::BPF_K, (0, 0), libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filters.len() as u16, filter: filters.as_mut_ptr() };
    // SAFETY: two prctl calls with arguments that live until they return.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[apply(needs_tracing)]
fn a_refused_system_call_is_named(_: &Host) -> Outcome {
    let mut command = Command::new(tracer::binary());
    command.args(["-e", "NEW", "--timeout", "10s"]);
    // SAFETY: only system calls between fork and exec.
    let output = unsafe { command.pre_exec(forbid_bpf) }.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("the kernel refused") && message.contains("seccomp"), "{message}");
    assert!(output.stdout.is_empty() && !message.contains("panicked"), "{message}");
    Ok(())
}

/// Instructions of a program, as `-v` prints them.
fn instructions(stderr: &str, program: &str) -> u32 {
    let start = format!("program {program}: ");
    let line = stderr.lines().find_map(|line| line.split_once(&start)).map(|(_, rest)| rest);
    line.and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{program}: {stderr}"))
}

#[apply(needs_tracing)]
fn verifier_logs_are_shown_on_request_only(_: &Host) -> Outcome {
    let port = Port::claim();
    let run = |verbose: &str| {
        let tracer = Setup::new([verbose, "--dport", &port.to_string()]).start();
        close::orderly(port.v4(), 1, First::Client);
        tracer.stop().expect_code(0).to_owned()
    };
    let (quiet, loud) = (run("-v"), run("-vv"));
    for program in ["set_state", "sock_ops"] {
        let (without, with) = (instructions(&quiet, program), instructions(&loud, program));
        assert!(without < with, "{program}: {without} instructions without logging, {with} with");
    }
    assert!(!quiet.contains("set_state 7 -> 2"), "{quiet}");
    assert!(loud.contains("set_state 7 -> 2"), "{loud}");
    Ok(())
}
