//! What the documents say is tried.

use crate::support::{App, Sandbox};

/// The blocks of one language in a Markdown text.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_config_of_the_readme_is_valid_with_every_overlay() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    let readme = include_str!("../../README.md");
    let configs = blocks(readme, "yaml");
    let (whole, sections) = configs.split_first().unwrap();
    app.write("comfy-deploy.yaml", whole);
    for args in [&["config", "check"][..], &["config", "check", "--env", "prod"], &["render", "--env", "prod"]] {
        let ran = app.run(args).exits(0);
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    }
    // What stands alone is a section of it.
    assert_eq!(sections.len(), 1);
    for section in sections {
        app.configure(section);
        let ran = app.run(&["config", "check"]).exits(0);
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    }
}

#[test]
fn the_quickstart_config_is_valid() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quickstart/comfy-deploy.yaml");
    app.run(&["config", "check", "--config", config]).exits(0);
}

#[test]
fn the_quickstart_workflow_fits_the_quickstart_model() {
    let sandbox = Sandbox::new();
    let app = App::new(&sandbox);
    let script = include_str!("../../examples/quickstart/run");
    let model = "checkpoints/quickstart.safetensors";
    assert!(script.contains(&format!("/{model}\"")), "the script makes another model");
    app.write(&format!("models/{model}"), "weights");
    app.write("workflows/workflow_api.json", include_str!("../../examples/quickstart/workflows/workflow_api.json"));
    let checked = app.run(&["workflow", "check", "--strict"]).exits(0);
    assert!(checked.stdout.contains("workflow_api.json: good"), "{}", checked.stdout);
}

#[test]
fn the_exit_codes_of_the_readme_are_those_of_the_program() {
    use comfy_deploy::error::Kind;
    let readme = include_str!("../../README.md");
    for kind in [
        Kind::Failed,
        Kind::Usage,
        Kind::Refused,
        Kind::RolledBack,
        Kind::SilentRollback,
        Kind::Busy,
        Kind::Access,
        Kind::Quota,
        Kind::Interrupted,
    ] {
        assert!(readme.contains(&format!("\n| {} | ", kind.exit_code())), "{kind:?}");
    }
}
