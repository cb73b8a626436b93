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
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".json"));
            if let Some(name) = name.filter(|_| path.is_file()) {
                let text = std::fs::read(&path)?;
                all.insert(name.to_owned(), Workflow::parse(&text).map_err(|why| why.to_string()));
            }
        }
        Ok(Workflows(all))
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
