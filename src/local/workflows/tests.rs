use super::*;
use crate::config::{Config, CustomNode};

const GOOD: &str = r#"{
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "POSITIVE_PROMPT_PLACEHOLDER", "images": ["1", 0]}}
}"#;

fn checked(text: &str, surroundings: &Surroundings) -> Checked {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.json");
    std::fs::write(&file, text).unwrap();
    Checked::file(&file, Path::new("flows/w.json"), surroundings).unwrap()
}

fn config(more: &str) -> Config {
    serde_yaml::from_str(&format!("version: 1\napp: comfy\n{more}")).unwrap()
}

#[test]
fn the_built_in_classes_are_of_the_comfyui_that_is_the_default() {
    let surroundings = Surroundings::of(&config(""), None);
    assert!(!surroundings.other_version && !surroundings.custom_nodes);
    let other = config("comfyui: {ref: 0000000000000000000000000000000000000000}");
    assert!(Surroundings::of(&other, None).other_version);
    let mut custom = config("");
    custom.comfyui.custom_nodes.push(CustomNode { url: "https://example.com/x".into(), git_ref: "0".repeat(40) });
    assert!(Surroundings::of(&custom, None).custom_nodes);
    let prebuilt = Surroundings::of(&config("image: {uri: \"comfy:v1\"}"), None);
    assert!(prebuilt.custom_nodes && prebuilt.other_version);
}

#[test]
fn what_is_wrong_is_counted_and_told_in_a_line() {
    let nothing = Surroundings::default();
    let good = checked(GOOD, &nothing);
    assert_eq!((good.state().as_str(), good.warning()), ("good", None));
    let text = GOOD.replace("64", "-1").replace("POSITIVE", "X");
    let bad = checked(&text, &nothing);
    assert_eq!(bad.state(), "2 errors, 1 warning");
    let line = bad.warning().unwrap();
    assert!(
        line.starts_with("workflow flows/w.json: 2 errors, 1 warning, such as error: node 1 (EmptyImage), width:"),
        "{line}"
    );
    let none = checked("{", &nothing);
    assert_eq!((none.state().as_str(), none.count(Severity::Error)), ("1 error", 1));
}

#[test]
fn models_are_those_of_the_directory_that_are_selected() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.safetensors", "b.safetensors"] {
        std::fs::create_dir_all(dir.path().join("models/checkpoints")).unwrap();
        std::fs::write(dir.path().join("models/checkpoints").join(name), "x").unwrap();
    }
    let names = |config: &Config| {
        let models = models(dir.path(), config).unwrap();
        models.map(|models| models.names("checkpoints").map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(names(&config("")).unwrap(), ["a.safetensors", "b.safetensors"]);
    assert_eq!(names(&config("models: {files: [\"**/b.*\"]}")).unwrap(), ["b.safetensors"]);
    assert_eq!(names(&config("models: {uri: \"s3://bucket/key\"}")), None);
    assert!(models(dir.path(), &config("models: {dir: none}")).is_err());
}

#[test]
fn files_are_sorted_and_neither_hidden_nor_directories() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.json", "a.json", ".hidden.json", "notes.txt"] {
        std::fs::write(dir.path().join(name), GOOD).unwrap();
    }
    std::fs::create_dir(dir.path().join("dir.json")).unwrap();
    let found = files(dir.path()).unwrap();
    let names: Vec<&str> = found.iter().map(|file| name(file).unwrap()).collect();
    assert_eq!(names, ["a.json", "b.json"]);
}
