//! Which picture format the caller wants. Pure.

use crate::problem::Problem;

/// A picture format that the endpoint can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `image/jpeg`
    Jpeg,
    /// `image/png`
    Png,
    /// `image/webp`
    Webp,
}

impl Format {
    /// All, the default first.
    pub const ALL: [Format; 3] = [Format::Jpeg, Format::Png, Format::Webp];

    /// As in the request's `format`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "jpeg",
            Format::Png => "png",
            Format::Webp => "webp",
        }
    }

    /// As in headers.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
            Format::Webp => "image/webp",
        }
    }

    /// The other way round; `jpg` is what many say.
    pub fn by_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "jpeg" | "jpg" => Some(Format::Jpeg),
            "png" => Some(Format::Png),
            "webp" => Some(Format::Webp),
            _ => None,
        }
    }

    /// What the bytes are, by their first ones.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::Webp),
            _ => None,
        }
    }
}

/// Reads an Accept header. None: any format will do.
///
/// A header that names no picture type at all (`application/json` is set by many clients for every request) says nothing
/// about pictures and counts as `*/*`.
///
/// # Errors
/// It names picture types, and none that the endpoint can make.
pub(crate) fn from_accept(accept: &str) -> Result<Option<Format>, Problem> {
    let (mut best, mut best_quality) = (None, 0);
    let (mut any_image, mut any) = (None, None);
    let mut refused = Vec::new();
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1000, thousandths);
        match name.strip_prefix("image/") {
            Some("*") => any_image = Some(quality),
            Some(subtype) => match Format::ALL.into_iter().find(|format| format.name() == subtype) {
                Some(format) if quality == 0 => refused.push(format),
                // The first of equals: it is listed first for a reason.
                Some(format) if quality > best_quality => (best, best_quality) = (Some(format), quality),
                Some(_) => {}
                None => any_image = any_image.or(Some(0)),
            },
            None if name == "*/*" => any = Some(quality),
            None => {}
        }
    }
    let wildcard = any_image.filter(|quality| *quality > 0).or(any).unwrap_or(0);
    match best {
        // "image/png;q=0.5, */*" likes anything else better.
        Some(format) if best_quality >= wildcard => Ok(Some(format)),
        _ if wildcard > 0 => {
            Ok(Format::ALL.into_iter().find(|format| !refused.contains(format)).filter(|f| *f != Format::Jpeg))
        }
        _ if any_image.is_none() && refused.is_empty() => Ok(None),
        _ => Err(Problem::new(
            406,
            "not_acceptable",
            "the picture can be image/jpeg, image/png or image/webp; the Accept header takes none of them",
        )),
    }
}

/// A quality value in thousandths; what cannot be read counts as if it were not there.
fn thousandths(quality: &str) -> u32 {
    let quality = quality.parse::<f32>().ok().filter(|q| q.is_finite()).unwrap_or(1.0);
    // Between 0 and 1000: nothing is lost.
    (quality.clamp(0.0, 1.0) * 1000.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        for (accept, expected) in [
            ("", Ok(None)),
            ("*/*", Ok(None)),
            ("image/*", Ok(None)),
            ("application/json", Ok(None)),
            ("application/json, text/plain, */*", Ok(None)),
            ("image/jpeg", Ok(Some(Format::Jpeg))),
            ("IMAGE/PNG", Ok(Some(Format::Png))),
            ("image/webp;q=0.8, */*;q=0.1", Ok(Some(Format::Webp))),
            ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", Ok(Some(Format::Webp))),
            ("image/png;q=0.2, image/jpeg;q=0.9", Ok(Some(Format::Jpeg))),
            ("image/png;q=0.5, */*", Ok(None)),
            ("image/jpeg;q=0, */*", Ok(Some(Format::Png))),
            ("image/png;q=NaN", Ok(Some(Format::Png))),
            ("image/gif", Err(406)),
            ("image/gif, */*;q=0.1", Ok(None)),
            ("image/jpeg;q=0", Err(406)),
            ("image/*;q=0", Err(406)),
        ] {
            let got = from_accept(accept).map_err(|problem| problem.status);
            assert_eq!(got, expected, "{accept:?}");
        }
    }

    #[test]
    fn names_and_first_bytes() {
        for format in Format::ALL {
            assert_eq!(Format::by_name(&format.name().to_uppercase()), Some(format));
        }
        assert_eq!((Format::by_name("jpg"), Format::by_name("gif")), (Some(Format::Jpeg), None));
        assert_eq!(Format::sniff(b"\x89PNG\r\n\x1a\n123"), Some(Format::Png));
        assert_eq!(Format::sniff(&[0xff, 0xd8, 0xff]), Some(Format::Jpeg));
        assert_eq!(Format::sniff(b"RIFF\0\0\0\0WEBPVP8 "), Some(Format::Webp));
        assert_eq!((Format::sniff(b""), Format::sniff(b"RIFF\0\0\0\0WAVE")), (None, None));
    }
}
