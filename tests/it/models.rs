//! Models from elsewhere: declared in the config, fetched from a hub on loopback, locked, and deployed.

use serde_json::{Value, json};

use crate::hub::{Hub, TOKEN, sha256};
use crate::support::{App, Ran, Sandbox, run};

const FILES: &str = "models: {files: [{source: 'hf://maker/model/flux1.safetensors', to: checkpoints/}]}\n";

/// A lock of that file, with so many bytes.
fn lock(bytes: u64) -> String {
    let sha256 = "0".repeat(64);
    format!(
        "version: 1\nfiles:\n  checkpoints/flux1.safetensors: \
         {{source: 'hf://maker/model/flux1.safetensors@main', size: {bytes}, sha256: '{sha256}'}}\n"
    )
}

/// The program with the hub in the place of Hugging Face.
fn with_hub(app: &App<'_>, hub: &Hub, args: &[&str]) -> Ran {
    let mut command = app.command(args);
    command.env("HF_ENDPOINT", &hub.url).env("HF_TOKEN", TOKEN);
    run(command)
}

#[test]
fn up_fetches_what_is_declared_and_locks_it() {
    let (sandbox, hub) = (Sandbox::new(), Hub::start());
    let weights = b"weights of a hub ".repeat(40_000);
    hub.put("flux1.safetensors", &weights);
    hub.state().gated = true;
    let app = App::with_image(&sandbox, FILES);
    std::fs::remove_dir_all(app.path("models")).unwrap();

    let planned = with_hub(&app, &hub, &["plan"]).exits(2);
    assert!(planned.stderr.contains("comfy-deploy model fetch"), "{}", planned.stderr);

    let data = with_hub(&app, &hub, &["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(data["model"]["uploaded"], data["model"]["bytes"], "{data}");
    assert_eq!(std::fs::read(app.path("models/checkpoints/flux1.safetensors")).unwrap(), weights);
    let lock = std::fs::read_to_string(app.path("comfy-deploy.lock")).unwrap();
    assert!(lock.contains(&sha256(&weights)), "{lock}");
    assert!(!lock.contains(TOKEN));

    let listed = with_hub(&app, &hub, &["model", "ls", "--output", "json"]).exits(0).data();
    let states: Vec<&Value> = listed["files"].as_array().unwrap().iter().map(|file| &file["state"]).collect();
    assert_eq!(states, ["locked"]);
    with_hub(&app, &hub, &["model", "verify"]).exits(0);

    hub.state().log.clear();
    let again = with_hub(&app, &hub, &["up", "--yes", "--output", "json"]).exits(0).data();
    assert_eq!(again["changed"], json!(false), "{again}");
    assert_eq!(hub.state().log.len(), 0, "an unchanged run asks the hub nothing");

    // Another machine without the files, and a source that moved on: an error, not a new model.
    std::fs::write(app.path("models/checkpoints/flux1.safetensors"), "damaged").unwrap();
    let verified = with_hub(&app, &hub, &["model", "verify"]).exits(1);
    assert!(verified.stdout.contains("flux1.safetensors: differs"), "{}", verified.stdout);
    hub.put("flux1.safetensors", b"other weights");
    let refused = with_hub(&app, &hub, &["up", "--yes", "--output", "json"]).exits(1).error();
    assert!(refused.to_string().contains("comfy-deploy.lock"), "{refused}");
    with_hub(&app, &hub, &["model", "lock", "--upgrade", "flux1.safetensors"]).exits(0);
    with_hub(&app, &hub, &["model", "fetch"]).exits(0);
    assert_eq!(std::fs::read(app.path("models/checkpoints/flux1.safetensors")).unwrap(), b"other weights");
}

#[test]
fn models_that_cannot_fit_on_the_instance_are_refused_before_any_byte_moves() {
    let (sandbox, hub) = (Sandbox::new(), Hub::start());
    hub.put("flux1.safetensors", b"the beginning of many weights");
    hub.state().sizes.insert("flux1.safetensors".into(), 20_000_000_000_000);
    let app = App::with_image(&sandbox, "");
    app.run(&["up", "--yes"]).exits(0);
    let text = std::fs::read_to_string(app.path("comfy-deploy.yaml")).unwrap();
    app.write("comfy-deploy.yaml", &format!("{text}{FILES}"));
    for args in [["up", "--yes"].as_slice(), &["update-model", "--yes"], &["model", "push"]] {
        let args = [args, &["--output", "json"]].concat();
        let error = with_hub(&app, &hub, &args).exits(2).error();
        assert!(error.to_string().contains("GB on the instance, and ml."), "{args:?}: {error}");
    }
    assert_eq!(hub.ranges(), [""; 0], "no content was asked for");
    assert!(!app.path("models/checkpoints/flux1.safetensors").exists() && !app.path("comfy-deploy.lock").exists());

    // Where nothing need be fetched, the artifact is measured before it is sent.
    app.write("comfy-deploy.lock", &lock(20_000_000_000_000));
    app.write("comfy-deploy.yaml", &format!("{text}{}", FILES.replace("models: {", "models: {stream: true, ")));
    hub.state().log.clear();
    for more in [None, Some("--dry-run")] {
        let args: Vec<&str> = ["model", "push", "--output", "json"].into_iter().chain(more).collect();
        let error = with_hub(&app, &hub, &args).exits(2).error();
        assert!(error.to_string().contains("on the instance, and ml."), "{error}");
    }
    assert_eq!(hub.state().log.len(), 0);
}

#[test]
fn a_plan_without_room_for_the_models_is_that_of_up() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let text = std::fs::read_to_string(app.path("comfy-deploy.yaml")).unwrap();
    app.write("comfy-deploy.yaml", &format!("{text}endpoint: {{instance_type: ml.p5.48xlarge}}\n{FILES}"));
    let planned = app.run(&["plan"]).exits(2);
    assert!(planned.stderr.contains("comfy-deploy model fetch"), "{}", planned.stderr);
    app.write("comfy-deploy.lock", &lock(10_000_000_000_000));
    let planned = app.run(&["plan"]).exits(0);
    for word in ["the models need 10.0 TB", "1 file (10.0 TB) will be streamed"] {
        assert!(planned.stderr.contains(word), "{word:?} is not in {}", planned.stderr);
    }
}

#[test]
fn a_refusal_by_the_hub_has_the_exit_code_of_access() {
    let (sandbox, hub) = (Sandbox::new(), Hub::start());
    hub.put("flux1.safetensors", b"weights");
    hub.state().gated = true;
    let app = App::new(&sandbox);
    app.configure("models: {files: ['hf://maker/model/vae/flux1.safetensors']}\n");
    let mut command = app.command(&["model", "fetch", "--output", "json"]);
    command.env("HF_ENDPOINT", &hub.url);
    let error = run(command).exits(7).error();
    assert!(error.to_string().contains(&format!("{}/maker/model", hub.url)), "{error}");
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
}

#[test]
fn sources_and_places_that_are_wrong_are_shown_in_the_config() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    for (entry, words) in [
        ("{source: 'hf://maker/model', to: vae/}", ["models.files[0].source", "hf://owner/repo/path@revision"]),
        ("{source: 'hf://maker/model/x.bin', to: ../out/}", ["models.files[0].to", "not inside"]),
        ("'hf://maker/model/x.bin'", ["models.files[0]", "checkpoints"]),
        ("{source: 'hf://maker/model/x.bin', to: vae/, sha256: abc}", ["sha256", "64"]),
        (
            "{source: 'https://civitai.com/api/download/models/1?token=hidden', to: vae/}",
            ["models.files[0].source", "CIVITAI_API_TOKEN"],
        ),
        ("{sauce: x}", ["sauce", "source"]),
    ] {
        app.configure(&format!("models: {{files: [{entry}]}}\n"));
        let ran = app.run(&["model", "ls"]).exits(2);
        for word in words {
            assert!(ran.stderr.contains(word), "{entry}: {word:?} is not in {}", ran.stderr);
        }
    }
    app.configure("models: {files: [{source: 'hf://maker/model/x.bin', to: checkpoint/}]}\n");
    let ran = app.run(&["model", "ls"]).exits(0);
    for word in ["`checkpoint` is not a model folder", " checkpoints, ", " latent_upscale_models, ", " vae_approx"] {
        assert!(ran.stderr.contains(word), "{word:?} is not in {}", ran.stderr);
    }
    assert!(ran.stdout.contains("not fetched"), "{}", ran.stdout);
}

#[test]
fn an_object_in_s3_comes_as_it_is() {
    let sandbox = Sandbox::new();
    let app = App::with_image(&sandbox, "");
    let model = app.run(&["up", "--yes", "--output", "json"]).exits(0).data()["model"].clone();
    let (bucket, key) = (model["bucket"].as_str().unwrap(), model["key"].as_str().unwrap());
    // Any object will do, such as the one that was just made.
    let source =
        |key: &str| format!("models: {{files: [{{source: 's3://{bucket}/{key}', to: loras/x.safetensors}}]}}\n");
    app.configure(&source(key));
    app.run(&["model", "fetch"]).exits(0);
    let came = std::fs::read(app.path("models/loras/x.safetensors")).unwrap();
    assert_eq!(json!(came.len()), model["bytes"]);
    let lock = std::fs::read_to_string(app.path("comfy-deploy.lock")).unwrap();
    assert!(lock.contains(&sha256(&came)) && lock.contains("etag"), "{lock}");
    app.run(&["model", "verify"]).exits(0);
    app.configure(&source("nothing"));
    std::fs::remove_file(app.path("models/loras/x.safetensors")).unwrap();
    let error = app.run(&["model", "fetch", "--output", "json"]).exits(2).error();
    assert!(error.to_string().contains("there is no nothing in the bucket"), "{error}");
}
