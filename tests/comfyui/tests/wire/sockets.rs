//! Recordings of several clients, reconnects, interrupts and a client that does not read.

use std::{sync::Arc, time::Duration};

use comfyui_stand_in::{
    Options, StandIn,
    py::{self, Value},
};

use crate::{
    replay::{Plain, at, line, list, recorded_lines, recording, same_lines},
    support::{Frame, Listener, get, history, post, wait},
};

/// EmptyImage, TestSleep, SaveImage: what these recordings were made with.
fn sleep(client: &str, id: &str, seconds: f64, steps: u32, seed: u32) -> String {
    format!(
        r#"{{"prompt":{{"1":{{"class_type":"EmptyImage","inputs":{{"width":64,"height":64,"batch_size":1,"color":7097656}}}},
        "2":{{"class_type":"TestSleep","inputs":{{"image":["1",0],"seconds":{seconds},"steps":{steps},"previews":false,
        "seed":{seed}}}}},"3":{{"class_type":"SaveImage","inputs":{{"images":["2",0],"filename_prefix":"ComfyUI"}}}}}},
        "client_id":"{client}","prompt_id":"{id}"}}"#
    )
}

/// Runs a prompt of which only the EmptyImage matters: the recordings found it cached.
fn cache_the_image(stand_in: &StandIn) {
    let port = stand_in.port();
    assert_eq!(post(port, "/prompt", &sleep("warm", "warm", 0.0, 1, 0)).status, 200);
    history(port, "warm");
    wait("idle", || (stand_in.remaining() == 0).then_some(()));
}

fn lines(frames: &[Frame], plain: &Plain) -> Vec<String> {
    frames.iter().map(|frame| line(plain, frame)).collect()
}

fn plain(ids: &[(&str, &'static str)]) -> Plain {
    Plain::new(ids.iter().map(|(id, word)| ((*id).to_owned(), *word)))
}

/// The recorded messages of a client; ids become the words that ours are replaced by.
fn recorded(messages: &[Value], ids: &[(&str, &'static str)]) -> Vec<String> {
    recorded_lines(&plain(ids), messages)
}

/// Of a socket that was open before the image was cached: what came after that.
fn fresh(port: u16, client: &str) -> Listener {
    Listener::open(port, client)
}

#[test]
fn two_clients_get_their_own_messages_and_all_statuses() {
    let recording = recording("two_clients");
    let stand_in = StandIn::start(Options::default()).unwrap();
    cache_the_image(&stand_in);
    let port = stand_in.port();
    let (mut a, mut b) = (fresh(port, "a"), fresh(port, "b"));
    post(port, "/prompt", &sleep("a", "first", 1.0, 4, 1));
    a.until(|frame| frame.data("node") == Some(&Value::from("2")));
    post(port, "/prompt", &sleep("b", "second", 1.0, 4, 2));
    b.until_end();
    a.until(|frame| {
        frame.kind() == "status" && py::dumps(frame.data("status").unwrap()).contains("\"queue_remaining\": 0")
    });
    for (side, listener, client, id) in [("client_a", a, "a", "first"), ("client_b", b, "b", "second")] {
        let word = |key: &str| py::str_of(at(&recording, &format!("{side}/{key}")));
        let theirs = recorded(
            list(&recording, &format!("{side}/ws_messages")),
            &[(&word("client_id"), "<client>"), (&word("prompt_id"), "<prompt>")],
        );
        let ours = lines(&listener.close(), &plain(&[(client, "<client>"), (id, "<prompt>")]));
        same_lines(side, &ours, &theirs);
    }
}

#[test]
fn one_client_two_prompts() {
    let recording = recording("one_client_two_prompts");
    let stand_in = StandIn::start(Options::default()).unwrap();
    cache_the_image(&stand_in);
    let port = stand_in.port();
    let mut listener = fresh(port, "c");
    post(port, "/prompt", &sleep("c", "p1", 0.5, 2, 1));
    listener.until(|frame| frame.data("node") == Some(&Value::from("2")));
    post(port, "/prompt", &sleep("c", "p2", 0.5, 2, 2));
    listener.until_end();
    listener.until_end();
    let id = |index: usize| py::str_of(&list(&recording, "prompt_ids")[index]);
    let sid = py::str_of(at(&recording, "ws_messages/0/text/data/sid"));
    let theirs = recorded(list(&recording, "ws_messages"), &[(&id(0), "<1>"), (&id(1), "<2>"), (&sid, "<client>")]);
    let ours = lines(&listener.close(), &plain(&[("p1", "<1>"), ("p2", "<2>"), ("c", "<client>")]));
    same_lines("one_client_two_prompts", &ours, &theirs);
}

/// The recordings of these two leave progress out.
fn without_progress(frames: Vec<Frame>) -> Vec<Frame> {
    frames.into_iter().filter(|frame| !frame.kind().starts_with("progress")).collect()
}

#[test]
fn a_queued_prompt_that_is_deleted_leaves_no_trace() {
    let recording = recording("cancel_queued");
    let stand_in = StandIn::start(Options::default()).unwrap();
    cache_the_image(&stand_in);
    let port = stand_in.port();
    let (mut running, mut deleted) = (fresh(port, "r"), fresh(port, "d"));
    post(port, "/prompt", &sleep("r", "running", 1.0, 10, 7_097_667));
    running.until(|frame| frame.data("node") == Some(&Value::from("2")));
    post(port, "/prompt", &sleep("d", "deleted", 1.0, 10, 7_097_668));
    let queue = get(port, "/queue").json();
    assert_eq!(py::str_of(at(&queue, "queue_running/0/1")), "running");
    assert_eq!(py::str_of(at(&queue, "queue_pending/0/1")), "deleted");
    assert_eq!(list(&queue, "queue_pending/0").len(), 5);
    for (path, body) in [("/interrupt", r#"{"prompt_id":"deleted"}"#), ("/queue", r#"{"delete":["deleted"]}"#)] {
        let answer = post(port, path, body);
        assert_eq!((answer.status, answer.text().as_str()), (200, ""));
        assert_eq!(answer.header("content-type"), "", "{path}");
    }
    assert_eq!(py::dumps(at(&get(port, "/queue").json(), "queue_pending")), "[]");
    running.until_end();
    deleted.until(|frame| {
        frame.kind() == "status"
            && py::dumps(frame.data("status").unwrap()).contains("\"queue_remaining\": 0")
            && frame.data("sid").is_none()
    });
    assert_eq!(get(port, "/history/deleted").text(), "{}");
    let sid = |path: &str| py::str_of(at(&recording, &format!("{path}/0/text/data/sid")));
    let id = py::str_of(at(&recording, "steps/0/queue_before/queue_running/0/1"));
    for (path, listener, client) in [("ws_of_deleted_client", deleted, "d"), ("ws_of_running_client", running, "r")] {
        let theirs = recorded(list(&recording, path), &[(&sid(path), "<client>"), (&id, "<prompt>")]);
        let ours = without_progress(listener.close());
        same_lines(path, &lines(&ours, &plain(&[(client, "<client>"), ("running", "<prompt>")])), &theirs);
    }
    assert_eq!(stand_in.queue_deletes(), ["deleted"]);
    assert_eq!(stand_in.interrupts(), [Some("deleted".to_owned())]);
}

#[test]
fn a_running_prompt_is_interrupted_by_its_id() {
    let recording = recording("interrupt_running_targeted");
    let stand_in = StandIn::start(Options::default()).unwrap();
    let port = stand_in.port();
    let mut listener = Listener::open(port, "i");
    post(port, "/prompt", &sleep("i", "long", 30.0, 300, 7_097_666));
    listener.until(|frame| frame.is_step(2));
    post(port, "/interrupt", r#"{"prompt_id":"somebody else's"}"#);
    listener.until(|frame| frame.is_step(4));
    post(port, "/interrupt", r#"{"prompt_id":"long"}"#);
    listener.until_end();
    let id = py::str_of(at(&recording, "steps/0/response/json/prompt_id"));
    let sid = py::str_of(at(&recording, "ws_messages_without_progress/0/text/data/sid"));
    let theirs_plain = plain(&[(&id, "<prompt>"), (&sid, "<client>")]);
    let ours_plain = plain(&[("long", "<prompt>"), ("i", "<client>")]);
    let theirs = recorded_lines(&theirs_plain, list(&recording, "ws_messages_without_progress"));
    let ours = lines(&without_progress(listener.close()), &ours_plain);
    same_lines("interrupt", &ours, &theirs);
    let text = |plain: &Plain, value: &Value| line(plain, &Frame::Text(value.clone()));
    let entry = get(port, "/history/long").json();
    assert_eq!(text(&ours_plain, &entry), text(&theirs_plain, at(&recording, "history")));
}

#[test]
fn a_client_that_comes_back_gets_the_rest() {
    for (name, client, clean, step) in [
        ("ws_reconnect_after_clean_close", "same-client-A", true, 2),
        ("ws_reconnect_after_abrupt_drop", "same-client-B", false, 3),
    ] {
        let recording = recording(name);
        let stand_in = StandIn::start(Options::default()).unwrap();
        let port = stand_in.port();
        if !clean {
            cache_the_image(&stand_in);
        }
        let mut first = Listener::open(port, client);
        post(port, "/prompt", &sleep(client, "mine", 5.0, 10, 3));
        first.until(|frame| frame.is_step(step));
        let seen = if clean { first.close() } else { first.drop_abruptly() };
        wait("the server to notice", || (stand_in.counts().sockets_open == 0).then_some(()));
        let mut second = Listener::open(port, client);
        second.until_end();
        let messages = list(&recording, "ws_messages_second");
        let id = messages.iter().find_map(|message| at(message, "text").get("data")?.get("prompt_id"));
        let ids = [(&*py::str_of(id.unwrap()), "<prompt>")];
        let ours = plain(&[("mine", "<prompt>")]);
        same_lines(name, &lines(&second.close(), &ours), &recorded(messages, &ids));
        if clean {
            same_lines(name, &lines(&seen, &ours), &recorded(list(&recording, "ws_messages_first"), &ids));
        }
    }
}

#[test]
fn closing_the_old_socket_silences_the_new_one_of_the_same_id() {
    let recording = recording("ws_same_id_old_socket_closed_later");
    let stand_in = StandIn::start(Options::default()).unwrap();
    cache_the_image(&stand_in);
    let port = stand_in.port();
    let mut old = Listener::open(port, "same-client-C");
    post(port, "/prompt", &sleep("same-client-C", "mine", 4.5, 15, 4));
    old.until(|frame| frame.is_step(2));
    let mut new = Listener::open(port, "same-client-C");
    new.until(|frame| frame.is_step(5));
    old.close();
    wait("the server to notice", || (stand_in.counts().sockets_open == 1).then_some(()));
    let entry = history(port, "mine");
    assert_eq!(py::str_of(at(&entry, "status/status_str")), "success");
    assert_eq!(at(&recording, "finished_seen"), &Value::Bool(false));
    let messages = list(&recording, "ws_messages_second");
    let id = py::str_of(at(messages.last().unwrap(), "text/data/prompt_id"));
    let seen = std::mem::take(&mut new.seen);
    same_lines("new socket", &lines(&seen, &plain(&[("mine", "<prompt>")])), &recorded(messages, &[(&id, "<prompt>")]));
    // The connection is open all the same: what could still come was sent long ago, and nothing did.
    assert!(new.next(Duration::from_millis(300)).is_err());
    assert_eq!(stand_in.counts().sockets_open, 1);
}

#[test]
fn one_client_that_does_not_read_holds_up_all_others() {
    let recording = recording("ws_stalled_client_blocks_all");
    assert_eq!(at(&recording, "healthy_got_end_while_stalled"), &Value::Bool(false));
    let stand_in = Arc::new(StandIn::start(Options::default()).unwrap());
    let port = stand_in.port();
    let stalled = Listener::open_unread(port, "stalled");
    let mut healthy = Listener::open(port, "healthy");
    let frames = r#"{"prompt":{"1":{"class_type":"TestPhoto","inputs":{"width":1024,"height":1024,"batch_size":8,
        "alpha":false,"seed":1}},"2":{"class_type":"SaveImageWebsocket","inputs":{"images":["1",0]}}},
        "client_id":"stalled","prompt_id":"frames"}"#;
    post(port, "/prompt", frames);
    history(port, "frames");
    post(port, "/prompt", &sleep("healthy", "small", 0.0, 1, 1));
    history(port, "small");
    // Its own messages are all queued behind frames that nobody takes; statuses from before them may still come.
    while let Ok(frame) = healthy.next(Duration::from_millis(500)) {
        assert_eq!(frame.kind(), "status");
    }
    stalled.drop_abruptly();
    healthy.until_end();
}
