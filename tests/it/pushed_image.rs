//! The picture comes out of the container of the image that was pushed: the way that `invoke.rs` follows, with the
//! quickstart's image behind the endpoint. Needs root, runc and the static programs, which `tests/run` makes.

use comfy_sandbox::container::Choice;
use comfyui_stand_in::{Picture, Shown, read};
use serde_json::json;

use crate::support::{App, Sandbox, static_program};

/// What the quickstart's Dockerfile puts together, as one layer.
fn layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8], mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, bytes).unwrap();
    };
    for (name, path) in [("comfy-serve", "usr/local/bin/comfy-serve"), ("comfyui-stand-in", "usr/local/bin/python3")] {
        add(path, &std::fs::read(static_program(name)).unwrap(), 0o755);
    }
    add("opt/comfyui/extra_model_paths.yaml", include_bytes!("../../image/extra_model_paths.yaml"), 0o644);
    builder.into_inner().unwrap()
}

#[test]
fn text_and_seed_arrive_in_the_pixels_of_the_container() {
    let sandbox = Sandbox::serving_by(Choice::Runc);
    let app = App::new(&sandbox);
    sandbox.call("ecr", "CreateRepository", json!({"repositoryName": "comfy"})).unwrap();
    let image = json!({
        "Entrypoint": ["/usr/local/bin/comfy-serve"],
        "Cmd": ["serve"],
        "Env": ["PATH=/usr/local/bin", "COMFYUI_IMAGE_ARGS=--extra-model-paths-config /opt/comfyui/extra_model_paths.yaml"],
    });
    let digest = sandbox.push("comfy", "build-1", image, &layer(), false);
    app.configure(&format!("image: {{uri: 'comfy@{digest}'}}\nlambda: {{}}\n"));
    app.write("workflows/workflow_api.json", &crate::invoke::workflow(false).to_string());
    app.run(&["up", "--yes"]).exits(0);

    let health = sandbox.http().get(format!("{}/_sandbox/health", sandbox.url)).send().unwrap().text().unwrap();
    assert!(
        health.contains(&format!("runc runs 123456789012.dkr.ecr.eu-west-1.amazonaws.com/comfy@{digest}")),
        "{health}"
    );
    for (text, seed) in [("a happy dog on a hill", 7), ("a cat", 8)] {
        let file = format!("{seed}.png");
        app.run(&["invoke", text, "--negative", "rain", "--seed", &seed.to_string(), "-o", &file]).exits(0);
        let picture = Picture::decode(&std::fs::read(app.path(&file)).unwrap()).unwrap();
        let shown = read(&picture).expect("a picture of the stand-in");
        assert_eq!(shown, Shown::of(text, "rain", seed, crate::invoke::STEPS));
    }
    let logs = json!({"logGroupName": "/aws/sagemaker/Endpoints/comfy"});
    let lines = sandbox.call("logs", "FilterLogEvents", logs).unwrap().to_string();
    assert!(lines.contains("Starting server"), "the container's output: {lines}");
    app.run(&["destroy", "--confirm", "comfy"]).exits(0);
}
