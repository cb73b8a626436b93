//! Sends what was sent to ComfyUI when `recordings/` were made, and compares what comes back.
//!
//! What is not compared as it is, and why:
//! - Prompt ids, client ids, times and queue numbers are made anew at each run: they are replaced by words.
//! - The five digits in file names count what was saved before, and the five letters in the names of previews are
//!   random: both are replaced.
//! - `executed` and `current_outputs` of an error come from Python sets: they are sorted. The order of output nodes does
//!   too, but it decides the order of messages: the salt is chosen so that it is the recorded one.
//! - Pictures differ (another compressor, other content), so lengths and everything after a file's magic bytes do. WebP
//!   carries its length among those, and a `.latent` starts with one.
//! - Some recordings begin after the greeting: it is left out on both sides.
//! - `Date`, `Last-Modified` and `Etag` are compared by shape. `Content-Length` must fit the body, and the body must be
//!   what Python's `json.dumps` makes of its value.
//! - Tracebacks were cut to one line per frame in the recordings, so their answers were longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use crate::support::{Answer, Frame, Listener, ask, get};
use comfyui_stand_in::{
    CacheMode, Options, Picture, StandIn,
    py::{self, Dict, Value},
    set_order,
};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings")
}

pub fn recording(name: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(format!("{name}.json"))).unwrap();
    py::parse(&text).unwrap()
}

pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(value, |value, key| {
        let found = match (value, key.parse::<usize>()) {
            (Value::List(list), Ok(index)) => list.get(index),
            _ => value.get(key),
        };
        found.unwrap_or_else(|| panic!("no {path} in {}", py::dumps(value)))
    })
}

pub fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_list().unwrap()
}

/// Prompts that run by themselves, and what ran before them.
const RUNS: [(&str, &[&str]); 30] = [
    ("after_error_ok", &["exec_error"]),
    ("animated_webp", &[]),
    ("batch_of_3", &[]),
    ("cache_lru_run1", &[]),
    ("cache_lru_run2", &["cache_lru_run1"]),
    ("cache_none_run1", &[]),
    ("cache_none_run2", &["cache_none_run1"]),
    ("client_prompt_id", &["exec_error"]),
    ("client_prompt_id_int", &[]),
    ("client_prompt_id_reused", &["client_prompt_id"]),
    ("exec_error", &[]),
    ("exec_error_again", &["exec_error"]),
    ("exec_error_partial_outputs", &["exec_error"]),
    ("load_scale_save", &[]),
    ("preview_any_text", &[]),
    ("preview_image_ok", &[]),
    ("progress_and_previews_metadata", &["exec_error"]),
    ("progress_and_previews_plain", &["exec_error"]),
    ("save_image_all_cached", &["save_image_ok"]),
    ("save_image_alpha", &[]),
    ("save_image_ok", &[]),
    ("save_image_websocket", &[]),
    ("save_latent", &[]),
    ("save_video_mp4", &["save_webm"]),
    ("save_webm", &[]),
    ("sd15_tiny_first", &[]),
    ("sd15_tiny_other_seed", &["sd15_tiny_first"]),
    ("sd15_tiny_other_text", &["sd15_tiny_first"]),
    ("sd15_tiny_same_seed", &["sd15_tiny_first"]),
    ("two_save_nodes", &[]),
];

/// The same prompt, once and once again, with metadata switched off.
const WITHOUT_METADATA: [(&str, &[&str]); 2] =
    [("tmpfs_nometa_run1", &[]), ("tmpfs_nometa_run2", &["tmpfs_nometa_run1"])];

/// One request and its answer.
const EXCHANGES: [&str; 30] = [
    "err_bad_json",
    "err_cycle",
    "err_empty_body",
    "err_empty_prompt",
    "err_json_array",
    "err_json_null",
    "err_link_bad_slot",
    "err_link_len3",
    "err_link_to_missing_node",
    "err_link_type_mismatch",
    "err_load_image_missing_file",
    "err_missing_class_type",
    "err_missing_inputs_key",
    "err_nan",
    "err_no_outputs",
    "err_no_prompt_key",
    "err_not_utf8",
    "err_prompt_list",
    "err_prompt_list_nonempty",
    "err_prompt_null",
    "err_prompt_string",
    "err_required_input_missing",
    "err_ui_format",
    "err_unknown_class",
    "err_value_not_in_list_ckpt",
    "err_value_too_big",
    "err_value_wrong_type",
    "get_prompt",
    "ok_numeric_strings_coerced",
    "partial_one_output_invalid",
];

/// Those that need more than that, each with a test of its own here, in `sockets.rs` or in `process.rs`.
const SPECIAL: [&str; 14] = [
    "cancel_queued",
    "comfyui_killed_mid_prompt",
    "comfyui_sigint_mid_prompt",
    "comfyui_sigterm_mid_prompt",
    "interrupt_running_targeted",
    "ok_unknown_extra_input_ignored",
    "ok_wrong_content_type",
    "one_client_two_prompts",
    "two_clients",
    "upload_image",
    "ws_reconnect_after_abrupt_drop",
    "ws_reconnect_after_clean_close",
    "ws_same_id_old_socket_closed_later",
    "ws_stalled_client_blocks_all",
];

#[test]
fn every_recording_is_replayed_somewhere() {
    let there: BTreeSet<String> = directory()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "INDEX")
        .collect();
    let runs = RUNS.iter().chain(&WITHOUT_METADATA).map(|(name, _)| *name);
    let replayed: Vec<&str> = runs.chain(EXCHANGES).chain(SPECIAL).collect();
    let unique: BTreeSet<String> = replayed.iter().map(ToString::to_string).collect();
    assert_eq!(unique, there);
    assert_eq!(replayed.len(), unique.len(), "one is listed twice");
    let index = recording("INDEX");
    assert_eq!(at(&index, "files").as_dict().unwrap().keys().cloned().collect::<BTreeSet<_>>().len(), there.len());
}

/// Words that stand for what is made anew at each run.
pub struct Plain {
    words: Vec<(String, &'static str)>,
}

impl Plain {
    pub fn new(ids: impl IntoIterator<Item = (String, &'static str)>) -> Self {
        Plain { words: ids.into_iter().filter(|(id, _)| !id.is_empty()).collect() }
    }

    fn text(&self, text: &str) -> String {
        if let Some((_, word)) = self.words.iter().find(|(id, _)| id == text) {
            return (*word).to_owned();
        }
        let mut text = text.to_owned();
        if let Some(at) = text.find("_temp_") {
            text.replace_range(at + 6..at + 11, "?????");
        }
        // `name_00012_.png`
        let bytes = text.as_bytes();
        let counter = (0..bytes.len().saturating_sub(6)).find(|at| {
            bytes[*at] == b'_' && bytes[at + 6] == b'_' && bytes[at + 1..at + 6].iter().all(u8::is_ascii_digit)
        });
        if let Some(at) = counter {
            text.replace_range(at + 1..at + 6, "00000");
        }
        text
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::Str(text) => Value::Str(self.text(text)),
            Value::List(list) => Value::List(list.iter().map(|item| self.value(item)).collect()),
            Value::Dict(dict) => Value::Dict(dict.iter().map(|(key, item)| self.member(key, item)).collect::<Dict>()),
            other => other.clone(),
        }
    }

    fn member(&self, key: &str, value: &Value) -> (String, Value) {
        let value = match (key, value) {
            ("timestamp" | "t_ms", _) => Value::Int(0),
            ("number", _) => Value::Int(0),
            ("executed" | "current_outputs", Value::List(ids)) => {
                let mut ids: Vec<String> = ids.iter().map(py::str_of).collect();
                ids.sort();
                Value::from(ids)
            }
            // A prompt in the history or queue begins with its number.
            ("prompt", Value::List(parts)) => {
                let mut parts: Vec<Value> = parts.iter().map(|part| self.value(part)).collect();
                parts[0] = Value::Int(0);
                Value::List(parts)
            }
            _ => self.value(value),
        };
        (self.text(key), value)
    }
}

/// A message as one line: the text, or for a binary frame what of it does not depend on the picture.
pub fn line(plain: &Plain, frame: &Frame) -> String {
    match frame {
        Frame::Text(message) => shown(plain, message),
        Frame::Binary(bytes) => binary(plain, bytes),
    }
}

pub fn shown(plain: &Plain, message: &Value) -> String {
    py::dumps(&plain.value(message))
}

fn binary(plain: &Plain, head: &[u8]) -> String {
    match head[3] {
        // Event, format, and how such a file begins.
        1 => format!("BIN1 {:?}", &head[4..12]),
        // Event, and the metadata as far as a recording has it, up to the prompt's id.
        _ => {
            let text = String::from_utf8_lossy(&head[8..]).into_owned();
            let id = text.split("\"prompt_id\": \"").nth(1).unwrap_or_default();
            let id = id.split('"').next().unwrap_or_default();
            let known = plain.words.iter().any(|(known, _)| known.starts_with(id) && !id.is_empty());
            format!("BIN{} {} {known}", head[3], text.split("\"prompt_id\"").next().unwrap_or_default())
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

pub fn recorded_lines(plain: &Plain, messages: &[Value]) -> Vec<String> {
    let line = |message: &Value| match message.get("text") {
        Some(text) => shown(plain, text),
        None => binary(plain, &hex(at(message, "first_64_hex").as_str().unwrap())),
    };
    messages.iter().map(line).collect()
}

/// Compares line by line, so that a difference can be read.
pub fn same_lines(name: &str, ours: &[String], recorded: &[String]) {
    for (index, (ours, recorded)) in ours.iter().zip(recorded).enumerate() {
        assert_eq!(ours, recorded, "{name}: message {index}");
    }
    assert_eq!(ours.len(), recorded.len(), "{name}: {:?} {:?}", ours.last(), recorded.last());
}

/// Compares an answer with a recorded one: status, headers, and the form of the body.
fn same_answer(name: &str, ours: &Answer, recorded: &Value) {
    assert_eq!(Value::from(u64::from(ours.status)), *at(recorded, "status"), "{name}: {}", ours.text());
    for (header, value) in at(recorded, "headers").as_dict().unwrap() {
        let (header, value) = (header.to_lowercase(), value.as_str().unwrap());
        let got = ours.header(&header);
        match header.as_str() {
            "date" | "last-modified" => assert!(got.ends_with(" GMT") && got.len() == value.len(), "{name}: {got}"),
            "content-length" => assert_eq!(got, ours.body.len().to_string(), "{name}"),
            "etag" => {
                let (time, size) = got.trim_matches('"').split_once('-').unwrap();
                assert_eq!((time.len(), size), (16, format!("{:x}", ours.body.len()).as_str()), "{name}: {got}");
            }
            _ => assert_eq!(Plain::new([]).text(got), Plain::new([]).text(value), "{name}: {header}"),
        }
    }
    if at(recorded, "headers").get("Connection").is_none() {
        assert_eq!(ours.header("connection"), "", "{name}");
    }
    if ours.header("content-type").starts_with("application/json") {
        assert_eq!(ours.text(), py::dumps(&ours.json()), "{name}: not as Python writes it");
    }
    if let Some(text) = recorded.get("text") {
        assert_eq!(ours.text(), text.as_str().unwrap(), "{name}");
    }
}

fn send_recorded(port: u16, recorded: &Value) -> Answer {
    let request = at(recorded, "request");
    let body = match (request.get("json"), request.get("raw_body").and_then(Value::as_str)) {
        (Some(json), _) => py::dumps(json).into_bytes(),
        // The recording does not say which; any four that are not UTF-8 do.
        (None, Some("<4 bytes>")) => vec![0xff, 0xfe, 0x00, 0x80],
        (None, Some(raw)) => raw.as_bytes().to_vec(),
        (None, None) => Vec::new(),
    };
    let word = |key: &str| at(request, key).as_str().unwrap().to_owned();
    ask(port, &word("method"), &word("path"), &[("Content-Type", "application/json")], &body).unwrap()
}

#[test]
fn single_exchanges() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    for name in EXCHANGES.iter().chain(&["ok_unknown_extra_input_ignored"]) {
        exchange(&stand_in, name);
    }
}

fn exchange(stand_in: &StandIn, name: &str) {
    let recorded = recording(name);
    let answer = send_recorded(stand_in.port(), &recorded);
    compare_exchange(name, &answer, at(&recorded, "response"));
}

fn compare_exchange(name: &str, answer: &Answer, recorded: &Value) {
    same_answer(name, answer, recorded);
    if let Some(json) = recorded.get("json") {
        let id = |value: &Value| value.get("prompt_id").map(py::str_of).unwrap_or_default();
        let ours = answer.json();
        let (a, b) = (Plain::new([(id(&ours), "<prompt>")]), Plain::new([(id(json), "<prompt>")]));
        assert_eq!(shown(&a, &ours), shown(&b, json), "{name}");
        // Where nothing was cut, even the length is the recorded one, but for the digits of the number.
        let cut = py::dumps(json).contains("traceback");
        if !cut && ours.get("number").is_none() {
            assert_eq!(answer.header("content-length"), py::str_of(at(recorded, "headers/Content-Length")), "{name}");
        }
    }
}

#[test]
fn any_content_type_will_do() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    let recorded = recording("ok_wrong_content_type");
    let body = at(&recorded, "request/raw_body").as_str().unwrap();
    let answer = ask(stand_in.port(), "POST", "/prompt", &[("Content-Type", "text/plain")], body.as_bytes()).unwrap();
    compare_exchange("ok_wrong_content_type", &answer, at(&recorded, "response"));
}

fn upload(port: u16, name: &str, bytes: &[u8]) -> Answer {
    let mut body = Vec::new();
    for (field, value) in [("type", "input"), ("overwrite", "true")] {
        let part = format!("--b\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let head = format!("--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n");
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n--b--\r\n");
    ask(port, "POST", "/upload/image", &[("Content-Type", "multipart/form-data; boundary=b")], &body).unwrap()
}

/// A PNG file of some size.
fn png() -> Vec<u8> {
    let picture = Picture::photo(100, 80, false, 5);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&picture.pixels).unwrap();
    bytes
}

#[test]
fn an_upload() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    let answer = upload(stand_in.port(), "in.png", &png());
    compare_exchange("upload_image", &answer, at(&recording("upload_image"), "response"));
    assert_eq!(std::fs::read(stand_in.input_directory().join("in.png")).unwrap(), png());
}

/// A salt under which sets of output nodes have the recorded order.
fn salt(recorded: &Value) -> u64 {
    let Some(entry) = recorded.get("history").and_then(|history| history.get("json")) else { return 0 };
    let (_, entry) = entry.as_dict().unwrap().first().unwrap();
    let outputs: Vec<String> = list(entry, "prompt/4").iter().map(py::str_of).collect();
    (0..10_000).find(|seed| set_order(*seed, &outputs) == outputs).expect("some salt gives every order")
}

fn options(name: &str, recorded: &Value) -> Options {
    let cache = match name {
        _ if name.starts_with("cache_lru") => CacheMode::Lru(10),
        _ if name.starts_with("cache_none") => CacheMode::None,
        _ => CacheMode::Classic,
    };
    let metadata = !name.starts_with("tmpfs_nometa");
    Options { cache, metadata, hash_seed: Some(salt(recorded)), ..Options::default() }
}

/// Sends a recorded prompt, listens until its end, and compares all that was recorded.
fn replay_run(stand_in: &StandIn, name: &str, compare: bool) {
    let recorded = recording(name);
    let port = stand_in.port();
    let client = at(&recorded, "request/json/client_id").as_str().unwrap();
    let mut listener = Listener::open(port, client);
    let flags = name == "progress_and_previews_metadata";
    if flags {
        listener.say(r#"{"type": "feature_flags", "data": {"supports_preview_metadata": true}}"#);
        listener.until(|frame| frame.kind() == "feature_flags");
    }
    let answer = send_recorded(port, &recorded);
    listener.until_end();
    let frames = listener.close();
    if !compare {
        return;
    }
    compare_exchange(name, &answer, at(&recorded, "response"));
    let ours = answer.json();
    let id = py::str_of(at(&ours, "prompt_id"));
    let recorded_id = py::str_of(at(&recorded, "response/json/prompt_id"));
    let (plain, recorded_plain) =
        (Plain::new([(id.clone(), "<prompt>")]), Plain::new([(recorded_id.clone(), "<prompt>")]));

    let mut messages = recorded_lines(&recorded_plain, list(&recorded, "ws_messages"));
    let mut lines: Vec<String> = frames.iter().map(|frame| line(&plain, frame)).collect();
    for lines in [&mut messages, &mut lines] {
        lines.retain(|line| !line.contains("\"sid\"") && !line.contains("feature_flags"));
    }
    same_lines(name, &lines, &messages);

    let entry = get(port, &format!("/history/{id}"));
    same_answer(name, &entry, at(&recorded, "history"));
    let history = at(&recorded, "history/json");
    assert_eq!(shown(&plain, &entry.json()), shown(&recorded_plain, history), "{name}: history");

    for (index, view) in list(&recorded, "views").iter().enumerate() {
        let node = at(view, "node").as_str().unwrap();
        let key = at(view, "output_key").as_str().unwrap();
        let nth = list(&recorded, "views")[..index].iter().filter(|other| at(other, "node").as_str() == Some(node));
        let entry = entry.json();
        let file = at(&entry, &format!("{id}/outputs/{node}/{key}/{}", nth.count()));
        let word = |key: &str| at(file, key).as_str().unwrap();
        let (file, subfolder, kind) = (word("filename"), word("subfolder"), word("type"));
        let path = format!("/view?filename={file}&subfolder={subfolder}&type={kind}");
        assert_eq!(plain.text(&path), plain.text(at(view, "url").as_str().unwrap()), "{name}");
        let answer = get(port, &path);
        same_answer(name, &answer, view);
        let first = hex(at(view, "first_16_hex").as_str().unwrap());
        match file.rsplit('.').next() {
            Some("webp") => assert_eq!((&answer.body[..4], &answer.body[8..15]), (&first[..4], &first[8..15])),
            Some("latent") => assert_eq!(answer.body[8..16], first[8..16]),
            _ => assert_eq!(answer.body[..16], first[..], "{name}"),
        }
        let has_text = answer.body.windows(4).any(|window| window == b"tEXt");
        assert_eq!(has_text, file.ends_with(".png") && !name.starts_with("tmpfs_nometa"), "{name}");
    }
}

fn replay_with_past(name: &str, past: &[&str]) {
    let stand_in = StandIn::start(options(name, &recording(name))).unwrap();
    if name == "load_scale_save" {
        upload(stand_in.port(), "in.png", &png());
    }
    for before in past {
        replay_run(&stand_in, before, false);
    }
    replay_run(&stand_in, name, true);
}

#[test]
fn whole_runs() {
    let mut threads = BTreeMap::new();
    for (name, past) in RUNS.into_iter().chain(WITHOUT_METADATA) {
        threads.insert(name, std::thread::spawn(move || replay_with_past(name, past)));
    }
    let failed: Vec<&str> =
        threads.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
