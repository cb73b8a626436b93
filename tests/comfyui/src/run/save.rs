//! The nodes that write files.

use std::io::Write as _;

use super::{Done, Inputs};
use crate::{
    execute::Run,
    files::{self, Target, TargetError},
    life::Halt,
    picture::Picture,
    py::{Value, dict, dumps},
};

/// Runs a saving node; a class that nobody knows leaves nothing.
pub(super) fn node(run: &Run<'_>, class: &str, input: &Inputs<'_>, suffix: &str) -> Result<Done, Halt> {
    match class {
        "SaveImage" => images(run, input, &input.text("filename_prefix"), "output", 4),
        "PreviewImage" => images(run, input, &format!("ComfyUI_temp_{suffix}"), "temp", 1),
        "SaveAnimatedWEBP" => {
            let pictures = input.images("images");
            let bytes = animation(&pictures, input.float("fps")).map_err(failed)?;
            one(run, input, &pictures, "webp", &bytes, true)
        }
        "SaveWEBM" => one(run, input, &input.images("images"), "webm", &sealed(WEBM, &input.images("images")), true),
        "SaveVideo" => one(run, input, &input.images("video"), "mp4", &sealed(MP4, &input.images("video")), true),
        "SaveLatent" => {
            let target = place(run, input, &[])?;
            let file = target.file(0, "latent");
            write(&target, &file, &latent(run))?;
            Ok(Done::showing(dict! { "latents" => Value::List(vec![entry(&file, &target, "output")]) }))
        }
        "SaveAudio" => {
            let target = place(run, input, &[])?;
            let file = target.file(0, "flac");
            write(&target, &file, &sealed(FLAC, &[]))?;
            Ok(Done::showing(dict! { "audio" => Value::List(vec![entry(&file, &target, "output")]) }))
        }
        _ => Ok(Done::with(Vec::new())),
    }
}

/// How such files begin; what follows is a digest of the frames, not a film.
const WEBM: &[u8] = &[0x1a, 0x45, 0xdf, 0xa3, 0x9f, 0x42, 0x86, 0x81, 0x01, 0x42, 0xf7, 0x81, 0x01, 0x42, 0xf2, 0x81];
const MP4: &[u8] = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41";
const FLAC: &[u8] = b"fLaC\x80\0\0\x22";

fn sealed(head: &[u8], pictures: &[Picture]) -> Vec<u8> {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for picture in pictures {
        hash.update(&picture.pixels);
    }
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(&hash.finalize());
    bytes
}

fn failed(error: impl std::fmt::Display) -> Halt {
    Halt::Raised {
        kind: "OSError".into(),
        text: error.to_string(),
        place: "nodes.py\", line 1606, in save_images".into(),
    }
}

fn place(run: &Run<'_>, input: &Inputs<'_>, pictures: &[Picture]) -> Result<Target, Halt> {
    at(run, &input.text("filename_prefix"), "output", pictures)
}

fn at(run: &Run<'_>, prefix: &str, folder: &str, pictures: &[Picture]) -> Result<Target, Halt> {
    let root = run.life.folders.of(folder).unwrap_or(&run.life.folders.output);
    let (width, height) = pictures.first().map_or((0, 0), |first| (first.width, first.height));
    files::target(prefix, root, width, height).map_err(|error| match error {
        TargetError::Outside { .. } => Halt::Raised {
            kind: "Exception".into(),
            text: error.to_string(),
            place: "folder_paths.py\", line 397, in get_save_image_path".into(),
        },
        TargetError::Io(error) => failed(error),
    })
}

fn write(target: &Target, file: &str, bytes: &[u8]) -> Result<(), Halt> {
    std::fs::write(target.folder.join(file), bytes).map_err(failed)
}

fn entry(file: &str, target: &Target, kind: &str) -> Value {
    dict! { "filename" => file, "subfolder" => target.subfolder.as_str(), "type" => kind }
}

/// The prompt and what the page sent along, as text chunks.
fn texts(run: &Run<'_>) -> Vec<(String, String)> {
    if !run.life.options.metadata {
        return Vec::new();
    }
    let mut texts = vec![("prompt".to_owned(), dumps(&Value::Dict(run.prompt.clone())))];
    for (key, value) in run.job.extra.get("extra_pnginfo").and_then(Value::as_dict).into_iter().flatten() {
        texts.push((key.clone(), dumps(value)));
    }
    texts
}

fn images(run: &Run<'_>, input: &Inputs<'_>, prefix: &str, kind: &str, level: u8) -> Result<Done, Halt> {
    let pictures = input.images("images");
    let target = at(run, prefix, kind, &pictures)?;
    let texts = texts(run);
    let mut saved = Vec::new();
    for (index, picture) in pictures.iter().enumerate() {
        let file = target.file(index as u64, "png");
        write(&target, &file, &files::png(picture, &texts, level).map_err(failed)?)?;
        saved.push(entry(&file, &target, kind));
    }
    Ok(Done::showing(dict! { "images" => Value::List(saved) }))
}

fn one(
    run: &Run<'_>,
    input: &Inputs<'_>,
    pictures: &[Picture],
    extension: &str,
    bytes: &[u8],
    animated: bool,
) -> Result<Done, Halt> {
    let target = place(run, input, pictures)?;
    let file = target.file(0, extension);
    write(&target, &file, bytes)?;
    let saved = Value::List(vec![entry(&file, &target, "output")]);
    Ok(Done::showing(dict! { "images" => saved, "animated" => vec![animated] }))
}

/// A safetensors file with an empty tensor and the prompt.
fn latent(run: &Run<'_>) -> Vec<u8> {
    let metadata = Value::Dict(texts(run).into_iter().map(|(key, text)| (key, Value::from(text))).collect());
    let tensor = |from: usize, to: usize, size: usize| {
        dict! { "dtype" => "F32", "shape" => vec![size], "data_offsets" => vec![from, to] }
    };
    let mut head = dumps(&dict! {
        "__metadata__" => metadata, "latent_format_version_0" => tensor(0, 0, 0), "latent_tensor" => tensor(0, 4, 1),
    });
    while !head.len().is_multiple_of(8) {
        head.push(' ');
    }
    let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(&0f32.to_le_bytes());
    bytes
}

/// An animated WebP: a container around frames that were encoded one by one. Frames that follow an equal one are merged
/// with it, as libwebp does; a single one becomes a still picture.
fn animation(pictures: &[Picture], fps: f64) -> Result<Vec<u8>, image::ImageError> {
    let each = (1000.0 / fps.max(0.01)) as u32;
    let mut frames: Vec<(&Picture, u32)> = Vec::new();
    for picture in pictures {
        match frames.last_mut() {
            Some((last, time)) if *last == picture => *time += each,
            _ => frames.push((picture, each)),
        }
    }
    let Some((first, _)) = frames.first() else { return Ok(Vec::new()) };
    if frames.len() == 1 {
        return first.webp();
    }
    let three = |number: u32| number.to_le_bytes()[..3].to_vec();
    let mut body = b"WEBPVP8X\x0a\0\0\0\x02\0\0\0".to_vec();
    body.extend(three(first.width - 1));
    body.extend(three(first.height - 1));
    body.extend_from_slice(b"ANIM\x06\0\0\0\0\0\0\0\0\0");
    for (picture, time) in frames {
        let still = picture.webp()?;
        // Behind "RIFF", the size and "WEBP": the one chunk with the pixels.
        let pixels = still.get(12..).unwrap_or_default();
        let mut frame = [three(0), three(0), three(picture.width - 1), three(picture.height - 1), three(time)].concat();
        // Not blended with the frame before: that would round.
        frame.push(2);
        frame.extend_from_slice(pixels);
        body.extend_from_slice(b"ANMF");
        body.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        body.extend_from_slice(&frame);
    }
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&(body.len() as u32).to_le_bytes());
    file.write_all(&body).map_err(image::ImageError::IoError)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_animation_is_one_that_a_decoder_takes() {
        use image::AnimationDecoder as _;
        let pictures: Vec<Picture> = (0..3).map(|seed| Picture::photo(64, 48, false, seed)).collect();
        let bytes = animation(&pictures, 6.0).unwrap();
        let decoder = image::codecs::webp::WebPDecoder::new(std::io::Cursor::new(&bytes)).unwrap();
        assert!(decoder.has_animation());
        let frames = decoder.into_frames().collect_frames().unwrap();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[1].buffer().get_pixel(5, 7).0[..3], pictures[1].at(5, 7));
        let still = animation(&vec![pictures[0].clone(); 4], 6.0).unwrap();
        assert_eq!(Picture::decode(&still).unwrap(), pictures[0]);
    }
}
