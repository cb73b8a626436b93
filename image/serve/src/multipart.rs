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
