//! `POST /upload/image` and `/upload/mask`

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    extract::{FromRequest as _, Multipart, Request, State},
    response::Response,
};
use bytes::Bytes;
use hyper::StatusCode;

use crate::{
    files::{normal, png},
    graph::annotated,
    http::{Refused, body, json},
    life::Life,
    picture::Picture,
    py::{self, Value, dict},
};

struct Form {
    words: HashMap<String, String>,
    image: Option<(String, Bytes)>,
}

pub(crate) async fn image(State(life): State<Arc<Life>>, request: Request) -> Response {
    upload(&life, request, |_, bytes, path| std::fs::write(path, bytes).map_err(|_| Refused::Crash)).await
}

pub(crate) async fn mask(State(life): State<Arc<Life>>, request: Request) -> Response {
    let folders = life.folders.clone();
    upload(&life, request, move |form, bytes, path| {
        let original = form.words.get("original_ref").and_then(|text| py::parse(text).ok()).ok_or(Refused::Crash)?;
        let word = |key: &str| original.get(key).and_then(Value::as_str).unwrap_or_default();
        let (name, folder) = annotated(word("filename"));
        let kind = folder.or(original.get("type").and_then(Value::as_str)).unwrap_or("output");
        // ComfyUI forgets about a refusal here: it answers as if the file had been written.
        let Some(folder) = folders.of(kind) else { return Ok(()) };
        let place = normal(&folder.join(word("subfolder")).join(name));
        if name.is_empty() || name.starts_with('/') || name.contains("..") || !place.starts_with(folder) {
            return Ok(());
        }
        let Ok(old) = std::fs::read(place) else { return Ok(()) };
        let masked = masked(&old, bytes).ok_or(Refused::Crash)?;
        std::fs::write(path, png(&masked, &[], 4).map_err(|_| Refused::Crash)?).map_err(|_| Refused::Crash)
    })
    .await
}

/// The picture with the other one's alpha.
fn masked(picture: &[u8], mask: &[u8]) -> Option<Picture> {
    let (picture, mask) = (image::load_from_memory(picture).ok()?, image::load_from_memory(mask).ok()?);
    let (mut picture, mask) = (picture.into_rgba8(), mask.into_rgba8());
    if picture.dimensions() != mask.dimensions() {
        return None;
    }
    for (pixel, mask) in picture.pixels_mut().zip(mask.pixels()) {
        pixel.0[3] = mask.0[3];
    }
    Some(Picture { width: picture.width(), height: picture.height(), alpha: true, pixels: picture.into_raw() })
}

async fn upload(
    life: &Life,
    request: Request,
    save: impl FnOnce(&Form, &[u8], &Path) -> Result<(), Refused>,
) -> Response {
    let answer = async {
        let form = form(life, request).await?;
        let word = |key: &str| form.words.get(key).map(String::as_str);
        let kind = word("type").unwrap_or("input");
        let folder = life.folders.of(kind).ok_or(Refused::Crash)?;
        // A text in the place of the picture has no file to read.
        if form.words.contains_key("image") {
            return Err(Refused::Crash);
        }
        let Some((name, bytes)) = &form.image else { return Err(Refused::Bad) };
        let subfolder = word("subfolder").unwrap_or_default();
        let place = normal(&folder.join(subfolder));
        let mut path = normal(&place.join(name));
        if !path.starts_with(folder) {
            return Err(Refused::Bad);
        }
        std::fs::create_dir_all(&place).map_err(|_| Refused::Crash)?;
        let mut name = name.clone();
        let mut same = false;
        if !matches!(word("overwrite"), Some("true" | "1")) {
            (name, path, same) = free_name(&place, name, path, bytes);
        }
        if !same {
            save(&form, bytes, &path)?;
        }
        Ok(json(StatusCode::OK, &dict! { "name" => name, "subfolder" => subfolder, "type" => kind }))
    };
    answer.await.unwrap_or_else(Refused::response)
}

/// A name that is not taken, or that is taken by the same content.
fn free_name(place: &Path, name: String, path: PathBuf, bytes: &[u8]) -> (String, PathBuf, bool) {
    let (stem, end) = match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name.as_str(), ""),
    };
    let mut at = (name.clone(), path);
    let mut count = 1;
    while at.1.exists() {
        if std::fs::read(&at.1).is_ok_and(|old| old == bytes) {
            return (at.0, at.1, true);
        }
        let next = format!("{stem} ({count}){end}");
        at = (next.clone(), place.join(next));
        count += 1;
    }
    (at.0, at.1, false)
}

async fn form(life: &Life, request: Request) -> Result<Form, Refused> {
    let (parts, raw) = request.into_parts();
    // Read whole first, so that the limit is the one of all requests.
    let bytes = body(life, Request::from_parts(parts.clone(), raw)).await?;
    let mut form = Form { words: HashMap::new(), image: None };
    let request = Request::from_parts(parts, axum::body::Body::from(bytes));
    let Ok(mut fields) = Multipart::from_request(request, &()).await else { return Ok(form) };
    while let Ok(Some(field)) = fields.next_field().await {
        let name = field.name().unwrap_or_default().to_owned();
        let file = field.file_name().map(str::to_owned);
        let bytes = field.bytes().await.map_err(|_| Refused::Crash)?;
        match file {
            Some(file) if name == "image" && !file.is_empty() => form.image = Some((file, bytes)),
            _ => {
                form.words.insert(name, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    Ok(form)
}
