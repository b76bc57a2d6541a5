//! What the kernel lets this process load, probed with the smallest program or map of each kind. Only the doctor
//! probes: a run loads its own programs, and the kernel's answer to those is more exact.

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};

/// A line for people: what is allowed, then what is not, with the reason.
pub(crate) fn describe() -> String {
    let text =
        |error: &dyn std::error::Error| error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let program = |kind| is_program_supported(kind).map_err(|error| text(&error));
    let map = |kind| is_map_supported(kind).map_err(|error| error.io_error.to_string());
    let helper = is_helper_supported(ProgramType::SockOps, BpfHelper::BPF_FUNC_sk_storage_get);
    list(&[
        ("tracepoints", program(ProgramType::TracePoint)),
        ("socket operations", program(ProgramType::SockOps)),
        ("their storage", helper.map_err(|error| text(&error))),
        ("socket storage", map(MapType::SkStorage)),
        ("ring buffer", map(MapType::RingBuf)),
        ("trampolines", program(ProgramType::Tracing)),
    ])
}

fn list(asked: &[(&str, Result<bool, String>)]) -> String {
    let named = |wanted: bool| {
        let found = asked.iter().filter_map(move |(name, answer)| match answer {
            Ok(true) => wanted.then(|| (*name).to_owned()),
            Ok(false) => (!wanted).then(|| (*name).to_owned()),
            Err(reason) => (!wanted).then(|| format!("{name} ({reason})")),
        });
        found.collect::<Vec<_>>().join(", ")
    };
    match (named(true), named(false)) {
        (all, none) if none.is_empty() => all,
        (all, none) if all.is_empty() => format!("not: {none}"),
        (some, others) => format!("{some}; not: {others}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_kind_has_a_reason() {
        let (yes, no, error) = (("a", Ok(true)), ("b", Ok(false)), ("c", Err("EPERM".to_owned())));
        assert_eq!(list(&[yes.clone(), ("d", Ok(true))]), "a, d");
        assert_eq!(list(&[yes, no.clone(), error.clone()]), "a; not: b, c (EPERM)");
        assert_eq!(list(&[no, error]), "not: b, c (EPERM)");
    }
}
