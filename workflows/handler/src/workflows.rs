//! The packaged workflows, read once.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use comfy_workflow::Workflow;

/// Workflows by file name. A request can name these and nothing else; no path is ever made from a request.
#[derive(Debug, Clone, Default)]
pub struct Workflows(BTreeMap<String, Result<Workflow, String>>);

impl Workflows {
    /// Reads every `*.json` of a directory. One that is not a workflow is kept as the reason why.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn load(dir: &Path) -> io::Result<Self> {
        let mut texts = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".json"));
            if let Some(name) = name.filter(|_| path.is_file()) {
                texts.push((name.to_owned(), std::fs::read(&path)?));
            }
        }
        Ok(Self::of(texts))
    }

    /// Takes file names and contents.
    pub fn of<N: Into<String>, T: AsRef<[u8]>>(files: impl IntoIterator<Item = (N, T)>) -> Self {
        let parse = |text: T| Workflow::parse(text.as_ref()).map_err(|why| why.to_string());
        Workflows(files.into_iter().map(|(name, text)| (name.into(), parse(text))).collect())
    }

    /// One workflow by its file name, with or without `.json`: the full name, and the workflow or why it cannot be used.
    pub fn get(&self, name: &str) -> Option<(&str, &Result<Workflow, String>)> {
        let found = self.0.get_key_value(name).or_else(|| self.0.get_key_value(&format!("{name}.json")));
        found.map(|(name, workflow)| (name.as_str(), workflow))
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_files_of_the_directory_itself() {
        let dir = std::env::temp_dir().join(format!("comfy-handler-workflows-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("directory.json")).expect("mkdir");
        std::fs::write(dir.join("a.json"), r#"{"1":{"class_type":"A","inputs":{}}}"#).expect("written");
        std::fs::write(dir.join("saved.json"), r#"{"nodes":[],"links":[]}"#).expect("written");
        std::fs::write(dir.join("secret.txt"), "x").expect("written");
        let workflows = Workflows::load(&dir).expect("readable");
        std::fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(workflows.names().collect::<Vec<_>>(), ["a.json", "saved.json"]);
        for name in ["a", "a.json"] {
            assert!(matches!(workflows.get(name), Some(("a.json", Ok(_)))), "{name}");
        }
        assert!(matches!(workflows.get("saved.json"), Some((_, Err(why))) if why.contains("Export (API)")));
        assert!(workflows.get("secret.txt").is_none() && workflows.get("").is_none());
        assert!(Workflows::load(&dir).is_err());
    }
}
