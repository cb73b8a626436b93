//! Several outputs in one body: multipart/mixed (RFC 2046, section 5.1). Pure.

use std::fmt::Write as _;

use memchr::memmem;
use thiserror::Error;

/// One part.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its media type.
    pub content_type: &'a str,
    /// The name for a caller who saves it; any characters.
    pub filename: Option<&'a str>,
    /// More headers, as name and value.
    pub headers: &'a [(&'a str, &'a str)],
    /// Its content, which is not encoded.
    pub body: &'a [u8],
}

/// A body and what its Content-Type header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    /// `multipart/mixed; boundary=...`
    pub content_type: String,
    /// All parts with their delimiters.
    pub body: Vec<u8>,
}

/// Why there is no body.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MultipartError {
    /// The format needs one part at least.
    #[error("a multipart body needs at least one part")]
    NoParts,
    /// A line break in it would end the header, or it has no place there.
    #[error("the header {0:?} of a part has a character that headers cannot have")]
    Header(String),
}

/// Builds the body. The boundary starts with what of `seed` may stand in one (letters and digits, a uuid say), and
/// is lengthened until it occurs in no part, so the same seed and parts make the same body.
///
/// # Errors
/// No parts, or a header with characters that it cannot have.
pub fn mixed(parts: &[Part<'_>], seed: &str) -> Result<Multipart, MultipartError> {
    if parts.is_empty() {
        return Err(MultipartError::NoParts);
    }
    let heads = parts.iter().map(head).collect::<Result<Vec<_>, _>>()?;
    let boundary = boundary(parts, seed);
    let room = parts.iter().zip(&heads).map(|(part, head)| boundary.len() + 8 + head.len() + part.body.len());
    let mut body = Vec::with_capacity(room.sum::<usize>() + boundary.len() + 8);
    for (part, head) in parts.iter().zip(&heads) {
        // The line break in front of a delimiter belongs to it, not to the part before.
        let delimiter = if body.is_empty() { "--" } else { "\r\n--" };
        for bytes in [delimiter.as_bytes(), boundary.as_bytes(), b"\r\n", head.as_bytes(), b"\r\n", part.body] {
            body.extend_from_slice(bytes);
        }
    }
    for bytes in [b"\r\n--", boundary.as_bytes(), b"--\r\n"] {
        body.extend_from_slice(bytes);
    }
    Ok(Multipart { content_type: format!("multipart/mixed; boundary={boundary}"), body })
}

/// At most 70 characters, none that would need quotes.
fn boundary(parts: &[Part<'_>], seed: &str) -> String {
    let seed = seed.chars().filter(char::is_ascii_alphanumeric).take(40).collect::<String>();
    let mut tries = 0u64;
    loop {
        let candidate = if tries == 0 { format!("part-{seed}") } else { format!("part-{seed}-{tries}") };
        let delimiter = format!("--{candidate}");
        let finder = memmem::Finder::new(&delimiter);
        if parts.iter().all(|part| finder.find(part.body).is_none()) {
            return candidate;
        }
        tries += 1;
    }
}

/// The header lines of a part, each with its line break.
fn head(part: &Part<'_>) -> Result<String, MultipartError> {
    let mut lines = String::new();
    let mut line = |name: &str, value: &str| {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) || value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(MultipartError::Header(name.to_owned()));
        }
        // Infallible.
        let _ = write!(lines, "{name}: {}\r\n", value.trim());
        Ok(())
    };
    line("Content-Type", part.content_type)?;
    if let Some(filename) = part.filename {
        line("Content-Disposition", &disposition(filename))?;
    }
    for (name, value) in part.headers {
        line(name, value)?;
    }
    Ok(lines)
}

/// `attachment` with the name: in ASCII for everybody, and in full (RFC 6266) where that is not the same.
fn disposition(filename: &str) -> String {
    let plain = |c: char| if c.is_ascii() && !c.is_ascii_control() && !matches!(c, '"' | '\\') { c } else { '_' };
    let ascii = filename.chars().map(plain).collect::<String>();
    let mut value = format!("attachment; filename=\"{ascii}\"");
    if ascii != filename {
        value.push_str("; filename*=UTF-8''");
        for byte in filename.bytes() {
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                value.push(char::from(byte));
            } else {
                // Infallible.
                let _ = write!(value, "%{byte:02X}");
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn part(body: &[u8]) -> Part<'_> {
        Part { content_type: "image/png", filename: None, headers: &[], body }
    }

    /// Bodies and heads of the parts, found by nothing but the delimiters.
    fn split(multipart: &Multipart) -> Vec<(String, Vec<u8>)> {
        let boundary = multipart.content_type.strip_prefix("multipart/mixed; boundary=").expect("a boundary");
        let delimiter = format!("\r\n--{boundary}");
        // The first delimiter has no line break in front.
        let all = [b"\r\n", &multipart.body[..]].concat();
        let starts = memmem::find_iter(&all, &delimiter).collect::<Vec<_>>();
        assert_eq!(all[*starts.last().expect("an end")..], *format!("{delimiter}--\r\n").as_bytes());
        let parts = starts.windows(2).map(|pair| {
            let part = all[pair[0] + delimiter.len()..pair[1]].strip_prefix(b"\r\n").expect("a line break");
            let end = memmem::find(part, b"\r\n\r\n").expect("the end of the head");
            (String::from_utf8(part[..end].to_vec()).expect("text"), part[end + 4..].to_vec())
        });
        parts.collect()
    }

    #[test]
    fn parts_with_all_headers() {
        let headers = [("X-Comfy-Node", "9"), ("X-Comfy-Type", "output")];
        let parts = [
            Part {
                content_type: "image/png",
                filename: Some("a_00001_.png"),
                headers: &headers,
                body: b"\r\npixels\r\n",
            },
            Part { content_type: "text/plain; charset=utf-8", filename: None, headers: &[], body: b"" },
        ];
        let body = mixed(&parts, "0a-1b").expect("builds");
        assert_eq!(body.content_type, "multipart/mixed; boundary=part-0a1b");
        let expected = "--part-0a1b\r\nContent-Type: image/png\r\n\
            Content-Disposition: attachment; filename=\"a_00001_.png\"\r\nX-Comfy-Node: 9\r\nX-Comfy-Type: output\r\n\r\n\
            \r\npixels\r\n\r\n--part-0a1b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\r\n--part-0a1b--\r\n";
        assert_eq!(String::from_utf8(body.body).expect("text"), expected);
    }

    #[test]
    fn a_boundary_that_occurs_is_not_used() {
        let parts = [part(b"x--part-seed"), part(b"--part-seed-1--"), part(b"--part-see")];
        let body = mixed(&parts, "seed").expect("builds");
        assert_eq!(body.content_type, "multipart/mixed; boundary=part-seed-2");
        assert_eq!(split(&body).len(), 3);
        let long = mixed(&parts[..1], &"ä\"\r\n0".repeat(100)).expect("builds");
        assert_eq!(long.content_type, format!("multipart/mixed; boundary=part-{}", "0".repeat(40)));
    }

    #[test]
    fn names_of_any_characters() {
        assert_eq!(disposition("a b.png"), "attachment; filename=\"a b.png\"");
        assert_eq!(
            disposition("a\"\r\nB: é.png"),
            "attachment; filename=\"a___B: _.png\"; filename*=UTF-8''a%22%0D%0AB%3A%20%C3%A9.png"
        );
    }

    #[test]
    fn what_cannot_be_a_body() {
        assert_eq!(mixed(&[], "x"), Err(MultipartError::NoParts));
        let with = |headers: &[(&str, &str)]| mixed(&[Part { headers, ..part(b"") }], "x").map(|_| ());
        assert_eq!(with(&[("A", "b\r\nC: d")]), Err(MultipartError::Header("A".to_owned())));
        assert_eq!(with(&[("A b", "c")]), Err(MultipartError::Header("A b".to_owned())));
        assert_eq!(with(&[("", "c")]), Err(MultipartError::Header(String::new())));
        let broken = Part { content_type: "image/png\nX: y", ..part(b"") };
        assert_eq!(mixed(&[broken], "x"), Err(MultipartError::Header("Content-Type".to_owned())));
    }

    #[test]
    fn python_reads_the_same() {
        let all = (0..=255).collect::<Vec<u8>>();
        let bodies = [&all[..], b"\r\n--part-\r\n", b"", b"\n\r\n\r"];
        let parts = bodies.map(|body| Part { filename: Some("a b.png"), ..part(body) });
        let multipart = mixed(&parts, "python").expect("builds");
        let script = "import sys, email\n\
            m = email.message_from_bytes(sys.stdin.buffer.read())\n\
            assert m.is_multipart() and not m.defects, m.defects\n\
            for p in m.get_payload():\n    \
                assert p.get_content_type() == 'image/png' and p.get_filename() == 'a b.png', p.items()\n    \
                print(p.get_payload(decode=True).hex())\n";
        let mut python = Command::new("python3")
            .args(["-X", "utf8", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut message = format!("MIME-Version: 1.0\r\nContent-Type: {}\r\n\r\n", multipart.content_type).into_bytes();
        message.extend_from_slice(&multipart.body);
        python.stdin.take().expect("a pipe").write_all(&message).expect("writes");
        let output = python.wait_with_output().expect("ends");
        assert!(output.status.success());
        let hex = |body: &[u8]| body.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
        assert_eq!(String::from_utf8(output.stdout).expect("text"), bodies.map(hex).concat());
    }

    proptest! {
        #[test]
        fn any_parts_are_found_again(bodies in prop::collection::vec("[\r\n a-]{0,12}|(\r\n--part-s(-1)?)+", 1..5)) {
            let parts = bodies.iter().map(|body| part(body.as_bytes())).collect::<Vec<_>>();
            let found = split(&mixed(&parts, "s").expect("builds"));
            prop_assert!(found.iter().all(|(head, _)| head == "Content-Type: image/png"));
            prop_assert!(found.iter().map(|(_, body)| &body[..]).eq(bodies.iter().map(String::as_bytes)));
        }
    }
}
