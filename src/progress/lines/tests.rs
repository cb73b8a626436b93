use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Lines at times that the test sets.
struct Rig {
    now: Arc<AtomicU64>,
    written: Arc<Mutex<Vec<String>>>,
    lines: Lines,
}

fn rig() -> Rig {
    let now = Arc::new(AtomicU64::new(0));
    let written = Arc::new(Mutex::new(Vec::new()));
    let clock: Clock = {
        let now = now.clone();
        Arc::new(move || Duration::from_secs(now.load(Ordering::SeqCst)))
    };
    let sink: Sink = {
        let written = written.clone();
        Arc::new(move |line: &str| written.lock().expect("lock").push(line.to_owned()))
    };
    Rig { now, written, lines: Lines::new(clock, sink) }
}

impl Rig {
    fn at(&self, seconds: u64) -> &Lines {
        self.now.store(seconds, Ordering::SeqCst);
        &self.lines
    }

    fn text(&self) -> String {
        self.written.lock().expect("lock").join("\n")
    }
}

fn resource(id: &str, status: &str, reason: Option<&str>) -> Event {
    Event::Resource {
        stack: "comfy".into(),
        logical_id: id.into(),
        kind: "AWS::SageMaker::Endpoint".into(),
        status: status.into(),
        reason: reason.map(Into::into),
    }
}

#[test]
fn a_deployment_reads_well() {
    let rig = rig();
    rig.at(0).report(Event::Phase("Uploading and building".into()));
    rig.at(0).report(Event::Begin { task: Task::Model, label: "packing and uploading".into(), total: Some(6 << 30) });
    for second in 1..=40 {
        rig.at(second).report(Event::Bytes { task: Task::Model, done: (u64::from(second as u32) << 20) * 100 });
    }
    rig.at(40).report(Event::Line { task: Task::Image, line: "\x1b[1mSTEP 1/9\x1b[0m: FROM scratch\r\n".into() });
    rig.at(61).report(Event::End { task: Task::Model, summary: "6.0 GiB uploaded in 1m01s".into() });
    rig.at(62).report(Event::Phase("Creating the service stack".into()));
    rig.at(63).report(resource("ComfyUIEndpoint", "CREATE_IN_PROGRESS", None));
    rig.at(64).report(resource("ComfyUIEndpoint", "CREATE_IN_PROGRESS", None));
    rig.at(65).report(Event::Endpoint { name: "comfy".into(), status: "Creating".into(), stage: None });
    for second in 66..=130 {
        rig.at(second).tick();
    }
    rig.at(131).report(Event::Container("Starting server".into()));
    rig.at(132).report(resource("ComfyUIEndpoint", "CREATE_FAILED", Some("did not pass the ping health check")));
    rig.at(133).report(Event::Warning("the endpoint is left standing".into()));
    insta::assert_snapshot!(rig.text());
}

#[test]
fn silence_is_never_longer_than_the_heartbeat_while_something_goes_on() {
    let rig = rig();
    rig.at(0).report(resource("ComfyUIEndpoint", "CREATE_IN_PROGRESS", None));
    for second in 1..=300 {
        rig.at(second).tick();
    }
    assert_eq!(rig.text().lines().count(), 11, "{}", rig.text());
}

#[test]
fn nothing_is_said_when_nothing_goes_on_or_all_is_over() {
    let rig = rig();
    rig.at(100).tick();
    assert_eq!(rig.text(), "");
    rig.at(100).report(Event::Phase("Planning".into()));
    rig.lines.finish();
    rig.at(200).tick();
    assert_eq!(rig.text().lines().count(), 1);
}

#[test]
fn a_thousand_parts_are_a_few_lines() {
    let rig = rig();
    rig.at(0).report(Event::Begin { task: Task::Model, label: "uploading".into(), total: Some(1000) });
    for part in 0..1000 {
        rig.at(part / 40).report(Event::Bytes { task: Task::Model, done: part });
    }
    assert!(rig.text().lines().count() <= 4, "{}", rig.text());
}

#[test]
fn foreign_lines_cannot_move_the_cursor() {
    assert_eq!(clean("\x1b[2K\x1b[31mred\x1b[0m"), "red");
    assert_eq!(clean("10%\r20%\r30%\n"), "30%");
    assert_eq!(clean("a\tb\x07\x08c"), "a bc");
}

#[test]
fn a_resource_is_told_once_when_it_begins_and_once_when_it_ends() {
    let rig = rig();
    rig.at(0).report(resource("Model", "UPDATE_IN_PROGRESS", Some("Requested update requires a new resource")));
    rig.at(1).report(resource("Model", "UPDATE_IN_PROGRESS", Some("Resource creation Initiated")));
    rig.at(2).report(resource("Model", "UPDATE_FAILED", Some("it broke")));
    rig.at(3).report(resource("Model", "UPDATE_FAILED", Some("it broke")));
    let text = rig.text();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(!text.contains("Initiated") && !text.contains("Requested"), "{text}");
    assert!(text.contains("it broke"), "{text}");
}
