//! Which model files there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A file of extra model paths that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelPathsError {
    /// It could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not YAML of the shape that ComfyUI takes.
    #[error("{path}: {why}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The folders of each model type, and files that are claimed to be there without any folder.
#[derive(Debug, Clone, Default)]
pub struct Models {
    folders: BTreeMap<String, Vec<PathBuf>>,
    claimed: BTreeMap<String, BTreeSet<String>>,
}

/// What ComfyUI takes for a model file.
const EXTENSIONS: [&str; 8] = ["ckpt", "pt", "pt2", "bin", "pth", "safetensors", "pkl", "sft"];

/// What LoadImage offers.
const PICTURES: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

impl Models {
    /// The one checkpoint that was there when the exchanges were recorded.
    pub fn recorded() -> Self {
        Models::default().claim("checkpoints", "tiny_random.safetensors")
    }

    /// The same, and also a file `name` in the folder type `folder` that need not exist.
    pub fn claim(mut self, folder: &str, name: &str) -> Self {
        self.claimed.entry(current(folder)).or_default().insert(name.to_owned());
        self
    }

    /// The same, and also the files under `path` as models of the type `folder`.
    pub fn folder(mut self, folder: &str, path: impl Into<PathBuf>) -> Self {
        self.folders.entry(current(folder)).or_default().push(path.into());
        self
    }

    /// The same, and also a folder of folders as ComfyUI's own `models/`: each directory under it is a type.
    pub fn directory(mut self, path: &Path) -> Self {
        for entry in path.read_dir().into_iter().flatten().flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let folder = if name == "t2i_adapter" { "controlnet" } else { &name };
            self = self.folder(folder, entry.path());
        }
        self
    }

    /// The same, and also what a file for ComfyUI's `--extra-model-paths-config` says.
    pub fn extra_paths(mut self, path: &Path) -> Result<Self, ModelPathsError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ModelPathsError::Read { path: path.to_owned(), source })?;
        let shape = |why: String| ModelPathsError::Shape { path: path.to_owned(), why };
        let groups: BTreeMap<String, Option<BTreeMap<String, serde_yaml::Value>>> =
            serde_yaml::from_str(&text).map_err(|error| shape(error.to_string()))?;
        let beside = path.parent().unwrap_or(Path::new(".")).to_owned();
        for group in groups.into_values().flatten() {
            let base = match group.get("base_path") {
                Some(base) => beside.join(base.as_str().ok_or_else(|| shape("base_path is not text".into()))?),
                None => beside.clone(),
            };
            for (folder, paths) in &group {
                if folder == "base_path" || folder == "is_default" {
                    continue;
                }
                let paths = paths.as_str().ok_or_else(|| shape(format!("{folder} is not text")))?;
                for line in paths.split('\n').filter(|line| !line.is_empty()) {
                    self = self.folder(folder, base.join(line));
                }
            }
        }
        Ok(self)
    }

    /// The pictures of ComfyUI's input folder are the choices of LoadImage.
    pub(crate) fn pictures(mut self, input: &Path) -> Self {
        self.folders.insert("images".into(), vec![input.to_owned()]);
        self
    }

    /// The files of one type: paths relative to its folders, sorted.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let mut found = self.claimed.get(folder).cloned().unwrap_or_default();
        let pictures = folder == "images";
        for root in self.folders.get(folder).into_iter().flatten() {
            gather(root, root, !pictures, if pictures { &PICTURES } else { &EXTENSIONS }, &mut found);
        }
        found.into_iter().collect()
    }

    /// The types of which anything is known.
    pub fn types(&self) -> Vec<String> {
        let types: BTreeSet<&String> = self.folders.keys().chain(self.claimed.keys()).collect();
        types.into_iter().filter(|name| *name != "images").cloned().collect()
    }
}

/// The present name of a folder type that once had another.
fn current(folder: &str) -> String {
    match folder {
        "unet" => "diffusion_models".into(),
        "clip" => "text_encoders".into(),
        other => other.into(),
    }
}

fn gather(root: &Path, folder: &Path, deep: bool, extensions: &[&str], found: &mut BTreeSet<String>) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if deep && entry.file_name() != ".git" {
                gather(root, &path, deep, extensions, found);
            }
            continue;
        }
        let extension = path.extension().map(|end| end.to_string_lossy().to_lowercase());
        if extension.is_some_and(|end| extensions.contains(&end.as_str()))
            && let Ok(name) = path.strip_prefix(root)
        {
            found.insert(name.to_string_lossy().into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_relative_sorted_and_only_of_models() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.safetensors", "a.ckpt", "note.txt", "sub/c.safetensors", ".git/d.ckpt"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let models = Models::default().folder("checkpoints", dir.path()).claim("checkpoints", "z.pt");
        assert_eq!(models.list("checkpoints"), ["a.ckpt", "b.safetensors", "sub/c.safetensors", "z.pt"]);
        assert!(models.list("loras").is_empty());
    }

    #[test]
    fn extra_paths_are_read_as_comfyui_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["m/unet/x.safetensors", "m/diffusion_models/y.safetensors", "m/clip/t5.safetensors"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let file = dir.path().join("extra.yaml");
        let text = "# comment\nsagemaker:\n  base_path: m\n  is_default: true\n  clip: clip\n  diffusion_models: |\n    \
                    diffusion_models\n    unet\nempty:\n";
        std::fs::write(&file, text).unwrap();
        let models = Models::default().extra_paths(&file).unwrap();
        assert_eq!(models.list("diffusion_models"), ["x.safetensors", "y.safetensors"]);
        assert_eq!(models.list("text_encoders"), ["t5.safetensors"]);
        assert!(matches!(models.extra_paths(&dir.path().join("no.yaml")), Err(ModelPathsError::Read { .. })));
    }
}
