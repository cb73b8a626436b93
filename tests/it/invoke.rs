//! From a sentence to a picture, with everything in between real but the GPU: signed request, Function URL, handler
//! binary, SageMaker's API, comfy-serve, and the stand-in for ComfyUI, whose pictures show what went into them.

use std::process::Command;
use std::time::Duration;

use comfyui_stand_in::{Picture, Shown, picture_digest, read};
use serde_json::{Value, json};

use crate::support::{App, Ran, Sandbox, run};

pub const STEPS: u16 = 3;
/// Steps of a sampler that the stand-in refuses, as ComfyUI does.
const TOO_MANY: u32 = 20_000;

/// Text to image, or image to image, with the app's own model.
pub fn workflow(from_image: bool) -> Value {
    let mut nodes = json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "POSITIVE_PROMPT_PLACEHOLDER", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "NEGATIVE_PROMPT_PLACEHOLDER", "clip": ["1", 1]}},
        "5": {"class_type": "KSampler", "_meta": {"title": "Sampler"}, "inputs": {
            "seed": 0, "steps": STEPS, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"filename_prefix": "comfy", "images": ["6", 0]}},
    });
    if from_image {
        nodes["8"] = json!({"class_type": "LoadImage", "inputs": {"image": "image.png"}});
        nodes["4"] = json!({"class_type": "VAEEncode", "inputs": {"pixels": ["8", 0], "vae": ["1", 2]}});
    } else {
        nodes["4"] =
            json!({"class_type": "EmptyLatentImage", "inputs": {"width": 256, "height": 256, "batch_size": 1}});
    }
    nodes
}

/// A deployed app whose endpoint runs.
fn deployed<'a>(sandbox: &'a Sandbox, lambda: &str) -> App<'a> {
    let app = App::with_image(sandbox, &format!("lambda: {lambda}\n"));
    app.write("workflows/workflow_api.json", &workflow(false).to_string());
    app.write("workflows/from-image.json", &workflow(true).to_string());
    let mut broken = workflow(false);
    broken["1"]["inputs"]["ckpt_name"] = "missing.safetensors".into();
    app.write("workflows/broken.json", &broken.to_string());
    let up = app.run(&["up", "--yes"]).exits(0);
    assert!(up.stdout.contains("invoke \"a happy dog on a hill\""), "{}", up.stdout);
    app
}

fn picture(app: &App<'_>, file: &str) -> Picture {
    let bytes = std::fs::read(app.path(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    Picture::decode(&bytes).unwrap_or_else(|e| panic!("{file}: {e}"))
}

#[track_caller]
fn shows(app: &App<'_>, file: &str) -> Shown {
    read(&picture(app, file)).expect("a picture of the stand-in")
}

/// Files in the app's directory that end like pictures, or that were left half written.
fn pictures(app: &App<'_>) -> Vec<String> {
    let names = std::fs::read_dir(app.dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|n| [".jpg", ".png", ".webp"].iter().any(|e| n.ends_with(e)) || n.starts_with(".comfy-deploy-"))
        .collect();
    names.sort_unstable();
    names
}

/// Output without sizes and times.
fn told(ran: &Ran) -> String {
    let line = |line: &str| match line.splitn(3, "  ").collect::<Vec<_>>()[..] {
        [file, seed, _] => format!("{file}  {seed}  SIZE  TIME\n"),
        _ => format!("{}\n", line.split(" in ").next().unwrap_or_default()),
    };
    ran.stdout.lines().map(line).collect()
}

#[test]
fn text_and_seed_arrive_in_the_pixels_through_every_stage() {
    let sandbox = Sandbox::serving();
    let app = deployed(&sandbox, "{}");

    let ran = app.run(&["invoke", "a happy dog on a hill", "--negative", "rain", "--seed", "7"]).exits(0);
    assert!(std::fs::read(app.path("workflow_api-7.jpg")).unwrap().starts_with(&[0xff, 0xd8, 0xff]), "a JPEG");
    assert_eq!(shows(&app, "workflow_api-7.jpg"), Shown::of("a happy dog on a hill", "rain", 7, STEPS));
    assert!(ran.stdout.starts_with("workflow_api-7.jpg  seed 7  "), "{}", ran.stdout);
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);

    // Another text and another seed are another picture, by a name without .json and in another format.
    let args = [
        "invoke",
        "a cat",
        "-w",
        "workflow_api",
        "--seed",
        "18446744073709551615",
        "-o",
        "cat.png",
        "--output",
        "json",
    ];
    let data = app.run(&args).exits(0).data();
    assert_eq!(shows(&app, "cat.png"), Shown::of("a cat", "", u64::MAX, STEPS));
    assert!(std::fs::read(app.path("cat.png")).unwrap().starts_with(b"\x89PNG"), "by the file's ending");
    let one = &data["pictures"][0];
    assert_eq!(
        (&one["seed"], &one["content_type"], &one["path"]),
        (&json!(u64::MAX), &json!("image/png"), &json!("cat.png"))
    );
    assert!(one["prompt_id"].is_string() && one["duration_ms"].is_u64() && one["bytes"].is_u64(), "{one}");

    // Without a seed one is drawn, told, and used.
    let data = app.run(&["invoke", "a cat", "-o", "drawn.jpg", "--output", "json"]).exits(0).data();
    assert_eq!(shows(&app, "drawn.jpg").seed, data["pictures"][0]["seed"].as_u64().unwrap());

    // Params by id and by title.
    app.run(&["invoke", "a", "--param", "4.width=512", "--param", "Sampler.steps=9", "-o", "wide.png"]).exits(0);
    assert_eq!((picture(&app, "wide.png").width, picture(&app, "wide.png").height), (512, 256));
    assert_eq!(shows(&app, "wide.png").steps, 9);

    // A picture from a picture.
    app.run(&["invoke", "winter", "-w", "from-image", "--image", "cat.png", "-o", "winter.png"]).exits(0);
    assert_eq!(shows(&app, "winter.png").original, picture_digest(&picture(&app, "cat.png")));

    // Straight to the endpoint, by the function's own code.
    app.run(&["invoke", "direct", "--direct", "--seed", "5", "-o", "direct.webp"]).exits(0);
    assert_eq!(shows(&app, "direct.webp"), Shown::of("direct", "", 5, STEPS));

    // Several: consecutive seeds, a line each and a summary.
    let ran = app.run(&["invoke", "many", "--seed", "20", "-n", "3", "-w", "workflow_api.json"]).exits(0);
    for seed in 20..23 {
        assert_eq!(shows(&app, &format!("workflow_api-{seed}.jpg")), Shown::of("many", "", seed, STEPS));
    }
    insta::assert_snapshot!(told(&ran));
}

#[test]
fn nothing_is_overwritten_and_mistakes_have_their_codes() {
    let sandbox = Sandbox::serving();
    let app = deployed(&sandbox, "{url_mode: buffered}");

    app.write("workflow_api-7.jpg", "mine");
    sandbox.forget_calls();
    let ran = app.run(&["invoke", "a", "--seed", "7"]).exits(2);
    assert!(
        ran.stderr.contains("workflow_api-7.jpg is there already") && ran.stderr.contains("--force"),
        "{}",
        ran.stderr
    );
    assert!(sandbox.calls().is_empty(), "told before anything is called: {:?}", sandbox.calls());
    let ran = app.run(&["invoke", "a", "--seed", "6", "-n", "3"]).exits(2);
    assert!(ran.stderr.contains("workflow_api-7.jpg"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(app.path("workflow_api-7.jpg")).unwrap(), "mine");
    // Through a buffered URL, too.
    app.run(&["invoke", "a", "--seed", "7", "--force"]).exits(0);
    assert_eq!(shows(&app, "workflow_api-7.jpg"), Shown::of("a", "", 7, STEPS));
    app.run(&["invoke", "a", "-o", "no/such/dir.jpg"]).exits(2);

    let files = pictures(&app);
    let steps = format!("Sampler.steps={TOO_MANY}");
    for (args, code, words) in [
        (
            vec!["invoke", "a", "-w", "workflow_apy"],
            2,
            vec!["no such workflow", "workflow_api.json", "from-image.json", "workflow ls"],
        ),
        (vec!["invoke", "a", "-w", "../secret"], 2, vec!["without any path"]),
        (vec!["invoke", "a", "--param", "4.widht=1"], 2, vec!["widht", "width"]),
        (vec!["invoke", "  "], 2, vec!["positive_prompt is missing or empty"]),
        (
            vec!["invoke", "a", "-w", "broken"],
            1,
            vec!["ComfyUI could not make", "node 1 (CheckpointLoaderSimple)", "missing.safetensors"],
        ),
        (vec!["invoke", "a", "--param", &steps], 1, vec!["node 5 (KSampler)", "steps"]),
        (vec!["invoke", "a", "-w", "broken", "--direct"], 1, vec!["node 1 (CheckpointLoaderSimple)"]),
        (vec!["invoke", "a", "-w", "nowhere", "--direct"], 2, vec!["there is no file", "workflow ls"]),
        (vec!["invoke", "a", "-w", "workflow_api", "--image", "workflow_api-7.jpg"], 2, vec!["1 images were sent"]),
    ] {
        let ran = app.run(&args).exits(code);
        for word in words {
            assert!(ran.stderr.contains(word), "{args:?}: no {word:?} in\n{}", ran.stderr);
        }
    }
    assert_eq!(pictures(&app), files, "no file of a picture that was not made");

    // What the app says may be had later is asked for again: the function gives up after four attempts of its own.
    sandbox
        .break_things(json!([{"kind": "throttle", "service": "sagemaker", "operation": "InvokeEndpoint", "times": 5}]));
    let ran = app.run(&["invoke", "again", "--seed", "1"]).exits(0);
    assert!(ran.stderr.contains("again in 5 s"), "{}", ran.stderr);
    assert_eq!(shows(&app, "workflow_api-1.jpg"), Shown::of("again", "", 1, STEPS));
}

/// Key, secret and token of a session of a role that may do this with every function.
fn session(sandbox: &Sandbox, name: &str, actions: &Value) -> [String; 3] {
    let principal = json!({"AWS": "arn:aws:iam::123456789012:root"});
    let trust = json!({"Statement": {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}});
    let role = json!({"RoleName": name, "AssumeRolePolicyDocument": trust.to_string()});
    let arn = sandbox.call("iam", "CreateRole", role).unwrap()["Role"]["Arn"].clone();
    let policy = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": actions, "Resource": "*"}});
    let policy = json!({"RoleName": name, "PolicyName": "p", "PolicyDocument": policy.to_string()});
    sandbox.call("iam", "PutRolePolicy", policy).unwrap();
    let made = sandbox.call("sts", "AssumeRole", json!({"RoleArn": arn, "RoleSessionName": "test"})).unwrap();
    ["AccessKeyId", "SecretAccessKey", "SessionToken"]
        .map(|part| made["Credentials"][part].as_str().unwrap().to_owned())
}

#[test]
fn only_signed_requests_get_through_and_the_curl_line_is_one() {
    let sandbox = Sandbox::serving();
    let app = deployed(&sandbox, "{}");
    let ran = app.run(&["invoke", "the dog's \"hill\" $HOME", "--seed", "3", "--curl"]).exits(0);
    let line = ran.stdout.trim();
    assert!(!line.contains("sandbox:sandbox") && line.contains("$AWS_SECRET_ACCESS_KEY"), "{line}");
    assert!(pictures(&app).is_empty(), "nothing was called");
    let shell_with = |line: &str, key: &str, secret: &str, token: Option<&str>| -> Ran {
        let mut command = Command::new("sh");
        // A script may stop at variables that are not set.
        command.args(["-uc", line]).current_dir(app.dir.path()).env("NO_PROXY", "127.0.0.1");
        command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret).env_remove("AWS_SESSION_TOKEN");
        command.envs(token.map(|token| ("AWS_SESSION_TOKEN", token)));
        run(command)
    };
    let shell = |line: &str, key: &str, secret: &str| shell_with(line, key, secret, None);
    shell(line, "sandbox", "sandbox").exits(0);
    assert_eq!(shows(&app, "workflow_api-3.jpg"), Shown::of("the dog's \"hill\" $HOME", "", 3, STEPS));

    // The keys of a session, which are worth nothing without its token, nor without both actions.
    for (actions, allowed) in [
        (json!(["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"]), true),
        (json!("lambda:InvokeFunctionUrl"), false),
    ] {
        let [key, secret, token] = session(&sandbox, if allowed { "both" } else { "one" }, &actions);
        let line = line.replace("--output 'workflow_api-3.jpg'", "--output session.jpg");
        let ran = shell_with(&line, &key, &secret, Some(&token));
        assert_eq!(ran.code == 0, allowed, "{actions}: {}", ran.stderr);
        let without = shell_with(&line, &key, &secret, None).exits(22);
        assert!(without.stderr.contains("403"), "{}", without.stderr);
    }

    let url = app.run(&["status", "--output", "json"]).exits(0).data()["function"]["url"].as_str().unwrap().to_owned();
    let unsigned = sandbox.http().post(&url).body(r#"{"positive_prompt":"a"}"#).send().unwrap();
    assert_eq!(unsigned.status(), 403);
    // curl's exit code 22: an answer of 400 or more.
    for (line, key, secret) in [
        (line.to_owned(), "sandbox", "wrong"),
        (line.to_owned(), "expired", "sandbox"),
        (line.replace("eu-west-1:lambda", "eu-west-1:s3"), "sandbox", "sandbox"),
        (format!("{line} --header 'x-amz-date: 20200101T000000Z'"), "sandbox", "sandbox"),
    ] {
        let ran = shell(&line.replace("--output 'workflow_api-3.jpg'", "--output -"), key, secret);
        assert_eq!(ran.code, 22, "{line}\n{}\n{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("403"), "{}", ran.stderr);
    }

    let status = app.run(&["status"]).exits(0);
    for action in ["lambda:InvokeFunctionUrl", "\"lambda:InvokeFunction\""] {
        assert!(status.stdout.contains(action), "{}", status.stdout);
    }
}

#[test]
fn an_open_url_needs_no_signature_and_ctrl_c_leaves_no_file() {
    let sandbox = Sandbox::serving();
    let app = deployed(&sandbox, "{url: none}");
    let ran = app.run(&["invoke", "open", "--seed", "4", "--curl"]).exits(0);
    assert!(!ran.stdout.contains("AWS_"), "{}", ran.stdout);
    app.run(&["invoke", "open", "--seed", "4"]).exits(0);
    assert_eq!(shows(&app, "workflow_api-4.jpg"), Shown::of("open", "", 4, STEPS));

    let mut child = app
        .command(&["invoke", "slow", "--seed", "9", "-n", "1000"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let first = app.path("workflow_api-9.jpg");
    let begun = std::time::Instant::now();
    while !first.exists() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = i32::try_from(child.id()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), rustix::process::Signal::INT).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.code(), Some(130));
    for file in pictures(&app) {
        assert!(!file.starts_with('.'), "{file} was left");
        picture(&app, &file);
    }
}
