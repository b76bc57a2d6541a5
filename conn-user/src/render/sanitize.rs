//! Names from outside, made safe to print. The name of a process can hold any bytes: terminal escapes, line breaks,
//! or text that looks like another field.

use crate::event::until_zero;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `name` as one word of a line. Bytes other than visible ASCII, `=` and `[` become `\xNN`, a backslash
/// becomes `\\`.
pub(crate) fn word(name: &[u8], out: &mut Vec<u8>) {
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

/// A task's name up to the first zero, as one word.
pub(crate) fn comm(name: &[u8]) -> String {
    let mut out = Vec::new();
    word(until_zero(name), &mut out);
    // `word` writes ASCII only.
    String::from_utf8_lossy(&out).into_owned()
}

/// Appends the bytes of a name as hexadecimal digits.
pub(crate) fn hex_digits(name: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]));
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]);
}

/// Appends `name` as a JSON string with quotes. Invalid UTF-8 becomes U+FFFD. Control characters, line separators and
/// marks of text direction are escaped.
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

/// Control characters, line separators, and marks of text direction. All are in the basic plane, so four digits
/// suffice.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn unicode_escape(c: char, out: &mut Vec<u8>) {
    let code = c as u32;
    out.extend_from_slice(b"\\u");
    out.extend([12, 8, 4, 0].map(|shift| digit((code >> shift) as u8)));
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
        assert_eq!(with(word, b"a b\n\x1b[31m=\\\xff\xc3\xa4"), r"a\x20b\x0a\x1b\x5b31m\x3d\\\xff\xc3\xa4");
    }

    #[test]
    fn json_strings_keep_what_is_text() {
        assert_eq!(with(json_string, "Grüße \"x\" \\ 🦀".as_bytes()), r#""Grüße \"x\" \\ 🦀""#);
        assert_eq!(with(json_string, b"a\n\t\x1b\x7f\0\xff"), "\"a\\n\\t\\u001b\\u007f\\u0000\u{fffd}\"");
        assert_eq!(with(json_string, "\u{202e}\u{9b}".as_bytes()), r#""\u202e\u009b""#);
    }

    proptest! {
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
