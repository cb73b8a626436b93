//! An image as the registry has it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::ecr;
use crate::world::{ACCOUNT, World};

/// A manifest taken apart; the rest lies in the registry's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    digest: String,
    /// Digest of the config.
    config: String,
    /// Digests, the lowest first.
    layers: Vec<String>,
}

/// What the config of an image says about its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    pub entrypoint: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub directory: String,
    pub user: String,
}

/// The name that an image has outside the registry, by its digest.
pub(super) fn name(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(32).collect()
}

impl Image {
    /// The image of a reference; none if this account's registry does not have it.
    pub fn find(world: &World, region: &str, reference: &str) -> Option<Self> {
        let (host, image) = reference.split_once('/')?;
        if host.contains(".dkr.ecr.") && !host.starts_with(ACCOUNT) {
            return None;
        }
        // Any other host was the sandbox's own when the model was made; it may have another port by now.
        let (_, digest, manifest) = ecr::image_in(world, region, image)?;
        Self::parse(digest, &manifest)
    }

    fn parse(digest: String, manifest: &str) -> Option<Self> {
        let manifest: Value = serde_json::from_str(manifest).ok()?;
        let digest_of = |part: &Value| part["digest"].as_str().map(str::to_owned);
        let layers = manifest["layers"].as_array()?.iter().map(digest_of).collect::<Option<_>>()?;
        Some(Image { digest, config: digest_of(&manifest["config"])?, layers })
    }

    /// For containers that have no image.
    pub(super) fn none() -> Self {
        Image { digest: String::new(), config: String::new(), layers: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn for_test(layers: &[&str]) -> Self {
        let layers = layers.iter().map(|layer| (*layer).to_owned()).collect();
        Image { digest: "sha256:0".to_owned(), config: "sha256:c".to_owned(), layers }
    }

    pub(super) fn name(&self) -> String {
        name(&self.digest)
    }

    pub(super) fn layers(&self, blobs: &Path) -> Vec<PathBuf> {
        self.layers.iter().map(|digest| blobs.join(ecr::file_name(digest))).collect()
    }

    pub(super) fn config_file(&self, blobs: &Path) -> PathBuf {
        blobs.join(ecr::file_name(&self.config))
    }

    /// The config as it is.
    fn read(&self, state: &Path) -> std::io::Result<Value> {
        let text = std::fs::read(self.config_file(&ecr::layer_dir(state)))?;
        serde_json::from_slice(&text).map_err(std::io::Error::other)
    }

    /// Whether instances of this type can execute what is in it.
    ///
    /// # Errors
    /// That they cannot, as the engine words it (aws-samples/aws-lex-conv-faq#8).
    pub fn check_machine(&self, state: &Path, instance_type: &str) -> std::io::Result<()> {
        let config = self.read(state)?;
        if config["architecture"] == machine(instance_type) {
            return Ok(());
        }
        let program = Config::of(&config).command().remove(0);
        Err(std::io::Error::other(format!("exec {program}: exec format error")))
    }

    pub(super) fn config(&self, state: &Path) -> std::io::Result<Config> {
        Ok(Config::of(&self.read(state)?))
    }
}

impl Config {
    fn of(config: &Value) -> Self {
        let config = &config["config"];
        let list = |name: &str| -> Vec<String> {
            let list = config[name].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
        Config {
            entrypoint: list("Entrypoint"),
            environment: list("Env").iter().map(pair).collect(),
            directory: text("WorkingDir"),
            user: text("User"),
        }
    }

    /// What `docker run IMAGE serve` executes.
    pub(super) fn command(&self) -> Vec<String> {
        self.entrypoint.iter().cloned().chain([super::SERVE.to_owned()]).collect()
    }
}

/// The architecture of an instance type, as Docker calls it: a family whose number is followed by a g has Graviton (AWS
/// doc: Amazon EC2 instance type naming conventions), and so has Grace, `p6e-gb200`.
pub fn machine(instance_type: &str) -> &'static str {
    let family = instance_type.trim_start_matches("ml.").split('.').next().unwrap_or_default();
    let attributes =
        family.trim_start_matches(|c: char| c.is_ascii_alphabetic()).trim_start_matches(|c: char| c.is_ascii_digit());
    let arm = attributes.split('-').next().is_some_and(|a| a.contains('g')) || attributes.contains("-gb");
    if arm { "arm64" } else { "amd64" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn instances_have_their_architecture() {
        for (kind, wanted) in [
            ("ml.g5.xlarge", "amd64"),
            ("ml.g4dn.xlarge", "amd64"),
            ("ml.m7i-flex.large", "amd64"),
            ("ml.trn1.2xlarge", "amd64"),
            ("ml.m6g.large", "arm64"),
            ("ml.c7gd.large", "arm64"),
            ("ml.c6gn.large", "arm64"),
            ("ml.p6e-gb200.36xlarge", "arm64"),
        ] {
            assert_eq!(machine(kind), wanted, "{kind}");
        }
    }

    #[test]
    fn serve_takes_the_place_of_cmd() {
        let config = json!({"config": {"Entrypoint": ["/a", "b"], "Cmd": ["c"], "Env": ["A=1=2", "B"], "User": "7"}});
        let config = Config::of(&config);
        assert_eq!(config.command(), ["/a", "b", "serve"]);
        assert_eq!(config.environment, [("A".into(), "1=2".into()), ("B".into(), String::new())]);
        assert_eq!((config.user.as_str(), config.directory.as_str()), ("7", ""));
        assert_eq!(Config::of(&json!({"config": {"Entrypoint": null}})).command(), ["serve"]);
    }

    #[test]
    fn a_manifest_without_its_parts_is_no_image() {
        let whole =
            json!({"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:a"}, {"digest": "sha256:b"}]});
        let image = Image::parse("sha256:0123".into(), &whole.to_string()).expect("is one");
        assert_eq!(image.name(), "0123");
        assert_eq!(image.layers(Path::new("/l")), [Path::new("/l/a"), Path::new("/l/b")]);
        for bad in ["", "{}", r#"{"config":{"digest":"sha256:c"},"layers":[{}]}"#, r#"{"layers":[]}"#] {
            assert_eq!(Image::parse("sha256:0".into(), bad), None, "{bad}");
        }
    }
}
