//! Where a model file goes: `to` of the config. Pure.

use super::source::{Mistake, Source};

/// Every model folder of ComfyUI (its `folder_paths.py`), sorted: those of newer versions than the one that the image has by
/// default, and the older names `clip`, `t2i_adapter` and `unet`, included.
pub const FOLDERS: [&str; 28] = [
    "audio_encoders",
    "background_removal",
    "checkpoints",
    "classifiers",
    "clip",
    "clip_vision",
    "configs",
    "controlnet",
    "detection",
    "diffusers",
    "diffusion_models",
    "embeddings",
    "frame_interpolation",
    "geometry_estimation",
    "gligen",
    "hypernetworks",
    "latent_upscale_models",
    "loras",
    "model_patches",
    "optical_flow",
    "photomaker",
    "style_models",
    "t2i_adapter",
    "text_encoders",
    "unet",
    "upscale_models",
    "vae",
    "vae_approx",
];

/// Longest path in the models directory, in bytes: it becomes a part of an S3 key.
const LONGEST: usize = 900;

/// Where a file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Folder in the models directory, with `/` between names and none at its ends.
    pub folder: String,
    /// The file's name; none if only the source knows it.
    pub name: Option<String>,
}

impl Place {
    /// The path in the models directory, if the name is known.
    pub fn path(&self) -> Option<String> {
        self.name.as_ref().map(|name| self.with(name))
    }

    /// The path with a name that the source said.
    pub fn with(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// The folder directly below the models directory.
    pub fn top(&self) -> &str {
        self.folder.split('/').next().unwrap_or_default()
    }

    /// Whether ComfyUI looks there by itself.
    pub fn is_known(&self) -> bool {
        FOLDERS.contains(&self.top())
    }
}

/// Decides where a file goes: `to` with a `/` at its end (or the bare name of a folder) is a folder, anything else a
/// path with the file's name. Without `to` the source's own folders may tell.
///
/// # Errors
/// What is wrong with `to`, or that it is needed.
pub fn place(to: Option<&str>, source: &Source) -> Result<Place, Mistake> {
    let Some(to) = to else {
        let hint = source.folders().into_iter().rev().find(|folder| FOLDERS.contains(folder));
        return match hint {
            Some(folder) => check(Place { folder: folder.to_owned(), name: source.file_name() }),
            None => Err(Mistake {
                what: "where does it go?".into(),
                help: format!(
                    "Write it as {{source: \"{source}\", to: checkpoints/}}. Folders of ComfyUI: {}.",
                    FOLDERS.join(", ")
                ),
            }),
        };
    };
    if to.split('/').any(|part| part == "..")
        || to.starts_with('/')
        || to.starts_with('~')
        || to.contains('\\')
        || to.contains(':')
    {
        return Err(outside(to));
    }
    let folder = to.ends_with('/') || FOLDERS.contains(&to);
    let trimmed = to.strip_suffix('/').unwrap_or(to);
    if folder {
        let name = source.file_name();
        if name.is_none() && !matches!(source, Source::Civitai { .. }) {
            return Err(Mistake {
                what: "the file has no name".into(),
                help: format!("Its source names none: add one, as in {trimmed}/model.safetensors."),
            });
        }
        return check(Place { folder: trimmed.to_owned(), name });
    }
    match trimmed.rsplit_once('/') {
        Some((folder, name)) => check(Place { folder: folder.to_owned(), name: Some(name.to_owned()) }),
        None => Err(Mistake {
            what: "no folder".into(),
            help: format!(
                "Write a folder with / at its end, as in loras/. Folders of ComfyUI: {}.",
                FOLDERS.join(", ")
            ),
        }),
    }
}

fn outside(to: &str) -> Mistake {
    Mistake {
        what: "not inside the models directory".into(),
        help: format!("`{to}` must be a path in it, with / between names: checkpoints/, or loras/style.safetensors."),
    }
}

fn check(place: Place) -> Result<Place, Mistake> {
    let name = place.name.as_deref().unwrap_or("x");
    check_path(&place.with(name)).map(|()| place)
}

/// Refuses what would land outside the models directory, be left out of the artifact, or not fit into a key.
pub(crate) fn check_path(path: &str) -> Result<(), Mistake> {
    let what = if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\\') {
        return Err(outside(path));
    } else if path.split('/').any(|part| part.starts_with('.')) {
        "a hidden name"
    } else if path.chars().any(char::is_control) {
        "a control character in the name"
    } else if path.len() > LONGEST || path.split('/').any(|part| part.len() > 200) {
        "too long a name"
    } else {
        return Ok(());
    };
    Err(Mistake {
        what: what.into(),
        help: "Names begin with another character than a dot and have at most 200 bytes, the path 900.".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(to: &str, source: &str) -> Result<Place, Mistake> {
        place(Some(to).filter(|to| !to.is_empty()), &Source::parse(source).expect("source"))
    }

    #[test]
    fn folders_and_names_are_told_apart() {
        let cases = [
            ("checkpoints/", "hf://a/b/x.safetensors@main", Some("checkpoints/x.safetensors")),
            ("checkpoints", "hf://a/b/sub/x.safetensors@main", Some("checkpoints/x.safetensors")),
            ("loras/style/", "s3://bucket/deep/y.safetensors", Some("loras/style/y.safetensors")),
            ("loras/z.safetensors", "civitai:7", Some("loras/z.safetensors")),
            ("loras/", "civitai:7", None),
            ("", "hf://a/b/split_files/vae/ae.safetensors@main", Some("vae/ae.safetensors")),
        ];
        for (to, source, path) in cases {
            let place = at(to, source).unwrap_or_else(|e| panic!("{to} {source}: {e:?}"));
            assert_eq!(place.path().as_deref(), path, "{to} {source}");
        }
    }

    #[test]
    fn nothing_leaves_the_models_directory() {
        for to in
            ["../x/", "/etc/", "loras/../../x", "a//b/", "./a/", "~/x/", "c:\\x", ".hidden/", "loras/.x", "loose.bin"]
        {
            assert!(at(to, "hf://a/b/x.safetensors").is_err(), "{to}");
        }
        assert!(at("", "hf://a/b/x.safetensors").is_err_and(|e| e.help.contains("checkpoints")));
        assert!(at("loras/", "https://example.com/").is_err_and(|e| e.what.contains("name")));
    }

    #[test]
    fn known_folders_are_those_that_the_image_looks_in() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("image/extra_model_paths.yaml");
        let text = std::fs::read_to_string(file).expect("extra_model_paths.yaml");
        let value: serde_yaml::Value = serde_yaml::from_str(&text).expect("YAML");
        let map = value["sagemaker"].as_mapping().expect("a mapping");
        let lists = map.iter().filter(|(key, _)| !["base_path", "is_default"].map(Some).contains(&key.as_str()));
        let mut folders: Vec<&str> =
            lists.filter_map(|(_, dirs)| dirs.as_str()).flat_map(str::split_whitespace).collect();
        folders.sort_unstable();
        assert_eq!(folders, FOLDERS);
        assert!(at("checkpoints/sub/", "civitai:1").is_ok_and(|place| place.is_known()));
        assert!(at("my_nodes/", "civitai:1").is_ok_and(|place| !place.is_known()));
    }
}
