//! The last outputs, for prompts that ComfyUI answers from its cache.
//!
//! ComfyUI does not run a node again whose inputs are those of the prompt before; it tells the name of the file that
//! the node wrote then. That file was removed after use, and its name may have been given to another picture since: so
//! a name alone is never trusted, only together with the workflow and the node that it came from: two nodes of one
//! workflow may have had the same name in turn.

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

/// An output that is kept, and what made it.
#[derive(Debug)]
struct Entry {
    of: Fingerprint,
    node: String,
    file: File,
    content: Content,
}

impl Entry {
    fn is(&self, of: &Fingerprint, node: &str, file: &File) -> bool {
        (&self.of, self.node.as_str(), &self.file) == (of, node, file)
    }
}

/// The last outputs, newest first.
#[derive(Debug, Default)]
pub(crate) struct Kept(VecDeque<Entry>);

impl Kept {
    /// Keeps an output of a node; the oldest ones make room.
    pub(crate) fn put(&mut self, of: Fingerprint, node: &str, file: &File, content: &Content) {
        self.0.retain(|entry| !entry.is(&of, node, file));
        self.0.push_front(Entry { of, node: node.to_owned(), file: file.clone(), content: content.clone() });
        let mut bytes = 0;
        let fits = self.0.iter().take(MOST).enumerate().take_while(|(at, entry)| {
            bytes += entry.content.bytes.len();
            bytes <= if *at == 0 { LARGEST } else { MOST_BYTES }
        });
        let fits = fits.count();
        self.0.truncate(fits);
    }

    /// The output of that name that this node of this workflow made.
    pub(crate) fn get(&self, of: &Fingerprint, node: &str, file: &File) -> Option<Content> {
        self.0.iter().find(|entry| entry.is(of, node, file)).map(|entry| entry.content.clone())
    }

    /// Forgets what nodes of a workflow made that ran again since, whether the new output is wanted or not: its name
    /// can be an old one.
    pub(crate) fn forget(&mut self, of: &Fingerprint, ran: impl Fn(&str) -> bool) {
        self.0.retain(|entry| entry.of != *of || !ran(&entry.node));
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
        kept.put([1; 32], "9", &file("a"), &content(1));
        kept.put([2; 32], "9", &file("a"), &content(2));
        assert_eq!(kept.get(&[1; 32], "9", &file("a")), Some(content(1)));
        assert_eq!(kept.get(&[2; 32], "9", &file("a")), Some(content(2)));
        assert_eq!(kept.get(&[3; 32], "9", &file("a")), None);
        kept.put([1; 32], "9", &file("a"), &content(3));
        assert_eq!(kept.get(&[1; 32], "9", &file("a")), Some(content(3)));
        assert_eq!(kept.0.len(), 2);
    }

    #[test]
    fn the_same_name_of_another_node_is_another_picture() {
        let mut kept = Kept::default();
        kept.put([1; 32], "9", &file("a"), &content(1));
        kept.put([1; 32], "10", &file("a"), &content(2));
        kept.put([2; 32], "9", &file("a"), &content(3));
        assert_eq!(kept.get(&[1; 32], "9", &file("a")), Some(content(1)));
        assert_eq!(kept.get(&[1; 32], "10", &file("a")), Some(content(2)));
        // Node 9 of the first ran again.
        kept.forget(&[1; 32], |node| node == "9");
        assert_eq!(kept.get(&[1; 32], "9", &file("a")), None);
        assert_eq!(kept.get(&[1; 32], "10", &file("a")), Some(content(2)));
        assert_eq!(kept.get(&[2; 32], "9", &file("a")), Some(content(3)));
    }

    #[test]
    fn it_does_not_grow() {
        let mut kept = Kept::default();
        for n in 0..100 {
            kept.put([n; 32], "9", &file("a"), &content(1));
        }
        assert_eq!(kept.0.len(), MOST);
        kept.put([0; 32], "9", &file("b"), &content(MOST_BYTES));
        assert_eq!(kept.0.len(), 1);
        kept.put([0; 32], "9", &file("c"), &content(LARGEST));
        assert_eq!(kept.0.len(), 1);
        kept.put([0; 32], "9", &file("d"), &content(1));
        assert_eq!(kept.0.len(), 1);
        kept.put([0; 32], "9", &file("e"), &content(LARGEST + 1));
        assert_eq!(kept.0.len(), 0);
    }
}
