//! The last outputs, for prompts that ComfyUI answers from its cache.
//!
//! ComfyUI does not run a node again whose inputs are those of the prompt before; it tells the name of the file that
//! the node wrote then. That file was removed after use, and its name may have been given to another picture since: so
//! a name alone is never trusted, only together with the workflow that it came from.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::outputs::File;

/// How many outputs are kept. ComfyUI's own cache covers one prompt unless it is told otherwise.
const MOST: usize = 8;
/// How many bytes in all: three photos of 1024x1024.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// How many bytes the newest may have alone: ComfyUI's own cache is for the prompt before.
const LARGEST: usize = 32 * 1024 * 1024;

/// What a workflow is, without its text.
pub(crate) type Fingerprint = [u8; 32];

/// An output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) content_type: String,
    pub(crate) bytes: Bytes,
}

/// The last outputs, newest first.
#[derive(Debug, Default)]
pub(crate) struct Kept(VecDeque<(Fingerprint, File, Content)>);

impl Kept {
    /// Keeps an output; the oldest ones make room.
    pub(crate) fn put(&mut self, of: Fingerprint, file: &File, content: &Content) {
        self.0.retain(|(other, name, _)| (other, name) != (&of, file));
        self.0.push_front((of, file.clone(), content.clone()));
        let mut bytes = 0;
        let fits = self.0.iter().take(MOST).enumerate().take_while(|(at, (_, _, content))| {
            bytes += content.bytes.len();
            bytes <= if *at == 0 { LARGEST } else { MOST_BYTES }
        });
        let fits = fits.count();
        self.0.truncate(fits);
    }

    /// The output of that name that this workflow made.
    pub(crate) fn get(&self, of: &Fingerprint, file: &File) -> Option<Content> {
        self.0.iter().find(|(other, name, _)| (other, name) == (of, file)).map(|(_, _, content)| content.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> File {
        File { filename: name.into(), subfolder: String::new(), kind: "output".into() }
    }

    fn content(length: usize) -> Content {
        Content { content_type: "image/png".into(), bytes: Bytes::from(vec![7; length]) }
    }

    #[test]
    fn the_same_name_of_another_workflow_is_another_picture() {
        let mut kept = Kept::default();
        kept.put([1; 32], &file("a"), &content(1));
        kept.put([2; 32], &file("a"), &content(2));
        assert_eq!(kept.get(&[1; 32], &file("a")), Some(content(1)));
        assert_eq!(kept.get(&[2; 32], &file("a")), Some(content(2)));
        assert_eq!(kept.get(&[3; 32], &file("a")), None);
        kept.put([1; 32], &file("a"), &content(3));
        assert_eq!(kept.get(&[1; 32], &file("a")), Some(content(3)));
        assert_eq!(kept.0.len(), 2);
    }

    #[test]
    fn it_does_not_grow() {
        let mut kept = Kept::default();
        for n in 0..100 {
            kept.put([n; 32], &file("a"), &content(1));
        }
        assert_eq!(kept.0.len(), MOST);
        kept.put([0; 32], &file("b"), &content(MOST_BYTES));
        assert_eq!(kept.0.len(), 1);
        kept.put([0; 32], &file("c"), &content(LARGEST));
        assert_eq!(kept.0.len(), 1);
        kept.put([0; 32], &file("d"), &content(1));
        assert_eq!(kept.0.len(), 1);
        kept.put([0; 32], &file("e"), &content(LARGEST + 1));
        assert_eq!(kept.0.len(), 0);
    }
}
