//! The program: flags, signals, and a node that ends the process.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use comfyui_stand_in::py::{self, Value};

use crate::{
    replay::{Plain, line, list, recorded_lines, recording, same_lines},
    support::{Listener, PATIENCE, get, post, wait},
};

/// A running program; killed when dropped.
struct Program {
    child: Child,
    port: u16,
    base: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(before: &str, extra: &[&str]) -> Self {
        let base = tempfile::tempdir().unwrap();
        Self::start_in(base, before, extra)
    }

    /// `before` is shell code that runs first in the same process.
    fn start_in(base: tempfile::TempDir, before: &str, extra: &[&str]) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{before} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_comfyui-stand-in")])
            .args(["--port", "0", "--cpu", "--disable-auto-launch", "--base-directory"])
            .arg(base.path())
            .args(extra)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = lines
            .find_map(|line| line.unwrap().rsplit_once(':').and_then(|(_, port)| port.parse().ok()))
            .expect("it says where it listens");
        // What it says later must find a reader.
        std::thread::spawn(move || lines.count());
        Program { child, port, base }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn end(&mut self) -> ExitStatus {
        wait("the process to end", || self.child.try_wait().unwrap())
    }
}

fn sleeping(id: &str, last: &str) -> String {
    format!(
        r#"{{"prompt":{{"0":{{"class_type":"EmptyImage","inputs":{{"width":64,"height":64,"batch_size":1,"color":5}}}},
        "1":{{"class_type":"TestSleep","inputs":{{"image":["0",0],"seconds":1.0,"steps":2,"previews":false,"seed":1}}}},
        {last}}},"client_id":"c","prompt_id":"{id}"}}"#
    )
}

const THEN_EXIT: &str = r#""2":{"class_type":"TestExit","inputs":{"image":["1",0]}},
    "3":{"class_type":"PreviewImage","inputs":{"images":["2",0]}}"#;
const THEN_SAVE: &str = r#""2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}"#;

#[test]
fn a_crash_in_a_node_ends_connections_and_memory() {
    let recording = recording("comfyui_killed_mid_prompt");
    let mut program = Program::start("", &[]);
    let mut listener = Listener::open(program.port, "c");
    post(program.port, "/prompt", &sleeping("mine", THEN_EXIT));
    let end = loop {
        if let Err(error) = listener.next(PATIENCE) {
            break error.to_string();
        }
    };
    assert!(end.contains("without") || end.contains("reset"), "no close frame: {end}");
    assert!(!program.end().success());
    let messages = list(&recording, "ws_messages");
    let id = py::str_of(messages[3].get("text").and_then(|text| text.get("data")?.get("prompt_id")).unwrap());
    let sid = py::str_of(messages[0].get("text").and_then(|text| text.get("data")?.get("sid")).unwrap());
    let theirs = recorded_lines(&Plain::new([(id, "<prompt>"), (sid, "<client>")]), messages);
    let plain = Plain::new([("mine".to_owned(), "<prompt>"), ("c".to_owned(), "<client>")]);
    let ours: Vec<String> = listener.seen.iter().map(|frame| line(&plain, frame)).collect();
    // Ours dies one node later, as the recorded one died within its sleeping node.
    same_lines("killed", &ours[..theirs.len()], &theirs);
    assert!(std::net::TcpStream::connect(("127.0.0.1", program.port)).is_err());
    let again = Program::start("", &[]);
    assert_eq!(get(again.port, "/history/mine").text(), "{}");
    assert_eq!(get(again.port, "/queue").text(), r#"{"queue_running": [], "queue_pending": []}"#);
}

#[test]
fn sigterm_ends_it_at_once_and_leaves_temp() {
    let mut program = Program::start("", &["--stand-in-shutdown-ms", "60000"]);
    let mut listener = Listener::open(program.port, "c");
    post(program.port, "/prompt", &sleeping("mine", THEN_SAVE));
    listener.until(|frame| frame.is_step(1));
    program.signal("TERM");
    let status = program.end();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    assert!(listener.next(PATIENCE).is_err());
    assert!(program.base.path().join("temp").is_dir());
    // As in the recording: the last that was heard was progress.
    let recording = recording("comfyui_sigterm_mid_prompt");
    let last = list(&recording, "last_messages").last().unwrap().get("text").unwrap();
    assert_eq!(listener.seen.last().unwrap().kind(), py::str_of(last.get("type").unwrap()));
}

#[test]
fn sigint_ends_it_well_after_its_time() {
    let mut program = Program::start("", &["--stand-in-shutdown-ms", "300"]);
    std::fs::write(program.base.path().join("temp/left.png"), "x").unwrap();
    let mut listener = Listener::open(program.port, "c");
    post(program.port, "/prompt", &sleeping("mine", THEN_SAVE));
    listener.until(|frame| frame.is_step(1));
    let start = Instant::now();
    program.signal("INT");
    assert_eq!(program.end().code(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(!program.base.path().join("temp").exists());
    assert!(listener.seen.iter().all(|frame| !frame.is_end()), "the prompt is lost");
}

#[test]
fn sigint_that_is_ignored_from_the_start_stays_ignored() {
    let recording = recording("comfyui_sigint_mid_prompt");
    let mut program = Program::start("trap '' INT;", &[]);
    let mut listener = Listener::open(program.port, "c");
    post(program.port, "/prompt", &sleeping("mine", THEN_SAVE));
    listener.until(|frame| frame.is_step(1));
    program.signal("INT");
    listener.until_end();
    assert!(program.child.try_wait().unwrap().is_none());
    let recorded: Vec<String> = list(&recording, "last_messages")
        .iter()
        .map(|message| message.get("text").and_then(|text| text.get("type")).map(py::str_of).unwrap())
        .collect();
    let ours: Vec<String> = listener.seen.iter().map(crate::support::Frame::kind).collect();
    assert_eq!(ours[ours.len() - recorded.len()..], recorded);
}

#[test]
fn temp_is_emptied_at_the_start_and_a_taken_port_is_an_error() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("temp")).unwrap();
    std::fs::write(base.path().join("temp/old.png"), "x").unwrap();
    let program = Program::start_in(base, "", &[]);
    assert!(!program.base.path().join("temp/old.png").exists());
    let other = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_comfyui-stand-in"))
        .args(["--port", &program.port.to_string(), "--base-directory"])
        .arg(other.path())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let status = Command::new(env!("CARGO_BIN_EXE_comfyui-stand-in")).arg("--nonsense").stderr(Stdio::null()).status();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[test]
fn models_come_from_extra_paths() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(base.path().join("m/checkpoints")).unwrap();
    std::fs::write(base.path().join("m/checkpoints/sd.safetensors"), "").unwrap();
    let yaml = base.path().join("extra.yaml");
    std::fs::write(&yaml, format!("x:\n  base_path: {}/m\n  checkpoints: checkpoints\n", base.path().display()))
        .unwrap();
    let program = Program::start("", &["--extra-model-paths-config", yaml.to_str().unwrap()]);
    let info = get(program.port, "/object_info/CheckpointLoaderSimple").json();
    let shown = py::dumps(&info);
    assert!(shown.contains(r#""ckpt_name": [["sd.safetensors"]"#), "{shown}");
    assert_eq!(get(program.port, "/models/checkpoints").json(), Value::from(vec!["sd.safetensors"]));
}
