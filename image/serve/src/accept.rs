//! The Accept header (RFC 9110, section 12.5.1): what the caller gets of what there is. Pure.
//!
//! Forgiving where clients are known to be sloppy: `image/jpg`, a lone `*` and weights like `.2` are understood; a
//! member that makes no sense is left out, not an error.

use std::fmt;

#[cfg(test)]
mod tests;

/// How much of a header an error repeats, in characters: SageMaker cuts an error's body at 2,048 bytes.
const REPEATED: usize = 200;

/// What is done with the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Sent in the format in which ComfyUI made it.
    AsIs,
    /// A still PNG becomes a JPEG.
    Jpeg,
    /// A still PNG becomes a WebP.
    Webp,
}

/// Nothing that there is fits the Accept header: status 406.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NotAcceptable {
    /// The types that the caller could have had; none when no job was run.
    have: Option<String>,
    accept: String,
}

impl NotAcceptable {
    /// For a header that is [`hopeless`], before a job is run.
    pub fn whatever_comes(accept: &str) -> Self {
        NotAcceptable { have: None, accept: accept.to_owned() }
    }
}

impl fmt::Display for NotAcceptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.have {
            Some(have) => write!(f, "the result can be had as {have}")?,
            None => f.write_str("results are pictures, video, audio, 3D models, text or application/octet-stream")?,
        }
        let repeated = self.accept.trim().chars().take(REPEATED).collect::<String>();
        let cut = if repeated.len() < self.accept.trim().len() { "..." } else { "" };
        write!(f, ", but the Accept header allows only `{repeated}{cut}`. Send `Accept: */*` to get what there is")
    }
}

/// Decides what the caller gets.
///
/// `have` is the media type of the output, with or without parameters. Only `image/png` is ever converted; for an
/// animated PNG, say `image/apng`, which is acceptable wherever `image/png` is. Of the formats of a still PNG the one
/// with the highest weight wins, at a tie JPEG before PNG before WebP. Several header lines are joined with commas by
/// the caller; a header that is absent, empty or has no member that makes sense asks for the output as it is.
///
/// # Errors
/// Nothing fits.
pub fn choose(accept: Option<&str>, have: &str) -> Result<Choice, NotAcceptable> {
    let ranges = parse(accept.unwrap_or_default());
    if ranges.is_empty() {
        return Ok(Choice::AsIs);
    }
    let output = MediaType::parse(have);
    let quality = |of: &MediaType| weight(&ranges, of);
    let still = output.is("image", "png");
    let best = if still {
        // `max_by_key` takes the last of equals, so the preferred one stands last.
        [("webp", Choice::Webp), ("png", Choice::AsIs), ("jpeg", Choice::Jpeg)]
            .map(|(subtype, choice)| (quality(&MediaType::new("image", subtype)), choice))
            .into_iter()
            .max_by_key(|(quality, _)| *quality)
    } else if output.is("image", "apng") && !ranges.iter().any(|range| range.media.is("image", "apng")) {
        Some((quality(&MediaType::new("image", "png")), Choice::AsIs))
    } else {
        Some((quality(&output), Choice::AsIs))
    };
    match best {
        Some((1.., choice)) => Ok(choice),
        _ => {
            let have = if still { "image/jpeg, image/png or image/webp".to_owned() } else { have.to_owned() };
            Err(NotAcceptable { have: Some(have), accept: accept.unwrap_or_default().to_owned() })
        }
    }
}

/// Whether no output of any workflow could fit (none of image, video, audio, model, text or multipart, and no
/// application/octet-stream), so that the job need not be run.
pub fn hopeless(accept: Option<&str>) -> bool {
    let ranges = parse(accept.unwrap_or_default());
    let families = ["image", "video", "audio", "model", "text", "multipart"];
    // A subtype that nobody names stands for all that are not named.
    let unnamed = families.iter().map(|family| MediaType::new(family, ""));
    let named = ranges
        .iter()
        .map(|range| range.media.clone())
        .filter(|media| families.contains(&media.kind.as_str()) && media.subtype != "*");
    let mut possible = unnamed.chain(named).chain([MediaType::new("application", "octet-stream")]);
    !ranges.is_empty() && !possible.any(|media| weight(&ranges, &media) > 0)
}

/// The weight of a type in thousandths: the most specific range that matches decides, and among equals a refusal, then
/// the highest.
fn weight(ranges: &[Range], of: &MediaType) -> u16 {
    let matching = || ranges.iter().filter(|range| range.media.covers(of));
    let Some(closest) = matching().map(|range| range.media.specificity()).max() else { return 0 };
    let mut weights = matching().filter(|range| range.media.specificity() == closest).map(|range| range.weight);
    let first = weights.next().unwrap_or(0);
    weights.fold(first, |best, weight| if best == 0 || weight == 0 { 0 } else { best.max(weight) })
}

/// One member of the header.
#[derive(Debug, Clone)]
struct Range {
    media: MediaType,
    /// In thousandths.
    weight: u16,
}

/// A media type or, with `*`, a range of them; all in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MediaType {
    kind: String,
    subtype: String,
    parameters: Vec<(String, String)>,
}

impl MediaType {
    fn new(kind: &str, subtype: &str) -> Self {
        MediaType { kind: kind.to_owned(), subtype: subtype.to_owned(), parameters: Vec::new() }
    }

    /// The type of an output; what cannot be read is covered by `*/*` alone.
    fn parse(text: &str) -> Self {
        Range::parse(text).map_or_else(|| MediaType::new("", ""), |range| range.media)
    }

    fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind == kind && self.subtype == subtype
    }

    fn covers(&self, other: &MediaType) -> bool {
        (self.kind == "*" || self.kind == other.kind)
            && (self.subtype == "*" || self.subtype == other.subtype)
            && self.parameters.iter().all(|parameter| other.parameters.contains(parameter))
    }

    /// The more, the narrower the range.
    fn specificity(&self) -> (u8, usize) {
        (u8::from(self.kind != "*") + u8::from(self.subtype != "*"), self.parameters.len())
    }
}

fn parse(header: &str) -> Vec<Range> {
    split(header, ',').into_iter().filter_map(Range::parse).collect()
}

impl Range {
    fn parse(member: &str) -> Option<Range> {
        let mut pieces = split(member, ';').into_iter().map(str::trim);
        let media = pieces.next()?.to_ascii_lowercase();
        // Java's default header has a lone star.
        let (kind, subtype) = if media == "*" { ("*", "*") } else { media.split_once('/')? };
        if !is_token(kind) || !is_token(subtype) || (kind == "*" && subtype != "*") {
            return None;
        }
        let subtype = if (kind, subtype) == ("image", "jpg") { "jpeg" } else { subtype };
        let mut range = Range { media: MediaType::new(kind, subtype), weight: 1000 };
        // An empty piece is allowed: `image/png;`.
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=')?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            if !is_token(&name) {
                return None;
            }
            if name == "q" {
                range.weight = thousandths(value)?;
                // What follows the weight belongs to Accept, not to the type.
                break;
            }
            range.media.parameters.push((name, unquoted(value)?.to_ascii_lowercase()));
        }
        Some(range)
    }
}

/// Splits where the separator stands outside quoted strings.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c: char| {
        let outside = !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        outside && c == separator
    })
    .collect()
}

/// The value of a token or quoted string.
fn unquoted(value: &str) -> Option<String> {
    let Some(rest) = value.strip_prefix('"') else { return is_token(value).then(|| value.to_owned()) };
    let mut content = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(content),
            '\\' => content.push(chars.next()?),
            c => content.push(c),
        }
    }
}

/// A weight from 0 to 1, in thousandths. More digits than the three that are allowed are cut, but never to a refusal.
fn thousandths(value: &str) -> Option<u16> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let nothing = fraction.bytes().all(|digit| digit == b'0');
    match whole {
        "1" if nothing => Some(1000),
        "0" | "" if nothing => Some(0),
        "0" | "" => {
            let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
            Some(digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')).max(1))
        }
        _ => None,
    }
}

/// A token of RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
