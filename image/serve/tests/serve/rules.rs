//! What a server in front of ComfyUI must do, rule by rule. Each was learnt from a real ComfyUI.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Comfyui, Server, abandon, color, flat, number, slow, soon};
use crate::proxy::losing_answers;

const RED: [u8; 3] = [200, 30, 30];
const BLUE: [u8; 3] = [30, 30, 200];

#[tokio::test]
async fn rule_01_sockets_are_read_at_all_times_also_idle_ones() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    assert_eq!(server.invoke(None, &flat(1)).await.status, 200);
    // Jobs of somebody else: each sends a status to every socket.
    for number in 0..200 {
        let (status, _) = comfyui.post("/prompt", &json!({"prompt": flat(number)})).await;
        assert_eq!(status, 200);
    }
    assert!(soon(async || comfyui.remaining().await == 0).await);
    let port: u16 = comfyui.url().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let unread = || unread_bytes(server.child.id().expect("it runs"), port);
    assert!(!unread().is_empty(), "there is no idle socket, so this shows nothing");
    assert!(soon(async || unread().iter().all(|bytes| *bytes == 0)).await, "unread: {:?}", unread());
}

/// The bytes that wait to be read, of each connection of a process to a port.
fn unread_bytes(pid: u32, port: u16) -> Vec<u64> {
    let sockets: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .flatten()
        .filter_map(|entry| {
            std::fs::read_link(entry.path()).ok()?.to_str()?.strip_prefix("socket:[").map(str::to_owned)
        })
        .map(|inode| inode.trim_end_matches(']').to_owned())
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("readable");
    let remote = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let ours = columns.get(2)?.ends_with(&remote) && sockets.contains(*columns.get(9)?);
            ours.then(|| u64::from_str_radix(columns[4].split_once(':')?.1, 16).ok()).flatten()
        })
        .collect()
}

#[tokio::test]
async fn rule_02_a_client_id_is_never_used_again() {
    let comfyui = Comfyui::start().await;
    let Some(stand_in) = comfyui.stand_in() else { return };
    let server = Server::ready(&comfyui, &[]).await;
    for color in 0..6 {
        assert_eq!(server.invoke(None, &flat(color)).await.status, 200);
        if color % 2 == 0 {
            stand_in.cut_sockets();
        }
    }
    let prompts = stand_in.prompts();
    let clients: BTreeSet<_> = prompts.iter().map(|prompt| prompt.client_id.clone().expect("a client id")).collect();
    assert_eq!((prompts.len(), clients.len()), (6, 6));
    // Nor is a socket opened twice under one.
    let opened = stand_in.clients();
    assert_eq!(opened.iter().collect::<BTreeSet<_>>().len(), opened.len());
}

#[tokio::test]
async fn rule_03_a_job_whose_answer_is_lost_is_found_by_its_own_id() {
    let comfyui = Comfyui::start().await;
    let proxy = losing_answers(&comfyui.url(), 1).await;
    let mut args = comfyui.args();
    args.push(format!("--comfyui-url={proxy}"));
    args.retain(|arg| *arg != format!("--comfyui-url={}", comfyui.url()));
    let server = Server::run(&args, &[]).await;
    for (color, seconds) in [(1, 0.5), (2, 0.0)] {
        let answer = server.invoke(None, &slow(color, seconds)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.attribute("prompt_id").map(str::len), Some(36));
    }
    if let Some(stand_in) = comfyui.stand_in() {
        assert_eq!(stand_in.counts().prompts, 2, "a job was submitted twice");
    }
    assert!(comfyui.clean().await);
}

#[tokio::test]
async fn rule_04_the_end_is_not_the_message_of_success() {
    // The entry comes up to 784 ms after that message.
    let comfyui = Comfyui::start_with(|options| options.history = Duration::from_millis(784)).await;
    let server = Server::ready(&comfyui, &[]).await;
    for number in 0..2 {
        assert_eq!(server.invoke(None, &flat(number)).await.status, 200);
    }
    assert!(comfyui.clean().await, "an entry was removed before it was there");
}

#[tokio::test]
async fn rule_04_without_a_socket_the_history_tells_the_end() {
    let comfyui = Comfyui::start().await;
    let Some(stand_in) = comfyui.stand_in() else { return };
    let server = Server::ready(&comfyui, &[]).await;
    let (answer, ()) = tokio::join!(server.post(&[], slow(7, 1.0).to_string()), async {
        assert!(soon(async || comfyui.remaining().await == 1).await);
        stand_in.cut_sockets();
    });
    assert_eq!(answer.status, 200);
    assert!(comfyui.clean().await);
}

#[tokio::test]
async fn rule_05_the_status_decides_and_not_the_outputs() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    // One output is saved, the other branch raises; which comes first is not fixed.
    for number in 0..4 {
        let mut workflow = flat(number);
        workflow["2"] =
            json!({"class_type": "TestFail", "inputs": {"image": ["1", 0], "message": "boom", "seed": number}});
        workflow["3"] = json!({"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}});
        let answer = server.invoke(Some("*/*"), &workflow).await;
        assert_eq!(answer.failure(), (422, "execution_failed".into()));
        let error = answer.error();
        assert_eq!((&error["node_id"], &error["node_class"]), (&json!("2"), &json!("TestFail")));
        assert!(error["message"].as_str().expect("a text").contains("boom"));
        assert!(!error.to_string().contains(".py"), "a traceback reached the caller");
    }
    assert!(comfyui.clean().await);
}

#[tokio::test]
async fn rule_06_the_picture_is_chosen_by_rule() {
    // The order in which ComfyUI runs output nodes differs from process to process.
    let mut seen = BTreeSet::new();
    for seed in 0..8 {
        let comfyui = Comfyui::start_with(|options| options.hash_seed = Some(seed)).await;
        let server = Server::ready(&comfyui, &[]).await;
        let image = |color| json!({"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 2, "color": color}});
        let save = |class: &str, of: &str| match class {
            "SaveImage" => json!({"class_type": class, "inputs": {"images": [of, 0], "filename_prefix": "ComfyUI"}}),
            _ => json!({"class_type": class, "inputs": {"images": [of, 0]}}),
        };
        let workflow = json!({
            "1": image(number([30, 200, 30])), "2": image(number(RED)), "3": image(number(BLUE)),
            "20": save("PreviewImage", "1"), "10": save("SaveImage", "2"), "9": save("SaveImage", "3"),
        });
        let answer = server.invoke(None, &workflow).await;
        assert_eq!(color(&answer.picture()), RED, "saved before preview, then the first in the workflow");
        assert_eq!(answer.attribute("node"), Some("10"));
        if let Some(stand_in) = comfyui.stand_in() {
            seen.insert(comfyui_stand_in::set_order(seed, ["20", "10", "9"]).join(","));
            assert_eq!(stand_in.counts().prompts, 1);
        }
    }
    if let Some(first) = seen.first() {
        assert!(seen.len() > 1, "ComfyUI's order was always {first}, so this shows nothing");
    }
}

#[tokio::test]
async fn rule_07_what_comfyui_crashes_on_is_refused_before() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    for (body, code) in [
        ("", "not_json"),
        ("{", "not_json"),
        ("null", "invalid_workflow"),
        ("[]", "invalid_workflow"),
        ("\"x\"", "invalid_workflow"),
        ("{\"prompt\":null}", "invalid_workflow"),
        ("{\"prompt\":[1,2]}", "invalid_workflow"),
        ("{\"prompt\":\"a dog\"}", "invalid_workflow"),
        ("{\"nodes\":[],\"links\":[],\"last_node_id\":9,\"version\":0.4}", "invalid_workflow"),
        ("{\"prompt\":{\"1\":{\"class_type\":\"A\",\"inputs\":{}}},\"extra_data\":5}", "invalid_workflow"),
        ("{\"prompt\":{\"1\":{\"class_type\":\"A\",\"inputs\":{}}},\"extra_data\":[]}", "invalid_workflow"),
        (
            "{\"prompt\":{\"1\":{\"class_type\":\"A\",\"inputs\":{}}},\"partial_execution_targets\":5}",
            "invalid_workflow",
        ),
    ] {
        assert_eq!(server.post(&[], body).await.failure(), (400, code.into()), "{body}");
    }
    assert_eq!(server.post(&[], &b"\xff\xfe{}"[..]).await.failure(), (400, "not_json".into()));
    let ui = server.post(&[], "{\"nodes\":[],\"links\":[]}").await.error();
    assert!(ui["message"].as_str().expect("a text").contains("Export (API)"));
    if let Some(stand_in) = comfyui.stand_in() {
        assert_eq!(stand_in.counts().prompts, 0, "ComfyUI was bothered");
    }
}

#[tokio::test]
async fn rule_08_a_refusal_is_passed_on_without_traceback() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let broken = |node: &str, path: &str, value: Value| {
        let mut workflow = flat(1);
        *workflow.pointer_mut(&format!("/{node}/{path}")).expect("there") = value;
        workflow
    };
    for (workflow, node, says) in [
        (broken("1", "inputs/width", json!(-5)), Some("1"), "Value -5 smaller than min"),
        (
            broken("1", "inputs", json!({"width": 8, "height": 8, "batch_size": 1})),
            Some("1"),
            "Required input is missing",
        ),
        (broken("9", "inputs/images", json!(["77", 0])), Some("9"), "77"),
        (broken("1", "class_type", json!("NoSuchNode")), None, "NoSuchNode"),
        (json!({"1": flat(1)["1"]}), None, "SaveImage"),
    ] {
        let answer = server.invoke(None, &workflow).await;
        assert_eq!(answer.failure(), (400, "invalid_workflow".into()), "{workflow}");
        let error = answer.error();
        assert_eq!(error["node_id"].as_str(), node, "{error}");
        assert!(error["message"].as_str().expect("a text").contains(says), "{error}");
        assert!(!error.to_string().contains("traceback") && !error.to_string().contains(".py"), "{error}");
    }
}

#[tokio::test]
async fn rule_09_no_history_entry_is_left() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    for number in 0..15 {
        assert_eq!(server.invoke(None, &flat(number)).await.status, 200);
    }
    assert!(comfyui.clean().await);
}

#[tokio::test]
async fn rule_10_a_cached_prompt_whose_file_is_gone_runs_its_output_node_again() {
    // The server does not know the directories here, and removes nothing: somebody else did.
    let comfyui = Comfyui::start().await;
    let args = ["--no-spawn".to_owned(), format!("--comfyui-url={}", comfyui.url())];
    let server = Server::run(&args, &[]).await;
    let workflow = flat(number(RED));
    assert_eq!(color(&server.invoke(None, &workflow).await.picture()), RED);
    for file in comfyui.left_files() {
        std::fs::remove_file(file).expect("removed");
    }
    let nodes_before = comfyui.stand_in().map(|stand_in| stand_in.counts().nodes_run);
    assert_eq!(color(&server.invoke(None, &workflow).await.picture()), RED);
    if let Some(stand_in) = comfyui.stand_in() {
        assert_eq!(stand_in.counts().nodes_run, nodes_before.expect("counted") + 1, "more than the output node ran");
    }
    // A third time: now the file is there again.
    assert_eq!(color(&server.invoke(None, &workflow).await.picture()), RED);
    assert!(soon(async || comfyui.history().await == 0).await);
}

#[tokio::test]
async fn rule_10_no_file_is_left_and_a_name_that_is_used_again_is_never_mixed_up() {
    let comfyui = Comfyui::start_with(|options| {
        options.cache = comfyui_stand_in::CacheMode::Lru(10);
    })
    .await;
    let server = Server::ready(&comfyui, &[]).await;
    // Every file is removed after use, so that ComfyUI gives the same name to each, and answers from its cache.
    for round in 0..3 {
        for rgb in [RED, BLUE, [30, 200, 30]] {
            let answer = server.invoke(None, &flat(number(rgb))).await;
            assert_eq!(color(&answer.picture()), rgb, "round {round}");
        }
    }
    // More outputs than the server remembers.
    for gray in 0..12 {
        let answer = server.invoke(None, &flat(number([gray * 20; 3]))).await;
        assert_eq!(color(&answer.picture()), [gray * 20; 3]);
    }
    assert_eq!(color(&server.invoke(None, &flat(number(RED))).await.picture()), RED);
    assert!(comfyui.clean().await, "left: {:?}", comfyui.left_files());
}

#[tokio::test]
async fn rule_11_who_goes_away_takes_his_job_along_and_no_other() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    // Somebody else's job runs, ours waits behind it.
    let (status, _) = comfyui.post("/prompt", &json!({"prompt": slow(1, 2.0), "prompt_id": "theirs"})).await;
    assert_eq!(status, 200);
    assert!(abandon(&server, &slow(2, 60.0), Duration::from_millis(500)).await);
    assert!(soon(async || comfyui.remaining().await == 1).await, "the waiting job stayed");
    // Theirs ends well.
    assert!(soon(async || comfyui.remaining().await == 0).await);
    let theirs = crate::harness::get(&format!("{}/history/theirs", comfyui.url())).await.expect("an answer");
    assert_eq!(theirs["theirs"]["status"]["status_str"], "success");
    // Ours that runs is interrupted.
    assert!(abandon(&server, &slow(3, 60.0), Duration::from_millis(500)).await);
    assert!(soon(async || comfyui.remaining().await == 0).await, "the running job stayed");
    assert!(soon(async || comfyui.history().await == 1).await, "an entry stayed besides theirs");
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| request["outcome"] == "client_gone").count(), 2);
    if let Some(stand_in) = comfyui.stand_in() {
        assert!(stand_in.interrupts().iter().all(Option::is_some), "an interrupt without an id stops anybody's job");
    }
}

#[tokio::test]
async fn rule_11_the_deadline_ends_a_job_that_waits_or_runs() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--invocation-timeout", "0.7"]).await;
    let begun = Instant::now();
    let (running, waiting) = (slow(1, 60.0), slow(2, 60.0));
    let (one, two) = tokio::join!(server.invoke(None, &running), server.invoke(None, &waiting));
    for answer in [one, two] {
        assert_eq!(answer.failure(), (504, "timeout".into()));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(comfyui.clean().await);
    assert_eq!(server.invoke(None, &flat(3)).await.status, 200);
}

#[tokio::test]
async fn rule_12_ping_tells_the_state_of_comfyui_and_never_waits_for_it() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    comfyui.freeze();
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(server.ping().await, 200, "one second is nothing");
        assert!(begun.elapsed() < Duration::from_secs(1), "no probe gives up as early as that");
    }
    assert!(soon(async || server.ping().await == 503).await, "a frozen ComfyUI counts as healthy");
    comfyui.thaw();
    assert!(soon(async || server.ping().await == 200).await);
    comfyui.kill();
    assert!(soon(async || server.ping().await == 503).await, "a dead ComfyUI counts as healthy");
    comfyui.restart().await;
    assert!(soon(async || server.ping().await == 200).await);
}

#[tokio::test]
async fn rule_12_loading_a_model_does_not_take_an_instance_out_of_service() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--health-busy-grace", "60", "--health-failures", "1"]).await;
    let answer = tokio::spawn({
        let (url, body) = (server.url("/invocations"), slow(1, 1.0).to_string());
        async move { crate::harness::send(axum::http::Method::POST, &url, &[], body).await }
    });
    assert!(soon(async || comfyui.remaining().await == 1).await);
    comfyui.freeze();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(server.ping().await, 200, "three probes failed, but a job runs");
    comfyui.thaw();
    assert_eq!(answer.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn rule_12_a_model_that_is_loaded_for_nobody_any_more_is_loading_all_the_same() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--health-failures", "1", "--invocation-timeout", "1.5"]).await;
    // One caller goes away, one is told that it took too long; ComfyUI answers nobody meanwhile.
    let gone = slow(1, 60.0);
    let freeze = async {
        assert!(soon(async || comfyui.remaining().await == 2).await);
        comfyui.freeze();
    };
    let late = slow(2, 60.0);
    let (abandoned, late, ()) =
        tokio::join!(abandon(&server, &gone, Duration::from_millis(1000)), server.invoke(None, &late), freeze);
    assert!(abandoned);
    assert_eq!(late.failure(), (504, "timeout".into()));
    for _ in 0..40 {
        assert_eq!(server.ping().await, 200, "probes fail, but ComfyUI has jobs of ours");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    comfyui.thaw();
    assert!(comfyui.clean().await);
    // With no job left the grace is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    comfyui.freeze();
    assert!(soon(async || server.ping().await == 503).await);
    comfyui.thaw();
}

#[tokio::test]
async fn rule_13_the_picture_does_not_tell_the_prompt() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let mut workflow = flat(5);
    workflow["9"]["_meta"] = json!({"title": "my secret"});
    let holds = |body: &[u8]| body.windows(9).any(|window| window == b"my secret");
    for accept in ["image/png", "image/jpeg", "image/webp"] {
        let answer = server.invoke(Some(accept), &workflow).await;
        assert_eq!(answer.content_type(), accept);
        assert!(!holds(&answer.body), "{accept}");
    }
    let headers = [("x-amzn-sagemaker-custom-attributes", "metadata=keep")];
    let kept = server.post(&headers, workflow.to_string()).await;
    assert!(holds(&kept.body), "it is kept when asked for");
}
