//! Names from outside, made safe to print. The name of a process can hold any bytes: terminal escapes, line breaks,
//! or text that looks like another field.

use crate::event::until_zero;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `name` as one word of a line. Bytes other than visible ASCII, `=` and `[` become `\xNN`, a backslash
/// becomes `\\`. An empty name becomes `""`, and a name that looks like that or like the `-` of an unknown value is
/// escaped.
pub(crate) fn word(name: &[u8], out: &mut Vec<u8>) {
    match name {
        b"" => return out.extend_from_slice(b"\"\""),
        b"-" | b"\"\"" => return name.iter().for_each(|&byte| hex(byte, out)),
        _ => {}
    }
    // Nearly all names are harmless.
    if name.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'=' | b'[')) {
        return out.extend_from_slice(name);
    }
    for &byte in name {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'=' | b'[' => hex(byte, out),
            _ if byte.is_ascii_graphic() => out.push(byte),
            _ => hex(byte, out),
        }
    }
}

/// Appends the name of a systemd unit as systemd writes it, with its single backslashes. Anything else is a [`word`].
pub(crate) fn unit(name: &str, out: &mut Vec<u8>) {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)) {
        out.extend_from_slice(name.as_bytes());
    } else {
        word(name.as_bytes(), out);
    }
}

/// A name as one word, as text of its own. See [`word`].
pub(crate) fn text(name: &[u8]) -> String {
    let mut out = Vec::new();
    word(name, &mut out);
    // `word` writes ASCII only.
    String::from_utf8_lossy(&out).into_owned()
}

/// Replaces the first byte of the text from `start` on by `\xNN` if a spreadsheet takes the text for a formula. A lone
/// minus is none: it stands for an unknown value.
pub(crate) fn begin_no_formula(start: usize, out: &mut Vec<u8>) {
    if let [first @ (b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r'), _, ..] = out[start..] {
        let mut escape = Vec::new();
        hex(first, &mut escape);
        out.splice(start..=start, escape);
    }
}

/// The name of a systemd unit, as text of its own. See [`unit()`].
pub(crate) fn unit_text(name: &str) -> String {
    let mut out = Vec::new();
    unit(name, &mut out);
    // `unit` writes ASCII only.
    String::from_utf8_lossy(&out).into_owned()
}

/// A task's name up to the first zero, as one word.
pub(crate) fn comm(name: &[u8]) -> String {
    text(until_zero(name))
}

/// Appends the bytes of a name as hexadecimal digits.
pub(crate) fn hex_digits(name: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]));
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]);
}

/// Appends `name` as a JSON string with quotes. Invalid UTF-8 becomes U+FFFD. Control characters, line separators, marks
/// of text direction and characters without a width are escaped.
pub(crate) fn json_string(name: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escaped(name, out);
    out.push(b'"');
}

fn escaped(name: &[u8], out: &mut Vec<u8>) {
    // As above.
    if name.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        return out.extend_from_slice(name);
    }
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                '\n' => out.extend_from_slice(b"\\n"),
                '\t' => out.extend_from_slice(b"\\t"),
                ' '..='~' => out.push(c as u8),
                _ if is_harmful(c) => unicode_escape(c, out),
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Characters that change the text around them or that no reader sees: control characters, line separators, marks of text
/// direction, and those that a display ignores (`Default_Ignorable_Code_Point` of Unicode: joiners and spaces without a
/// width, fillers, variation selectors, tags). Two names that differ in one of them look the same.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Appends the UTF-16 units of a character as JSON escapes: two of them beyond the basic plane.
fn unicode_escape(c: char, out: &mut Vec<u8>) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.extend_from_slice(b"\\u");
        out.extend([12, 8, 4, 0].map(|shift| digit((*unit >> shift) as u8)));
    }
}

fn digit(nibble: u8) -> u8 {
    HEX[usize::from(nibble & 0xf)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(write: fn(&[u8], &mut Vec<u8>), name: &[u8]) -> String {
        let mut out = Vec::new();
        write(name, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn words_are_one_word() {
        assert_eq!(with(word, b"curl"), "curl");
        assert_eq!(with(word, b"kworker/0:1-ev"), "kworker/0:1-ev");
        assert_eq!(
            ["", "-", "\"\"", "--"].map(|name| with(word, name.as_bytes())),
            ["\"\"", r"\x2d", r"\x22\x22", "--"]
        );
        assert_eq!(with(word, b"a b\n\x1b[31m=\\\xff\xc3\xa4"), r"a\x20b\x0a\x1b\x5b31m\x3d\\\xff\xc3\xa4");
    }

    #[test]
    fn cells_begin_no_formula() {
        let cell = |name: &str| {
            let mut out = b"1,".to_vec();
            word(name.as_bytes(), &mut out);
            begin_no_formula(2, &mut out);
            String::from_utf8(out).unwrap().split_off(2)
        };
        for (name, text) in [
            ("=1+2", r"\x3d1+2"),
            ("+1-2", r"\x2b1-2"),
            ("-1+2", r"\x2d1+2"),
            ("@SUM(A1)", r"\x40SUM(A1)"),
            ("\t=1", r"\x09\x3d1"),
            ("\r=1", r"\x0d\x3d1"),
            ("kworker/0:1-ev", "kworker/0:1-ev"),
            ("-", r"\x2d"),
            ("", "\"\""),
        ] {
            assert_eq!(cell(name), text);
        }
        let mut raw = b"\tx".to_vec();
        begin_no_formula(0, &mut raw);
        assert_eq!(raw, br"\x09x");
    }

    #[test]
    fn unit_names_are_those_of_systemd() {
        let unit = |name: &str| with(|name, out| unit(&String::from_utf8_lossy(name), out), name.as_bytes());
        assert_eq!(unit(r"openvpn@site\x2da.service"), r"openvpn@site\x2da.service");
        assert_eq!(unit("a b=\\\x1b"), r"a\x20b\x3d\\\x1b");
    }

    #[test]
    fn json_strings_keep_what_is_text() {
        assert_eq!(with(json_string, "Grüße \"x\" \\ 🦀".as_bytes()), r#""Grüße \"x\" \\ 🦀""#);
        assert_eq!(with(json_string, b"a\n\t\x1b\x7f\0\xff"), "\"a\\n\\t\\u001b\\u007f\\u0000\u{fffd}\"");
        assert_eq!(with(json_string, "\u{202e}\u{9b}".as_bytes()), r#""\u202e\u009b""#);
        assert_eq!(with(json_string, "a\u{61c}b\u{200b}c".as_bytes()), r#""a\u061cb\u200bc""#);
        assert_eq!(with(json_string, "root\u{e0041}\u{fe0f}".as_bytes()), r#""root\udb40\udc41\ufe0f""#);
    }

    proptest! {
        #[test]
        fn json_strings_of_any_text_parse_back(name in any::<String>()) {
            let text = with(json_string, name.as_bytes());
            prop_assert_eq!(serde_json::from_str::<String>(&text).unwrap(), name);
            prop_assert!(!text.chars().any(is_harmful));
        }

        #[test]
        fn json_strings_parse_back(name in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = with(json_string, &name);
            prop_assert_eq!(
                serde_json::from_str::<String>(&text).unwrap(),
                String::from_utf8_lossy(&name).into_owned()
            );
            prop_assert!(!text.chars().any(is_harmful));
        }

        #[test]
        fn words_are_visible_ascii(name in prop::collection::vec(any::<u8>(), 0..40)) {
            let text = with(word, &name);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=' && byte != b'['));
        }
    }
}
