//! What goes in and what comes out of POST /invocations.

use std::time::Duration;

use axum::http::Method;
use base64::Engine;
use serde_json::{Value, json};

use crate::harness::{Comfyui, Server, color, files, flat, number, send, slow, soon, try_send};

const RED: [u8; 3] = [200, 30, 30];
const ATTRIBUTES: &str = "x-amzn-sagemaker-custom-attributes";

#[tokio::test]
async fn formats_by_the_accept_header() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let workflow = flat(number(RED));
    for (accept, expected) in [
        (None, "image/png"),
        (Some("*/*"), "image/jpeg"),
        (Some("image/*"), "image/jpeg"),
        (Some("image/jpeg"), "image/jpeg"),
        (Some("image/jpeg;q=0.1"), "image/jpeg"),
        (Some("image/png"), "image/png"),
        (Some("image/webp"), "image/webp"),
        (Some("image/jpeg;q=0"), ""),
        (Some("image/jpeg;q=0, image/png"), "image/png"),
        (Some("image/webp, */*;q=0.8"), "image/webp"),
        (Some("application/json"), ""),
        (Some("video/mp4"), ""),
    ] {
        let answer = server.invoke(accept, &workflow).await;
        if expected.is_empty() {
            assert_eq!(answer.failure(), (406, "not_acceptable".into()), "{accept:?}");
            continue;
        }
        assert_eq!(answer.content_type(), expected, "{accept:?}");
        let got = color(&answer.picture());
        assert!(got.iter().zip(RED).all(|(a, b)| a.abs_diff(b) <= 6), "{accept:?}: {got:?}");
    }
    assert!(comfyui.clean().await);
}

#[tokio::test]
async fn the_quality_is_an_option_of_server_and_caller() {
    let comfyui = Comfyui::start().await;
    let workflow = json!({
        "1": {"class_type": "TestPhoto", "inputs": {"width": 256, "height": 256, "batch_size": 1, "alpha": false, "seed": 5}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "q"}},
    });
    let mut sizes = Vec::new();
    for quality in ["0", "20", "90", "95"] {
        let server = Server::ready(&comfyui, &["--jpeg-quality", quality]).await;
        let answer = server.invoke(Some("image/jpeg"), &workflow).await;
        assert_eq!(answer.picture().width(), 256);
        sizes.push(answer.body.len());
        let same = server.post(&[("accept", "image/jpeg"), (ATTRIBUTES, "quality=20")], workflow.to_string()).await;
        if quality == "20" {
            assert_eq!(same.body, answer.body);
        } else {
            assert_eq!(
                same.body.len(),
                server
                    .post(&[("accept", "image/jpeg"), ("x-comfy-quality", "20")], workflow.to_string())
                    .await
                    .body
                    .len()
            );
        }
    }
    assert!(sizes.is_sorted() && sizes[0] < sizes[3] / 4, "{sizes:?}");
}

#[tokio::test]
async fn attributes_tell_about_the_job() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let mut workflow = slow(u32::MAX >> 8, 0.1);
    workflow["2"]["inputs"]["seed"] = json!(u64::MAX);
    let answer = server.invoke(None, &workflow).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.attribute("seed"), Some("18446744073709551615"));
    assert_eq!(answer.header("x-comfy-seed"), "18446744073709551615");
    assert_eq!((answer.attribute("node"), answer.attribute("outputs")), (Some("9"), Some("1")));
    let number = |name| answer.attribute(name).and_then(|text| text.parse::<u64>().ok()).expect("a number");
    assert!(number("duration_ms") >= 100 && number("queue_ms") < number("duration_ms"));
    let line = server.requests().pop().expect("a line");
    assert_eq!(line["prompt_id"].as_str(), answer.attribute("prompt_id"));
    assert_eq!((&line["outcome"], &line["status"]), (&json!("ok"), &json!(200)));
    assert_eq!(line["response_bytes"], json!(answer.body.len()));
}

#[tokio::test]
async fn the_log_tells_about_the_job_of_a_request_that_failed() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--invocation-timeout", "1.5"]).await;
    let mut failing = flat(1);
    failing["2"] = json!({"class_type": "TestFail", "inputs": {"image": ["1", 0], "message": "boom", "seed": 1}});
    failing["9"]["inputs"]["images"] = json!(["2", 0]);
    assert_eq!(server.invoke(None, &failing).await.status, 422);
    assert_eq!(server.invoke(None, &slow(2, 60.0)).await.status, 504);
    assert!(comfyui.clean().await);
    assert!(crate::harness::abandon(&server, &slow(3, 60.0), Duration::from_millis(800)).await);
    assert!(soon(async || server.requests().len() == 3).await);
    let requests = server.requests();
    for (line, outcome) in requests.iter().zip(["execution_failed", "timeout", "client_gone"]) {
        assert_eq!(line["outcome"], outcome);
        assert_eq!(line["prompt_id"].as_str().map(str::len), Some(36), "{line}");
        assert!(line["queue_ms"].as_u64().is_some_and(|queued| queued < 1000), "{line}");
    }
    // One that never became a job has neither.
    assert_eq!(server.post(&[], "{").await.status, 400);
    assert!(soon(async || server.requests().len() == 4).await);
    let line = server.requests().pop().expect("a line");
    assert!(line.get("prompt_id").is_none_or(Value::is_null) && line.get("queue_ms").is_none_or(Value::is_null));
}

#[tokio::test]
async fn an_envelope_as_the_page_sends_it() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let envelope =
        json!({"client_id": "page", "prompt": flat(number(RED)), "extra_data": {"extra_pnginfo": {"workflow": {}}}});
    let answer = server.invoke(None, &envelope).await;
    assert_eq!(color(&answer.picture()), RED);
}

#[tokio::test]
async fn pictures_that_come_along() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let png = |rgb: [u8; 3]| {
        let mut png = std::io::Cursor::new(Vec::new());
        let picture = image::RgbImage::from_pixel(32, 32, image::Rgb(rgb));
        image::DynamicImage::ImageRgb8(picture).write_to(&mut png, image::ImageFormat::Png).expect("encodes");
        base64::engine::general_purpose::STANDARD.encode(png.into_inner())
    };
    let envelope = |name: &str, rgb| {
        json!({
            "prompt": {
                "1": {"class_type": "LoadImage", "inputs": {"image": name}},
                "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "i"}},
            },
            "images": [{"name": "in.png", "data": png(rgb)}],
        })
    };
    // The same name in two requests at once, and again after.
    let (red, green) = (envelope("in.png", RED), envelope("in.png", [30, 200, 30]));
    let (one, two) = tokio::join!(server.invoke(None, &red), server.invoke(None, &green));
    assert_eq!(color(&one.picture()), RED);
    assert_eq!(color(&two.picture()), [30, 200, 30]);
    assert_eq!(color(&server.invoke(None, &red).await.picture()), RED);
    let unused = server.invoke(None, &envelope("other.png", RED)).await;
    assert_eq!(unused.failure(), (400, "unused_image".into()));
    let mut broken = red.clone();
    broken["images"][0]["data"] = json!("aGVsbG8=");
    let answer = server.invoke(None, &broken).await;
    assert!(answer.status.is_client_error(), "{:?}", answer.failure());
    assert!(comfyui.clean().await, "left: {:?}", comfyui.left_files());
}

#[tokio::test]
async fn all_outputs_as_multipart() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let mut workflow = flat(number(RED));
    workflow["1"]["inputs"]["batch_size"] = json!(3);
    let headers = [("accept", "image/png"), (ATTRIBUTES, "output=all")];
    for _ in 0..2 {
        let answer = server.post(&headers, workflow.to_string()).await;
        assert_eq!(answer.status, 200);
        let boundary =
            answer.content_type().strip_prefix("multipart/mixed; boundary=").expect("multipart").trim_matches('"');
        let starts = answer.body.windows(4).filter(|window| window == b"\x89PNG").count();
        let delimiters = answer.body.windows(boundary.len()).filter(|window| *window == boundary.as_bytes()).count();
        assert_eq!((starts, delimiters, answer.attribute("outputs")), (3, 4, Some("3")));
    }
    assert_eq!(color(&server.invoke(None, &workflow).await.picture()), RED, "the first of a batch");
    assert!(comfyui.clean().await);
}

#[tokio::test]
async fn outputs_that_are_no_still_picture() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let image = json!({"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 4, "color": 7}});
    let animated = json!({"1": image, "2": {"class_type": "SaveAnimatedWEBP", "inputs": {"images": ["1", 0],
        "filename_prefix": "a", "fps": 6.0, "lossless": true, "quality": 80, "method": "default"}}});
    let answer = server.invoke(Some("*/*"), &animated).await;
    assert_eq!((answer.status.as_u16(), answer.content_type()), (200, "image/webp"));
    assert!(answer.body.starts_with(b"RIFF"));
    let film = json!({"1": image, "2": {"class_type": "SaveWEBM", "inputs": {"images": ["1", 0],
        "filename_prefix": "v", "codec": "vp9", "fps": 6.0, "crf": 32.0}}});
    let answer = server.invoke(Some("*/*"), &film).await;
    assert_eq!((answer.status.as_u16(), answer.content_type()), (200, "video/webm"));
    assert_eq!(server.invoke(Some("image/*"), &film).await.failure(), (406, "not_acceptable".into()));
    let text = json!({"1": {"class_type": "PrimitiveString", "inputs": {"value": "hello"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}});
    let answer = server.invoke(None, &text).await;
    assert_eq!((answer.content_type(), &answer.body[..]), ("text/plain; charset=utf-8", &b"hello"[..]));
    let latent = json!({"1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "2": {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "l"}}});
    let answer = server.invoke(Some("*/*"), &latent).await;
    assert_eq!((answer.status.as_u16(), answer.content_type()), (200, "application/octet-stream"));
    assert!(comfyui.clean().await, "left: {:?}", comfyui.left_files());
}

#[tokio::test]
async fn a_picture_that_comes_on_the_socket_alone() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let mut workflow = flat(number(RED));
    workflow["9"] = json!({"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}});
    let answer = server.invoke(None, &workflow).await;
    assert_eq!((answer.content_type(), color(&answer.picture())), ("image/png", RED));
    // Previews come the same way, and are not the picture.
    let mut previews = slow(number(RED), 0.1);
    previews["2"]["inputs"]["previews"] = json!(true);
    assert_eq!(color(&server.invoke(None, &previews).await.picture()), RED);
}

#[tokio::test]
async fn a_file_outside_of_the_output_directory_is_refused_by_comfyui() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let mut workflow = flat(1);
    workflow["9"] = json!({"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "../x"}});
    let answer = server.invoke(None, &workflow).await;
    assert_eq!(answer.failure(), (422, "execution_failed".into()));
}

#[tokio::test]
async fn a_picture_that_was_lost_with_the_socket_is_not_the_workflows_fault() {
    let comfyui = Comfyui::start().await;
    let Some(stand_in) = comfyui.stand_in() else { return };
    let server = Server::ready(&comfyui, &[]).await;
    let mut workflow = slow(1, 1.0);
    workflow["9"] = json!({"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}});
    let (answer, ()) = tokio::join!(server.post(&[], workflow.to_string()), async {
        assert!(soon(async || comfyui.remaining().await == 1).await);
        stand_in.cut_sockets();
    });
    assert_eq!(answer.failure(), (503, "job_lost".into()));
    assert_eq!(server.invoke(None, &workflow).await.status, 200);
}

#[tokio::test]
async fn a_workflow_that_is_valid_in_part_says_what_was_left_out() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let mut workflow = flat(number(RED));
    workflow["3"] = json!({"class_type": "SaveImage", "inputs": {"images": ["77", 0], "filename_prefix": "x"}});
    let answer = server.invoke(None, &workflow).await;
    assert_eq!((color(&answer.picture()), answer.attribute("invalid_nodes")), (RED, Some("3")));
}

#[tokio::test]
async fn too_large_and_too_many() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--max-body-mb", "1", "--max-queue", "2"]).await;
    let mut large = flat(1);
    large["9"]["inputs"]["note"] = json!("x".repeat(1_000_000));
    let answer = server.invoke(None, &large).await;
    assert_eq!(answer.failure(), (413, "too_large".into()));
    large["9"]["inputs"]["note"] = json!("x".repeat(900_000));
    assert_eq!(server.invoke(None, &large).await.status, 200);

    let bodies: Vec<String> = (0..5).map(|number| slow(number, 1.0).to_string()).collect();
    let answers = futures::future::join_all(bodies.iter().map(|body| server.post(&[], body.clone()))).await;
    let (ok, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((ok.len(), refused.len()), (2, 3));
    for answer in refused {
        assert_eq!(answer.failure(), (503, "queue_full".into()));
        assert!(answer.header("retry-after").parse::<u64>().expect("seconds") >= 1);
    }
    assert!(comfyui.clean().await);
}

#[tokio::test]
async fn other_paths_and_methods() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    for (method, path, status, code) in [
        (Method::GET, "/", 404, "not_found"),
        (Method::POST, "/prompt", 404, "not_found"),
        (Method::GET, "/ping/x", 404, "not_found"),
        (Method::GET, "/invocations", 405, "method_not_allowed"),
        (Method::POST, "/ping", 405, "method_not_allowed"),
    ] {
        let answer = send(method, &server.url(path), &[], "").await;
        assert_eq!(answer.failure(), (status, code.into()), "{path}");
        if status == 405 {
            assert!(!answer.header("allow").is_empty());
        }
    }
}

#[tokio::test]
async fn nobody_at_the_other_end() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    comfyui.kill();
    let answer = server.invoke(None, &flat(1)).await;
    assert_eq!(answer.failure(), (503, "not_ready".into()));
    assert!(!answer.header("retry-after").is_empty());
    comfyui.restart().await;
    assert_eq!(server.invoke(None, &flat(1)).await.status, 200);
}

#[tokio::test]
async fn headers_are_shown_for_debugging_without_credentials() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--debug-header"]).await;
    let headers = [("authorization", "Bearer s3cret"), ("cookie", "a=s3cret"), ("x-visible", "seen")];
    assert_eq!(server.post(&headers, flat(1).to_string()).await.status, 200);
    let log = server.lines().join("\n");
    assert!(log.contains("x-visible: seen") && log.contains("authorization: ***") && !log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn nothing_of_the_prompt_is_logged() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &[]).await;
    let secret = |workflow: Value| {
        serde_json::from_str::<Value>(&workflow.to_string().replace("ComfyUI", "mySecret")).expect("JSON")
    };
    let mut failing = secret(flat(1));
    failing["1"]["class_type"] = json!("mySecretClass");
    assert_eq!(server.invoke(None, &failing).await.status, 400);
    assert_eq!(server.invoke(None, &secret(flat(2))).await.status, 200);
    assert_eq!(server.post(&[], "{\"mySecret").await.status, 400);
    assert!(soon(async || server.requests().len() == 3).await);
    assert!(!server.lines().join("\n").contains("mySecret"));
}

#[tokio::test]
async fn metrics_have_a_loopback_port_of_their_own() {
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--metrics-port", "0"]).await;
    assert_eq!(server.invoke(None, &flat(1)).await.status, 200);
    let lines = server.lines().join("\n");
    let url =
        lines.split_once("metrics on ").and_then(|(_, rest)| rest.split('"').next()).expect("a line with the port");
    assert!(url.starts_with("http://127.0.0.1:"));
    let text = send(Method::GET, url, &[], "").await;
    let text = String::from_utf8_lossy(&text.body).into_owned();
    assert!(text.contains("comfy_serve_requests_total{outcome=\"ok\",status=\"200\"} 1"), "{text}");
    assert_eq!(send(Method::GET, &server.url("/metrics"), &[], "").await.status, 404);
}

#[tokio::test]
async fn a_slow_upload_ends_with_the_deadline() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let comfyui = Comfyui::start().await;
    let server = Server::ready(&comfyui, &["--invocation-timeout", "0.5"]).await;
    let mut connection = tokio::net::TcpStream::connect(&server.address).await.expect("connects");
    connection.write_all(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").await.expect("sent");
    let mut answer = vec![0; 1024];
    let read = tokio::time::timeout(Duration::from_secs(10), connection.read(&mut answer)).await.expect("an answer");
    assert!(String::from_utf8_lossy(&answer[..read.expect("readable")]).starts_with("HTTP/1.1 408"));
    assert!(try_send(Method::GET, &server.url("/ping"), &[], "").await.is_ok());
    assert!(files(&comfyui.path("output")).is_empty());
}
