//! The files beside the Dockerfile: the locks, the script that makes them, and the model folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use comfy_deploy::config::Comfyui;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ran, python, run};

/// What is written down twice agrees: the default ComfyUI, and the locks that were made for it.
#[test]
fn the_dockerfile_the_locks_and_the_config_name_the_same_comfyui() {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("image").join(name)).unwrap();
    let commit = Comfyui::default().git_ref;
    assert!(read("Dockerfile").contains(&format!("\nARG COMFYUI_GIT_REF={commit}\n")));
    assert!(read("requirements/comfyui.lock").contains(&format!("#   ComfyUI {commit}\n")));
    let torch = read("requirements/torch.lock");
    for line in read("requirements/torch.in").lines().filter(|line| !line.starts_with('#')) {
        assert!(torch.contains(&format!("\n{line} \\\n")), "{line} is not locked");
    }
}

/// No package is in two locks, so that the stages that install them need nothing of each other; every one has a hash.
#[test]
fn the_locks_are_hashed_and_apart() {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/requirements");
    let mut seen = BTreeSet::new();
    for name in ["torch.lock", "comfyui.lock"] {
        let text = fs::read_to_string(image.join(name)).unwrap().replace("\\\n", "");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (package, rest) = line.split_once("==").unwrap_or_else(|| panic!("{name}: {line}"));
            assert!(rest.contains("--hash=sha256:"), "{name}: {package} has no hash");
            assert!(seen.insert(package.to_owned()), "{package} is in both locks");
        }
    }
    assert!(seen.len() > 60, "{seen:?}");
}

/// Every folder of the model artifact is told to ComfyUI, those with old names too.
#[test]
fn model_folders() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/extra_model_paths.yaml");
    let all: Value = serde_yaml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let mut group = all["sagemaker"].as_object().unwrap().clone();
    assert_eq!(group.remove("base_path"), Some(json!("/opt/ml/model")));
    assert_eq!(group.remove("is_default"), Some(json!(true)));
    // The folder types of ComfyUI 0.3.64, but custom_nodes: see image/model_nodes. And those that newer ones have.
    let types = "audio_encoders checkpoints classifiers clip_vision configs controlnet diffusers diffusion_models embeddings \
                 gligen hypernetworks loras model_patches photomaker style_models text_encoders upscale_models vae vae_approx \
                 background_removal detection frame_interpolation geometry_estimation latent_upscale_models optical_flow";
    assert_eq!(group.keys().map(String::as_str).collect::<BTreeSet<_>>(), types.split_whitespace().collect());
    for (kind, folders) in &group {
        let folders: Vec<_> = folders.as_str().unwrap().lines().collect();
        let (last, old) = folders.split_last().unwrap();
        let expected: &[&str] = match kind.as_str() {
            "text_encoders" => &["clip"],
            "diffusion_models" => &["unet"],
            "controlnet" => &["controlnet"],
            _ => &[],
        };
        assert_eq!(old, expected, "{kind}");
        assert!(*last == kind || *last == "t2i_adapter", "{kind}: {last}");
    }
}

/// A git repository with one file of requirements; returns `URL@COMMIT`.
fn repository(dir: &Path, requirements: &str) -> String {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("requirements.txt"), requirements).unwrap();
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(dir).args(["-c", "user.name=test", "-c", "user.email=test@example.invalid"]).args(args);
        command.env("GIT_COMMITTER_DATE", "2025-10-12T00:00:00Z");
        let ran = run(command).exits(0);
        ran.stdout.trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "test"]);
    format!("{}@{}", dir.display(), git(&["rev-parse", "HEAD"]))
}

/// The script on a copy, with small packages in place of torch.
#[test]
fn locks_are_made_for_commits_and_stay_until_something_asks_for_more() {
    let dir = TempDir::new().unwrap();
    let image = dir.path().join("image");
    fs::create_dir_all(image.join("requirements")).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("image");
    for name in ["lock", "Dockerfile", "requirements/builder.in", "requirements/builder.lock"] {
        fs::copy(shipped.join(name), image.join(name)).unwrap();
    }
    fs::write(image.join("requirements/torch.in"), "idna==3.10\n").unwrap();
    let comfyui = repository(&dir.path().join("comfyui"), "idna\npackaging<=25.0\n");
    let node = repository(&dir.path().join("node"), "packaging<25\nsix\n");
    let bin = python().parent().unwrap().to_owned();
    let lock = |args: &[&str]| -> Ran {
        let mut command = Command::new(python());
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        command.arg(image.join("lock")).args(["--comfyui", &comfyui]).args(args).env("PATH", path);
        run(command)
    };
    let locked = |name: &str| {
        let text = fs::read_to_string(image.join("requirements").join(name)).unwrap();
        let packages = text.lines().filter(|line| line.contains("==")).map(|line| line.replace(" \\", ""));
        packages.collect::<Vec<_>>()
    };

    lock(&["--check"]).exits(1);
    lock(&[]).exits(0);
    assert_eq!(locked("torch.lock"), ["idna==3.10"]);
    assert_eq!(
        locked("comfyui.lock"),
        ["packaging==25.0"],
        "nothing that torch.lock has, nothing newer than the commit"
    );
    lock(&["--check"]).exits(0);

    // A custom node that wants less: both are satisfied by one version.
    lock(&["--check", "--node", &node]).exits(1);
    lock(&["--node", &node]).exits(0);
    assert_eq!(locked("comfyui.lock"), ["packaging==24.2", "six==1.17.0"]);
    let header = fs::read_to_string(image.join("requirements/comfyui.lock")).unwrap();
    assert!(header.contains(&node), "{header}");
    // Without it again: what still fits stays as it was, until newer versions are wanted.
    lock(&[]).exits(0);
    assert_eq!(locked("comfyui.lock"), ["packaging==24.2"]);
    lock(&["--upgrade"]).exits(0);
    assert_eq!(locked("comfyui.lock"), ["packaging==25.0"]);

    // The commit from a config, as comfy-deploy reads it.
    let (url, commit) = comfyui.rsplit_once('@').unwrap();
    let dockerfile = fs::read_to_string(image.join("Dockerfile")).unwrap();
    let dockerfile = dockerfile.replace("https://github.com/comfyanonymous/ComfyUI", url);
    fs::write(image.join("Dockerfile"), dockerfile).unwrap();
    let config = dir.path().join("comfy-deploy.yaml");
    let text = format!("version: 1\napp: comfy\nregion: eu-west-1\ncomfyui: {{ref: {commit}}}\n");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(python());
    let program = Path::new(env!("CARGO_BIN_EXE_comfy-deploy")).parent().unwrap();
    let path = format!("{}:{}:{}", bin.display(), program.display(), std::env::var("PATH").unwrap());
    command.arg(image.join("lock")).args(["--check", "--config"]).arg(&config).env("PATH", path);
    run(command).exits(0);

    let wrong = repository(&dir.path().join("wrong"), "packaging>25\n");
    let ran = lock(&["--node", &wrong]).exits(1);
    assert!(ran.stderr.contains("packaging>25"), "{}", ran.stderr);
    assert_eq!(locked("comfyui.lock"), ["packaging==25.0"], "a failure changed the lock");
}
