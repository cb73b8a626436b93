//! Defects that a server of the usual kind (one global socket, synchronous workers) was found to have.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Comfyui, Server, color, flat, number, slow, soon};

const RED: [u8; 3] = [200, 30, 30];

#[tokio::test]
async fn a_dropped_socket_or_a_restart_of_comfyui_does_not_break_later_requests() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    for round in 0..12 {
        match (round % 3, comfyui.stand_in()) {
            (0, Some(stand_in)) => stand_in.cut_sockets(),
            (1, _) => comfyui.restart().await,
            _ => {}
        }
        assert_eq!(server.invoke(None, &flat(round)).await.status, 200, "round {round}");
    }
}

#[tokio::test]
async fn an_execution_error_is_never_a_success() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let mut workflow = flat(1);
    workflow["2"] = json!({"class_type": "TestFail", "inputs": {"image": ["1", 0], "message": "boom", "seed": 1}});
    workflow["9"]["inputs"]["images"] = json!(["2", 0]);
    for _ in 0..2 {
        assert_eq!(server.invoke(Some("*/*"), &workflow).await.failure(), (422, "execution_failed".into()));
    }
    // Not with the cached picture of the prompt before either.
    assert_eq!(server.invoke(None, &flat(number(RED))).await.status, 200);
    let mut both = flat(number(RED));
    both["2"] = workflow["2"].clone();
    both["8"] = json!({"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}});
    assert_eq!(server.invoke(None, &both).await.failure(), (422, "execution_failed".into()));
    assert_eq!(color(&server.invoke(None, &flat(number(RED))).await.picture()), RED);
}

#[tokio::test]
async fn ping_is_answered_at_once_while_jobs_run_and_comfyui_is_frozen() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let bodies: Vec<String> = (0..6).map(|number| slow(number, 0.3).to_string()).collect();
    let jobs = futures::future::join_all(bodies.iter().map(|body| server.post(&[], body.clone())));
    let pings = async {
        assert!(soon(async || comfyui.remaining().await >= 5).await);
        comfyui.freeze();
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let begun = Instant::now();
            assert_eq!(server.ping().await, 200);
            slowest = slowest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        comfyui.thaw();
        slowest
    };
    let (answers, slowest) = tokio::join!(jobs, pings);
    assert!(answers.iter().all(|answer| answer.status == 200));
    // SageMaker allows two seconds; this is far from both.
    assert!(slowest < Duration::from_millis(1000), "{slowest:?}");
}

#[tokio::test]
async fn no_error_is_html_or_without_its_cause() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let mut missing = flat(1);
    missing["1"] = json!({"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "absent.safetensors"}});
    missing["3"] = json!({"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}});
    missing["4"] = json!({"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}});
    missing["9"]["inputs"]["images"] = json!(["3", 0]);
    let answer = server.invoke(None, &missing).await;
    assert_eq!(answer.failure(), (400, "invalid_workflow".into()));
    assert!(answer.error()["message"].as_str().expect("a text").contains("absent.safetensors"));
    assert_eq!(server.post(&[], "{").await.failure(), (400, "not_json".into()));
    comfyui.kill();
    assert_eq!(server.invoke(None, &flat(1)).await.failure(), (503, "not_ready".into()));
}

#[tokio::test]
async fn a_body_as_large_as_sagemaker_allows_is_taken() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let mut large = flat(1);
    large["9"]["inputs"]["note"] = json!("x".repeat(24_900_000));
    assert_eq!(server.invoke(None, &large).await.status, 200);
    large["9"]["inputs"]["note"] = json!("x".repeat(25_000_000));
    assert_eq!(server.invoke(None, &large).await.failure(), (413, "too_large".into()));
    assert_eq!(server.invoke(None, &flat(2)).await.status, 200);
}

#[tokio::test]
async fn many_requests_wait_in_comfyui_and_not_for_a_worker() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let bodies: Vec<String> = (0..12).map(|number| slow(number, 0.1).to_string()).collect();
    let jobs = futures::future::join_all(bodies.iter().map(|body| server.post(&[], body.clone())));
    let queued = async { soon(async || comfyui.remaining().await == 12).await };
    let (answers, all_queued) = tokio::join!(jobs, queued);
    assert!(all_queued, "not all were in ComfyUI's queue at once");
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn a_job_that_somebody_else_removes_or_interrupts_is_answered() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let (first, second) = (slow(1, 2.0), slow(2, 2.0));
    let meddle = async {
        assert!(soon(async || comfyui.remaining().await == 2).await);
        let (status, _) = comfyui.post("/queue", &json!({"clear": true})).await;
        assert_eq!(status, 200);
    };
    let (one, two, ()) = tokio::join!(server.invoke(None, &first), server.invoke(None, &second), meddle);
    let mut outcomes = [&one, &two].map(|answer| match answer.status.as_u16() {
        200 => (200, String::new()),
        _ => answer.failure(),
    });
    outcomes.sort();
    assert_eq!(outcomes, [(200, String::new()), (503, "job_lost".into())]);

    let interrupt = async {
        assert!(soon(async || comfyui.remaining().await == 1).await);
        comfyui.post("/interrupt", &json!({})).await
    };
    let (answer, _) = tokio::join!(server.post(&[], slow(3, 30.0).to_string()), interrupt);
    assert_eq!(answer.failure(), (503, "interrupted".into()));
    assert!(comfyui.clean().await);
}

#[tokio::test]
async fn a_comfyui_that_is_killed_mid_job_is_answered() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let kill = async {
        assert!(soon(async || comfyui.remaining().await == 1).await);
        comfyui.restart().await;
    };
    let (answer, ()) = tokio::join!(server.post(&[], slow(1, 30.0).to_string()), kill);
    assert_eq!(answer.failure(), (503, "job_lost".into()));
    assert_eq!(server.invoke(None, &flat(1)).await.status, 200);
    assert!(soon(async || server.ping().await == 200).await);
}
