//! What jobs write, under names that come again and again because every file is removed after use.

use serde_json::json;

use crate::harness::{Answer, Comfyui, Server, color, flat, soon};

const RED: [u8; 3] = [200, 30, 30];
const BLUE: [u8; 3] = [30, 30, 200];
const GREEN: [u8; 3] = [30, 200, 30];
const ALL: (&str, &str) = ("x-amzn-sagemaker-custom-attributes", "output=all");

/// The pictures of a multipart answer, by node.
fn pictures(answer: &Answer) -> Vec<(String, [u8; 3])> {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let boundary = answer.content_type().split_once("boundary=").expect("multipart").1.trim_matches('"');
    let delimiter = format!("--{boundary}");
    let starts: Vec<usize> = (0..answer.body.len().saturating_sub(delimiter.len()))
        .filter(|at| answer.body[*at..].starts_with(delimiter.as_bytes()))
        .collect();
    starts
        .windows(2)
        .map(|pair| {
            let part = &answer.body[pair[0]..pair[1]];
            let head = part.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
            let text = String::from_utf8_lossy(&part[..head]);
            let node = text.split_once("X-Comfy-Node: ").expect("a node").1.lines().next().expect("a line").to_owned();
            (node, color(&image::load_from_memory(&part[head + 4..]).expect("a picture")))
        })
        .collect()
}

#[tokio::test]
async fn two_nodes_that_had_the_same_name_in_turn_are_never_mixed_up() {
    // Which of the two runs first, and so has the first name, differs.
    for seed in 0..6 {
        let comfyui = Comfyui::start_with(|options| options.hash_seed = Some(seed)).await;
        let server = Server::ready(&comfyui, &[]).await;
        let write = |name: &str, rgb: [u8; 3]| {
            let picture = image::RgbImage::from_pixel(32, 32, image::Rgb(rgb));
            picture.save(comfyui.path("input").join(name)).expect("written");
        };
        write("a.png", RED);
        write("b.png", BLUE);
        let load = |name: &str| json!({"class_type": "LoadImage", "inputs": {"image": name}});
        let save =
            |of: &str| json!({"class_type": "SaveImage", "inputs": {"images": [of, 0], "filename_prefix": "ComfyUI"}});
        let workflow = json!({"1": load("a.png"), "2": load("b.png"), "9": save("1"), "10": save("2")}).to_string();
        let run = async || pictures(&server.post(&[ALL], workflow.clone()).await);
        let expected = |nine, ten| [("9".to_owned(), nine), ("10".to_owned(), ten)];
        assert_eq!(run().await, expected(RED, BLUE));
        // Only one of them runs again, and may get the name that the other one had.
        write("a.png", GREEN);
        assert_eq!(run().await, expected(GREEN, BLUE), "seed {seed}");
        write("b.png", RED);
        assert_eq!(run().await, expected(GREEN, RED), "seed {seed}");
        assert_eq!(run().await, expected(GREEN, RED), "seed {seed}");
    }
}

#[tokio::test]
async fn a_subfolder_is_not_taken_from_the_job_that_is_about_to_write_there() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let workflow = |number: u32, prefix: &str| {
        let mut workflow = flat(number);
        workflow["9"]["inputs"]["filename_prefix"] = json!(prefix);
        workflow
    };
    let clients = (0..8).map(|client| {
        let (server, workflow) = (&server, &workflow);
        async move {
            for round in 0..12 {
                let answer = server.invoke(None, &workflow(client * 100 + round, "sub/dir/x")).await;
                assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                let own = format!("only-{client}-{round}/deep/x");
                assert_eq!(server.invoke(None, &workflow(client * 100 + round, &own)).await.status, 200);
            }
        }
    });
    futures::future::join_all(clients).await;
    // Nothing of it stays, at any depth.
    let output = comfyui.path("output");
    let entries = || std::fs::read_dir(&output).expect("the directory itself stays").count();
    assert!(soon(async || entries() == 0).await, "{} folders stayed", entries());
    assert!(comfyui.clean().await);
}
