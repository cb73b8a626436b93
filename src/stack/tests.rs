//! Tests of the stacks. `lint.rs` also writes every rendered combination for `tests/lint-templates`.

mod changes;
mod evaluation;
mod lint;
mod render;
mod text;
mod versions;

use serde_json::Value;

use super::*;
use crate::cloud::Map;
use crate::config::{Architecture, Config, Packaging};

const ACCOUNT: &str = "123456789012";
const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// Settings of a config file.
fn settings(yaml: &str) -> Settings {
    let config: Config = serde_yaml::from_str(&format!("version: 1\napp: comfyui\n{yaml}")).unwrap();
    Settings { region: "eu-west-1".into(), ..Settings::for_tests(config) }
}

fn artifacts(settings: &Settings) -> Artifacts {
    let packaging = settings.config.models.packaging;
    let file = if packaging == Packaging::Tar { "model.tar.gz" } else { "" };
    Artifacts {
        bucket: bucket_name(settings, ACCOUNT),
        model: ModelData {
            bucket: bucket_name(settings, ACCOUNT),
            key: format!("models/0123456789abcdef01234567/{file}"),
            packaging,
        },
        image: format!("comfyui@{DIGEST}"),
        registry: String::new(),
        function_key: settings.config.lambda.enabled.then(|| "functions/0123456789abcdef.zip".to_owned()),
        architecture: Architecture::Arm64,
        download_timeout: 1200,
    }
}

fn parameters(settings: &Settings) -> Map {
    service_parameters(settings, &artifacts(settings), "v1-00000000-1")
}

fn pseudo() -> Pseudo {
    Pseudo::new(ACCOUNT, "eu-west-1", "comfyui")
}

fn evaluated(settings: &Settings) -> Evaluated {
    evaluate(&service(settings).value, &parameters(settings), &pseudo()).unwrap()
}

/// Replaces one value by a JSON pointer; fails if there is none.
fn set(value: &mut Value, pointer: &str, to: Value) {
    *value.pointer_mut(pointer).unwrap_or_else(|| panic!("nothing at {pointer}")) = to;
}
