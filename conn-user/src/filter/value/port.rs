//! The syntax of ports: `22`, `ssh`, `8000-8099`.

use std::ops::RangeInclusive;

use crate::complaint::{Complaint, as_typed, complaint};
use crate::host::services::Services;

/// How to write a port, for messages.
pub(crate) const HOW: &str = "write a number, a service name, or a range like 8000-8099";

/// A port, or a range between two. Service names may contain hyphens (`iscsi-target`), so a name is tried
/// before a range, and a range at each hyphen.
///
/// # Errors
/// The text is not a port.
pub(crate) fn range(item: &str, services: &Services) -> Result<RangeInclusive<u16>, Complaint> {
    if let Some(port) = services.port(item) {
        return Ok(port..=port);
    }
    let ends = item
        .char_indices()
        .filter(|&(at, c)| c == '-' && at > 0)
        .map(|(at, _)| (&item[..at], &item[at + 1..]));
    let mut first_error = None;
    for (low, high) in ends {
        if high.is_empty() {
            first_error.get_or_insert(complaint!(
                "the range {item} has no end: write {low}-65535 for all from {low} on"
            ));
            continue;
        }
        match (port(low, services), port(high, services)) {
            (Ok(low), Ok(high)) if low <= high => return Ok(low..=high),
            (Ok(_), Ok(_)) => return Err(complaint!("the range {item} is reversed: write {high}-{low}")),
            // A number at one end proves that a range was meant.
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => _ = first_error.get_or_insert(error),
            (Err(error), Err(_)) if is_number(low) => _ = first_error.get_or_insert(error),
            (Err(_), Err(_)) => {}
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => port(item, services).map(|port| port..=port),
    }
}

/// One port, by number or name.
///
/// # Errors
/// The text is not a port.
pub(crate) fn port(text: &str, services: &Services) -> Result<u16, Complaint> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let port = u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'));
        return port
            .ok_or_else(|| complaint!("{text} is no port: ports are 0x0 to 0xffff", text = as_typed(text)));
    }
    if is_number(text) {
        // ss and other programs in C read 8 as the base of such a number.
        if text.len() > 1 && text.starts_with('0') {
            let decimal = text.trim_start_matches('0');
            return Err(complaint!(
                "{text} may be octal: write {} without a zero in front, or another number",
                if decimal.is_empty() { "0" } else { decimal }
            ));
        }
        return text.parse().map_err(|_| complaint!("port {text} is out of range: ports are 0 to 65535"));
    }
    services.port(text).ok_or_else(|| {
        complaint!("unknown service {text}: not in /etc/services; use a number", text = as_typed(text))
    })
}

/// True for digits, with or without a sign.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::value::list;

    fn services() -> Services {
        Services::parse("ssh 22/tcp\nhttp 80/tcp www\niscsi-target 3260/tcp\n914c-g 211/tcp\n")
    }

    fn ports(text: &str) -> Result<Vec<u16>, Complaint> {
        let list = list::parse(text, "a port", HOW, |item| range(item, &services()));
        list.map(|list| list.wanted.into_iter().flatten().collect()).map_err(|error| error.complaint)
    }

    #[test]
    fn reads_numbers_names_lists_and_ranges() {
        assert_eq!(ports("22"), Ok(vec![22]));
        assert_eq!(ports("ssh,www"), Ok(vec![22, 80]));
        assert_eq!(ports(" 8002-8004 , 8000,0,65535"), Ok(vec![8002, 8003, 8004, 8000, 0, 65535]));
        assert_eq!(ports("iscsi-target,914c-g"), Ok(vec![3260, 211]));
        assert_eq!(ports("0x16,0X1f90"), Ok(vec![22, 8080]));
        assert_eq!(ports("ssh-24"), Ok(vec![22, 23, 24]));
        assert_eq!(ports("3258-iscsi-target"), Ok(vec![3258, 3259, 3260]));
        assert_eq!(ports("iscsi-target-3261"), Ok(vec![3260, 3261]));
        assert_eq!(ports("0-65535").map(|ports| ports.len()), Ok(65_536));
    }

    #[test]
    fn errors_name_the_mistake() {
        let errors = [
            "70000",
            "-1",
            "sshh",
            "8099-8000",
            "80-",
            "1-70000",
            "70000-80000",
            "22-sshh",
            "",
            " ",
            "22,,80",
            "22,",
            "no-such-name",
            "22.5",
            "0x1ffff",
            "0x",
            "022",
            "00",
        ]
        .map(|text| format!("{text:?}: {}", ports(text).unwrap_err()));
        insta::assert_snapshot!(errors.join("\n"), @r#"
        "70000": port 70000 is out of range: ports are 0 to 65535
        "-1": port -1 is out of range: ports are 0 to 65535
        "sshh": unknown service "sshh": not in /etc/services; use a number
        "8099-8000": the range 8099-8000 is reversed: write 8000-8099
        "80-": the range 80- has no end: write 80-65535 for all from 80 on
        "1-70000": port 70000 is out of range: ports are 0 to 65535
        "70000-80000": port 70000 is out of range: ports are 0 to 65535
        "22-sshh": unknown service "sshh": not in /etc/services; use a number
        "": a port is missing in "": write a number, a service name, or a range like 8000-8099
        " ": a port is missing in " ": write a number, a service name, or a range like 8000-8099
        "22,,80": a port is missing beside a comma in "22,,80": write a number, a service name, or a range like 8000-8099
        "22,": a port is missing beside a comma in "22,": write a number, a service name, or a range like 8000-8099
        "no-such-name": unknown service "no-such-name": not in /etc/services; use a number
        "22.5": unknown service "22.5": not in /etc/services; use a number
        "0x1ffff": "0x1ffff" is no port: ports are 0x0 to 0xffff
        "0x": "0x" is no port: ports are 0x0 to 0xffff
        "022": 022 may be octal: write 22 without a zero in front, or another number
        "00": 00 may be octal: write 0 without a zero in front, or another number
        "#);
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails(text in "[0-9a-z,+. -]{0,20}") {
            let _ = ports(&text);
        }
    }
}
