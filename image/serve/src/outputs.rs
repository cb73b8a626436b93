//! Which of a job's outputs is the answer. Pure.

use bytes::Bytes;
use serde_json::{Map, Value};

/// A file that ComfyUI wrote.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct File {
    pub(crate) filename: String,
    pub(crate) subfolder: String,
    /// `output` or `temp`.
    pub(crate) kind: String,
}

/// What a job made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// A file, to be fetched.
    File(File),
    /// A text.
    Text(String),
    /// A picture that came on the socket: its media type and bytes.
    Picture(&'static str, Bytes),
}

impl Item {
    /// A picture, video or sound that was meant to be kept: what comes first.
    pub(crate) fn is_saved(&self) -> bool {
        rank(self) == 0
    }
}

/// Something that a node made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) node: String,
    pub(crate) item: Item,
}

/// A picture that came on the socket, and the node that was running.
pub(crate) type Frame = (String, &'static str, Bytes);

/// Everything that a job made, best first: pictures, videos and sounds that were saved, then previews of them, then
/// other files, then texts; within each by the node's place in the workflow, then by index. ComfyUI runs output nodes
/// in an order that differs from process to process, so the order of `outputs` means nothing.
pub(crate) fn found(outputs: &Map<String, Value>, frames: &[Frame], nodes: &[String]) -> Vec<Found> {
    let place = |node: &str| nodes.iter().position(|id| id == node).unwrap_or(usize::MAX);
    let mut found: Vec<(u8, usize, Found)> = Vec::new();
    for (node, output) in outputs {
        for (key, list) in output.as_object().into_iter().flatten() {
            for value in list.as_array().into_iter().flatten() {
                let item = match value {
                    Value::Object(_) => file(value).map(Item::File),
                    Value::String(text) if key == "text" => Some(Item::Text(text.clone())),
                    _ => None,
                };
                let Some(item) = item else { continue };
                found.push((rank(&item), place(node), Found { node: node.clone(), item }));
            }
        }
    }
    for (node, kind, bytes) in frames {
        let item = Item::Picture(kind, bytes.clone());
        found.push((0, place(node), Found { node: node.clone(), item }));
    }
    // Stable: within a node the order stays.
    found.sort_by_key(|(rank, place, _)| (*rank, *place));
    found.into_iter().map(|(_, _, found)| found).collect()
}

/// The files among a job's outputs, of the nodes that ran.
pub(crate) fn files<'a>(
    outputs: &'a Map<String, Value>,
    ran: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = File> + 'a {
    outputs
        .iter()
        .filter(move |(node, _)| ran(node))
        .filter_map(|(_, output)| output.as_object())
        .flat_map(|output| output.values().filter_map(Value::as_array).flatten())
        .filter_map(file)
}

fn file(value: &Value) -> Option<File> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(File {
        filename: text("filename")?,
        subfolder: text("subfolder").unwrap_or_default(),
        kind: text("type").unwrap_or_else(|| "output".into()),
    })
}

fn rank(item: &Item) -> u8 {
    match item {
        Item::File(file) => match (is_media(&file.filename), file.kind == "output") {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        },
        Item::Picture(..) => 0,
        Item::Text(_) => 3,
    }
}

/// Whether it is a picture, video or sound.
fn is_media(filename: &str) -> bool {
    media_type(filename)
        .is_some_and(|kind| ["image/", "video/", "audio/"].iter().any(|family| kind.starts_with(family)))
}

/// The media type of a file by its name: what ComfyUI's own nodes write, and what others often do. ComfyUI itself knows
/// only what Python's table knows.
pub(crate) fn media_type(filename: &str) -> Option<&'static str> {
    let (_, extension) = filename.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "png" | "apng" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "avif" => "image/avif",
        "bmp" => "image/bmp",
        "tif" | "tiff" => "image/tiff",
        "svg" => "image/svg+xml",
        "jxl" => "image/jxl",
        "heic" => "image/heic",
        "exr" => "image/x-exr",
        "hdr" => "image/vnd.radiance",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "mkv" => "video/x-matroska",
        "mov" => "video/quicktime",
        "avi" => "video/x-msvideo",
        "flac" => "audio/flac",
        "mp3" => "audio/mpeg",
        "ogg" | "opus" => "audio/ogg",
        "wav" => "audio/wav",
        "m4a" => "audio/mp4",
        "aac" => "audio/aac",
        "glb" => "model/gltf-binary",
        "gltf" => "model/gltf+json",
        "obj" => "model/obj",
        "stl" => "model/stl",
        "txt" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "srt" => "application/x-subrip",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(outputs: &Value, nodes: &[&str]) -> Vec<String> {
        let nodes: Vec<String> = nodes.iter().map(|id| (*id).to_owned()).collect();
        found(outputs.as_object().expect("an object"), &[], &nodes)
            .into_iter()
            .map(|found| match found.item {
                Item::File(file) => file.filename,
                Item::Text(text) => format!("\"{text}\""),
                Item::Picture(kind, _) => kind.to_owned(),
            })
            .collect()
    }

    #[test]
    fn by_rule() {
        let image = |name: &str, kind: &str| json!({"filename": name, "subfolder": "", "type": kind});
        let outputs = json!({
            "9": {"images": [image("p.png", "temp")]},
            "5": {"images": [image("b0.png", "output"), image("b1.png", "output")], "animated": [false]},
            "2": {"images": [image("a0.webp", "output")], "animated": [true]},
            "7": {"text": ["hello"]},
            "8": {"latents": [image("l.latent", "output")]},
            "x": {"audio": [image("s.flac", "output")]},
        });
        let order = ["a0.webp", "b0.png", "b1.png", "s.flac", "p.png", "l.latent", "\"hello\""];
        assert_eq!(names(&outputs, &["9", "8", "7", "2", "5"]), order);
        let order = ["b0.png", "b1.png", "a0.webp", "s.flac", "p.png", "l.latent", "\"hello\""];
        assert_eq!(names(&outputs, &["5", "2"]), order);
        assert_eq!(names(&json!({}), &["7"]), [""; 0]);
        assert_eq!(names(&json!({"1": {"images": [{"type": "output"}, 5, null], "ui": 3}, "2": 7}), &["1"]), [""; 0]);
    }

    #[test]
    fn types_by_name() {
        for (name, expected) in [
            ("a.SVG", Some("image/svg+xml")),
            ("a.b.tiff", Some("image/tiff")),
            ("mesh/a.glb", Some("model/gltf-binary")),
            ("a.txt", Some("text/plain; charset=utf-8")),
            ("a.json", Some("application/json")),
            ("a.bmp", Some("image/bmp")),
            ("a.latent", None),
            ("a.safetensors", None),
            ("a.html", None),
            ("png", None),
        ] {
            assert_eq!(media_type(name), expected, "{name}");
        }
        // A text is no picture, whatever is known of it.
        let file = |name: &str| json!({"files": [{"filename": name, "type": "output"}]});
        let outputs = json!({"1": file("a.json"), "2": file("a.txt"), "3": file("a.svg"), "4": file("a.glb")});
        assert_eq!(names(&outputs, &["1", "2", "3", "4"]), ["a.svg", "a.json", "a.txt", "a.glb"]);
    }

    #[test]
    fn pictures_of_the_socket_count_as_saved() {
        let outputs = json!({"1": {"images": [{"filename": "p.png", "type": "temp"}]}});
        let frames = [("2".to_owned(), "image/png", Bytes::from_static(b"x"))];
        let nodes = ["1".to_owned(), "2".to_owned()];
        let found = found(outputs.as_object().expect("an object"), &frames, &nodes);
        assert_eq!(found[0], Found { node: "2".into(), item: Item::Picture("image/png", Bytes::from_static(b"x")) });
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn files_of_nodes_that_ran() {
        let outputs = json!({"1": {"images": [{"filename": "a.png"}]}, "2": {"gifs": [{"filename": "b.gif"}]}});
        let files: Vec<File> = files(outputs.as_object().expect("an object"), |node| node == "2").collect();
        assert_eq!(files, [File { filename: "b.gif".into(), subfolder: String::new(), kind: "output".into() }]);
    }
}
