//! A job's outputs as an answer: negotiated, converted, without texts, alone or in a multipart body. Pure.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::accept::{Choice, choose};
use crate::job::{Done, Output};
use crate::kept::Content;
use crate::multipart::{self, Part};
use crate::picture::{self, Format, PictureError, is_png, is_still_png, without_texts};
use crate::problem::Problem;
use crate::request::{ATTRIBUTES, Options};

/// SageMaker's limit of the custom attributes, in characters.
const LONGEST_ATTRIBUTES: usize = 1024;

/// What the answer depends on besides the outputs.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// The Accept header, several lines joined.
    pub(crate) accept: Option<String>,
    pub(crate) options: Options,
    /// Where the caller does not say.
    pub(crate) quality: u8,
}

/// Encodes what the caller gets. Takes tens of milliseconds of processor time.
pub(crate) fn encode(outputs: &[Output], prompt_id: &str, wish: &Wish) -> Result<Content, Problem> {
    if !wish.options.all {
        let first = outputs.first().ok_or_else(|| Problem::internal("no_output", "the job left no output"))?;
        return one(&first.content, wish);
    }
    let contents = outputs.iter().map(|output| one(&output.content, wish)).collect::<Result<Vec<_>, _>>()?;
    let heads: Vec<[(&str, &str); 1]> = outputs.iter().map(|output| [("X-Comfy-Node", output.node.as_str())]).collect();
    let names: Vec<Option<String>> =
        outputs.iter().zip(&contents).map(|(output, content)| name(output, content)).collect();
    let parts: Vec<Part<'_>> = contents
        .iter()
        .zip(&heads)
        .zip(&names)
        .map(|((content, headers), name)| Part {
            content_type: &content.content_type,
            filename: name.as_deref(),
            headers,
            body: &content.bytes,
        })
        .collect();
    let whole = multipart::mixed(&parts, prompt_id).map_err(|cause| {
        Problem::internal("multipart_failed", format!("the outputs cannot be put together: {cause}"))
    })?;
    Ok(Content { content_type: whole.content_type, bytes: whole.body.into() })
}

/// The file's name, with the extension of what it became.
fn name(output: &Output, content: &Content) -> Option<String> {
    let name = output.filename.as_deref()?;
    let extension = match content.content_type.as_str() {
        converted if converted == output.content.content_type => return Some(name.to_owned()),
        "image/jpeg" => "jpg",
        "image/webp" => "webp",
        _ => return Some(name.to_owned()),
    };
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    Some(format!("{stem}.{extension}"))
}

fn one(content: &Content, wish: &Wish) -> Result<Content, Problem> {
    let have = match (is_png(&content.bytes), is_still_png(&content.bytes)) {
        (true, true) => "image/png",
        // Acceptable where a PNG is, and never converted.
        (true, false) => "image/apng",
        (false, _) => content.content_type.as_str(),
    };
    let accept = wish.accept.as_deref();
    let choice = match choose(accept, have) {
        Ok(choice) => choice,
        // Who wants a multipart body and does not say of what takes the parts as they are.
        Err(_) if wish.options.all && choose(accept, "multipart/mixed").is_ok() => Choice::AsIs,
        Err(refused) => {
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", refused.to_string()));
        }
    };
    let format = match choice {
        Choice::AsIs if wish.options.keep_metadata => return Ok(content.clone()),
        Choice::AsIs => {
            let bytes = without_texts(&content.bytes);
            return Ok(Content { content_type: content.content_type.clone(), bytes });
        }
        Choice::Jpeg => Format::Jpeg,
        Choice::Webp => Format::Webp,
    };
    let quality = wish.options.quality.unwrap_or(wish.quality);
    let options = picture::Options { quality, ..picture::Options::default() };
    match picture::convert(&content.bytes, format, options) {
        Ok(bytes) => Ok(Content { content_type: format.media_type().to_owned(), bytes }),
        Err(cause @ PictureError::TooLarge { .. }) => {
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "picture_too_large", cause.to_string()))
        }
        Err(cause) => {
            let message = format!("the picture was made, but cannot be converted: {cause}");
            Err(Problem::internal("conversion_failed", message))
        }
    }
}

/// Headers that tell about a job: one that SageMaker passes on, and plain ones for local use.
pub(crate) fn headers(done: &Done, seed: Option<&str>, content_type: &str, took: std::time::Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut attributes: Vec<String> = Vec::new();
    let mut tell = |name: &'static str, header: &'static str, value: &str| {
        let value = plain(value);
        if let Ok(text) = HeaderValue::from_str(&value) {
            headers.insert(header, text);
        }
        attributes.push(format!("{name}={value}"));
    };
    tell("prompt_id", "x-comfy-prompt-id", &done.prompt_id);
    if let Some(seed) = seed {
        tell("seed", "x-comfy-seed", seed);
    }
    if let Some(queued) = done.queued {
        tell("queue_ms", "x-comfy-queue-ms", &queued.as_millis().to_string());
    }
    tell("duration_ms", "x-comfy-duration-ms", &took.as_millis().to_string());
    tell("outputs", "x-comfy-outputs", &done.outputs.len().to_string());
    if let [first, ..] = done.outputs.as_slice() {
        tell("node", "x-comfy-node", &first.node);
    }
    if !done.invalid_nodes.is_empty() {
        tell("invalid_nodes", "x-comfy-invalid-nodes", &done.invalid_nodes.join(" "));
    }
    // The last ones are the least important.
    let mut line = String::new();
    for attribute in attributes {
        let separator = if line.is_empty() { "" } else { ";" };
        if line.len() + separator.len() + attribute.len() <= LONGEST_ATTRIBUTES {
            line.push_str(separator);
            line.push_str(&attribute);
        }
    }
    if let Ok(line) = HeaderValue::from_str(&line) {
        headers.insert(ATTRIBUTES, line);
    }
    let content_type = HeaderValue::from_str(content_type);
    let unknown = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, content_type.unwrap_or(unknown));
    headers
}

/// Node ids are whatever the caller wrote.
fn plain(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.: ".contains(c);
    text.chars().map(|c| if allowed(c) { c } else { '_' }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::time::Duration;

    use bytes::Bytes;

    fn png() -> Bytes {
        let picture = image::RgbaImage::from_pixel(4, 4, image::Rgba([200, 30, 30, 255]));
        let mut png = Cursor::new(Vec::new());
        image::DynamicImage::ImageRgba8(picture).write_to(&mut png, image::ImageFormat::Png).expect("encodes");
        png.into_inner().into()
    }

    fn output(node: &str, filename: &str, content_type: &str, bytes: Bytes) -> Output {
        let content = Content { content_type: content_type.into(), bytes };
        Output { node: node.into(), filename: Some(filename.into()), content }
    }

    fn wish(accept: &str, all: bool) -> Wish {
        let accept = Some(accept).filter(|accept| !accept.is_empty()).map(str::to_owned);
        Wish { accept, options: Options { all, ..Options::default() }, quality: 90 }
    }

    #[test]
    fn formats() {
        let outputs = [output("9", "a_00001_.png", "image/png", png())];
        for (accept, expected) in [
            ("", Ok("image/png")),
            ("*/*", Ok("image/jpeg")),
            ("image/webp", Ok("image/webp")),
            ("image/jpeg;q=0, image/*", Ok("image/png")),
            ("application/json", Err(406)),
        ] {
            let content = encode(&outputs, "p", &wish(accept, false));
            let got = content.map(|content| content.content_type).map_err(|problem| problem.status.as_u16());
            assert_eq!(got, expected.map(str::to_owned), "{accept}");
        }
    }

    #[test]
    fn texts_are_removed_unless_asked_for() {
        // A text chunk after the header chunk.
        let plain = png();
        let mut with_text = plain[..33].to_vec();
        with_text.extend(b"\0\0\0\x10tEXtprompt\0my secretCRC!");
        with_text.extend(&plain[33..]);
        let outputs = [output("9", "a.png", "image/png", with_text.clone().into())];
        assert_eq!(encode(&outputs, "p", &wish("", false)).expect("encodes").bytes, plain);
        let mut keep = wish("", false);
        keep.options.keep_metadata = true;
        assert_eq!(encode(&outputs, "p", &keep).expect("encodes").bytes, with_text);
    }

    #[test]
    fn all_of_them() {
        let outputs = [
            output("9", "a_00001_.png", "image/png", png()),
            output("8", "v.mp4", "video/mp4", Bytes::from_static(b"film")),
        ];
        let whole = encode(&outputs, "p", &wish("*/*", true)).expect("encodes");
        assert!(whole.content_type.starts_with("multipart/mixed; boundary="));
        let text = String::from_utf8_lossy(&whole.bytes);
        for expected in ["a_00001_.jpg", "image/jpeg", "v.mp4", "video/mp4", "X-Comfy-Node: 8", "film"] {
            assert!(text.contains(expected), "{expected}");
        }
        let as_they_are = encode(&outputs, "p", &wish("multipart/mixed", true)).expect("encodes");
        assert!(String::from_utf8_lossy(&as_they_are.bytes).contains("a_00001_.png"));
        assert_eq!(encode(&outputs, "p", &wish("audio/*", true)).expect_err("no").status.as_u16(), 406);
    }

    #[test]
    fn a_picture_that_is_damaged() {
        let outputs = [output("9", "a.png", "image/png", png().slice(..40))];
        assert_eq!(encode(&outputs, "p", &wish("*/*", false)).expect_err("no").code, "conversion_failed");
    }

    #[test]
    fn attributes() {
        let done = Done {
            prompt_id: "p".into(),
            queued: Some(Duration::from_millis(12)),
            outputs: vec![output("9\r\n", "a", "image/png", Bytes::new())],
            invalid_nodes: vec!["x;y=1".into(), "z".repeat(2000)],
        };
        let headers = headers(&done, Some("18446744073709551615"), "image/png", Duration::from_millis(345));
        let line = headers[ATTRIBUTES].to_str().expect("ASCII");
        let expected = "prompt_id=p;seed=18446744073709551615;queue_ms=12;duration_ms=345;outputs=1;node=9__;invalid_nodes=x_y_1 z";
        assert!(line.starts_with(expected), "{line}");
        assert!(line.len() <= LONGEST_ATTRIBUTES);
        assert_eq!(headers["x-comfy-seed"], "18446744073709551615");
        assert_eq!(headers[header::CONTENT_TYPE], "image/png");
    }
}
