//! The Accept header, as far as it decides between JPEG and PNG. Pure.

/// Whether the caller takes JPEG, and does not like PNG better. Without a header: no.
pub fn wants_jpeg(accept: Option<&str>) -> bool {
    let Some(accept) = accept else { return false };
    let (jpeg, png) = (weight(accept, "jpeg"), weight(accept, "png"));
    jpeg > 0 && jpeg >= png
}

/// The q value of `image/<subtype>` in thousandths; the most specific range decides.
fn weight(accept: &str, subtype: &str) -> u32 {
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let specificity = match parts.next().unwrap_or_default().to_ascii_lowercase().split_once('/') {
            Some(("image", sub)) if sub == subtype => 3,
            Some(("image", "*")) => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let q = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            // What cannot be read counts as 1, as if it were not there.
            .map_or(1.0, |q| q.parse::<f32>().ok().filter(|q| q.is_finite()).unwrap_or(1.0).clamp(0.0, 1.0));
        if specificity > best.0 {
            best = (specificity, (q * 1000.0) as u32);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::wants_jpeg;

    #[test]
    fn headers() {
        for (accept, jpeg) in [
            (None, false),
            (Some(""), false),
            (Some("*/*"), true),
            (Some("image/*"), true),
            (Some("image/jpeg"), true),
            (Some("IMAGE/JPEG; q=0.5"), true),
            (Some("image/png"), false),
            (Some("image/webp"), false),
            (Some("application/json"), false),
            (Some("image/jpeg;q=0"), false),
            (Some("image/jpeg;q=0, */*"), false),
            (Some("image/png, */*;q=0.1"), false),
            (Some("image/png;q=0.2, image/jpeg;q=0.9"), true),
            (Some("text/html, image/webp, */*;q=0.8"), true),
            (Some("image/jpeg;q=NaN"), true),
        ] {
            assert_eq!(wants_jpeg(accept), jpeg, "{accept:?}");
        }
    }
}
