//! `GET /view`

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Body,
    extract::{Query, RawQuery, State},
    response::Response,
};
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use crate::{
    files::{normal, png},
    graph::annotated,
    http::{crashed, empty},
    life::Life,
    picture::Picture,
};

pub(crate) async fn view(
    State(life): State<Arc<Life>>,
    Query(query): Query<HashMap<String, String>>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    life.seen.view(raw.as_deref().unwrap_or_default());
    let Some(asked) = query.get("filename") else { return empty(StatusCode::NOT_FOUND) };
    let (name, folder) = annotated(asked);
    if name.is_empty() || name.starts_with('/') || name.contains("..") {
        return empty(StatusCode::BAD_REQUEST);
    }
    let kind = folder.or(query.get("type").map(String::as_str)).unwrap_or("output");
    let Some(folder) = life.folders.of(kind) else { return empty(StatusCode::BAD_REQUEST) };
    let mut place = folder.to_owned();
    if let Some(subfolder) = query.get("subfolder") {
        place = normal(&folder.join(subfolder));
        if !place.starts_with(folder) {
            return empty(StatusCode::FORBIDDEN);
        }
    }
    let name = name.rsplit('/').next().unwrap_or_default();
    let file = place.join(name);
    let Ok(facts) = file.metadata() else { return empty(StatusCode::NOT_FOUND) };
    if !facts.is_file() {
        return empty(StatusCode::NOT_FOUND);
    }
    let Ok(bytes) = std::fs::read(&file) else { return crashed() };
    if let Some(preview) = query.get("preview") {
        return converted(name, preview_of(&bytes, preview, query.get("channel").map_or("", String::as_str)));
    }
    match query.get("channel").map(String::as_str) {
        Some("rgb") => converted(name, channel_rgb(&bytes)),
        Some("a") => converted(name, channel_alpha(&bytes)),
        _ => whole(name, bytes, facts.modified().unwrap_or(UNIX_EPOCH), &headers),
    }
}

/// A picture made for the occasion; one that cannot be read made PIL raise.
fn converted(name: &str, made: Option<(Vec<u8>, &'static str)>) -> Response {
    let Some((bytes, kind)) = made else { return crashed() };
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    disposition(response.headers_mut(), name);
    response
}

fn disposition(headers: &mut HeaderMap, name: &str) {
    if let Ok(value) = HeaderValue::from_bytes(format!("filename=\"{name}\"").as_bytes()) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
}

fn preview_of(bytes: &[u8], preview: &str, channel: &str) -> Option<(Vec<u8>, &'static str)> {
    let parts: Vec<&str> = preview.split(';').collect();
    let quality = parts.last().and_then(|last| last.parse::<u32>().ok()).unwrap_or(90).min(100) as u8;
    let picture = Picture::decode(bytes).ok()?;
    if parts.first() == Some(&"jpeg") && !channel.contains('a') {
        return Some((picture.jpeg(quality).ok()?, "image/jpeg"));
    }
    Some((picture.webp().ok()?, "image/webp"))
}

fn channel_rgb(bytes: &[u8]) -> Option<(Vec<u8>, &'static str)> {
    Some((png(&Picture::decode(bytes).ok()?, &[], 6).ok()?, "image/png"))
}

/// The alpha of the picture, over black.
fn channel_alpha(bytes: &[u8]) -> Option<(Vec<u8>, &'static str)> {
    let picture = image::load_from_memory(bytes).ok()?.into_rgba8();
    let pixels = picture.pixels().flat_map(|pixel| [0, 0, 0, pixel.0[3]]).collect();
    let alpha = Picture { width: picture.width(), height: picture.height(), alpha: true, pixels };
    Some((png(&alpha, &[], 6).ok()?, "image/png"))
}

/// What Python's `mimetypes` says, with what browsers would run turned into a download.
fn content_type(name: &str) -> &'static str {
    let end = Path::new(name).extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default();
    match end.as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "bmp" => "image/bmp",
        "svg" => "image/svg+xml",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "wav" => "audio/x-wav",
        "opus" => "audio/opus",
        "flac" => "audio/flac",
        "txt" => "text/plain",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

fn whole(name: &str, bytes: Vec<u8>, modified: SystemTime, asked: &HeaderMap) -> Response {
    let nanos = modified.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let tag = format!("\"{nanos:x}-{:x}\"", bytes.len());
    let word = |name: HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
    let since = |name| word(name).and_then(|date| httpdate::parse_http_date(date).ok());
    let changed = |since: SystemTime| nanos / 1_000_000_000 > seconds(since);
    let known = match word(header::IF_NONE_MATCH) {
        Some(tags) => tags == "*" || tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag),
        None => since(header::IF_MODIFIED_SINCE).is_some_and(|since| !changed(since)),
    };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, tag);
    set(header::LAST_MODIFIED, httpdate::fmt_http_date(rounded_up(modified)));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    set(header::ACCEPT_RANGES, "bytes".into());
    set(header::CONTENT_TYPE, content_type(name).into());
    let size = bytes.len();
    let fresh = since(header::IF_RANGE).is_none_or(|since| !changed(since));
    match word(header::RANGE).filter(|_| fresh).map(|range| part(range, size)) {
        None => *response.body_mut() = Body::from(bytes),
        Some(Some((from, to))) => {
            set(header::CONTENT_RANGE, format!("bytes {from}-{}/{size}", to - 1));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            *response.body_mut() = Body::from(bytes[from..to].to_vec());
        }
        Some(None) => {
            set(header::CONTENT_RANGE, format!("bytes */{size}"));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        }
    }
    disposition(response.headers_mut(), name);
    response
}

fn seconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs().into())
}

/// aiohttp rounds the time up to a whole second.
fn rounded_up(time: SystemTime) -> SystemTime {
    let nanos = time.duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    if nanos == 0 { time } else { time + std::time::Duration::from_nanos(u64::from(1_000_000_000 - nanos)) }
}

/// The bytes that a `Range` asks for; `None` when there are none of them.
fn part(range: &str, size: usize) -> Option<(usize, usize)> {
    let (from, to) = range.trim().strip_prefix("bytes=")?.split_once('-')?;
    if from.is_empty() {
        let last: usize = to.parse().ok()?;
        return (last > 0 && size > 0).then(|| (size.saturating_sub(last), size));
    }
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { size } else { to.parse::<usize>().ok()?.saturating_add(1).min(size) };
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, found) in [
            ("bytes=0-9", Some((0, 10))),
            ("bytes=90-", Some((90, 100))),
            ("bytes=-5", Some((95, 100))),
            ("bytes=50-1000", Some((50, 100))),
            ("bytes=100-", None),
            ("bytes=9-3", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(part(range, 100), found, "{range}");
        }
    }

    #[test]
    fn what_a_browser_would_run_is_a_download() {
        assert_eq!(content_type("x.HTML"), "application/octet-stream");
        assert_eq!(content_type("x.js"), "application/octet-stream");
        assert_eq!(content_type("x.PNG"), "image/png");
    }
}
