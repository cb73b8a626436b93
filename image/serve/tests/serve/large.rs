//! Workflows of megabytes, which ComfyUI's queue shows in full to everybody who asks for it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Comfyui, Server, slow, soon};

/// A workflow of a megabyte and a half, in many small values.
fn large(color: u32, seconds: f64) -> Value {
    let mut workflow = slow(color, seconds);
    for number in 0..10_000 {
        let text = "a prompt that is as long as such texts are ".repeat(2);
        workflow[format!("n{number}")] = json!({"class_type": "PrimitiveString", "inputs": {"value": text}});
    }
    workflow
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_wait_do_not_download_the_queue_again_and_again() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let bodies: Vec<String> = (0..6).map(|number| large(number, 1.5).to_string()).collect();
    let jobs = futures::future::join_all(bodies.iter().map(|body| server.post(&[], body.clone())));
    let pings = async {
        assert!(soon(async || comfyui.remaining().await >= 4).await);
        let mut slowest = Duration::ZERO;
        for _ in 0..200 {
            let begun = Instant::now();
            assert_eq!(server.ping().await, 200);
            slowest = slowest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(jobs, pings);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(slowest < Duration::from_millis(1000), "{slowest:?}");
    if let Some(stand_in) = comfyui.stand_in() {
        let looks = stand_in.counts().queue_looks;
        assert!(looks <= 3, "the queue was downloaded {looks} times");
    }
    assert!(comfyui.clean().await);
}

#[tokio::test]
async fn jobs_that_somebody_else_removes_are_missed_by_one_look_for_all() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let running = slow(1, 6.0);
    let bodies: Vec<String> = (0..6).map(|number| slow(number + 2, 1.0).to_string()).collect();
    let first = server.invoke(None, &running);
    let others = async {
        assert!(soon(async || comfyui.remaining().await == 1).await);
        let others = futures::future::join_all(bodies.iter().map(|body| server.post(&[], body.clone())));
        let clear = async {
            assert!(soon(async || comfyui.remaining().await == 7).await);
            comfyui.post("/queue", &json!({"clear": true})).await
        };
        tokio::join!(others, clear).0
    };
    let begun = Instant::now();
    let (first, others) = tokio::join!(first, others);
    assert_eq!(first.status, 200);
    for answer in others {
        assert_eq!(answer.failure(), (503, "job_lost".into()));
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    if let Some(stand_in) = comfyui.stand_in() {
        let looks = stand_in.counts().queue_looks;
        assert!((1..=4).contains(&looks), "the queue was downloaded {looks} times");
    }
}

#[tokio::test]
async fn a_removed_job_is_missed_although_others_take_its_place_in_the_count() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let (status, _) = comfyui.post("/prompt", &json!({"prompt": slow(1, 60.0), "prompt_id": "theirs"})).await;
    assert_eq!(status, 200);
    let remove = async {
        assert!(soon(async || comfyui.remaining().await == 2).await);
        comfyui.post("/queue", &json!({"clear": true})).await;
        // More of theirs.
        let (status, _) = comfyui.post("/prompt", &json!({"prompt": slow(2, 60.0)})).await;
        assert_eq!(status, 200);
    };
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(server.post(&[], slow(3, 1.0).to_string()), remove);
    assert_eq!(answer.failure(), (503, "job_lost".into()));
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}
