//! YAML text to a [`Node`] tree: positions of everything, duplicate keys refused, errors in our own words.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::problem::Problem;
use super::tree::{Entry, Node, Origin, Path, Value};

/// A config has some hundred nodes. Aliases of aliases could otherwise make billions out of a few lines.
const MAX_NODES: usize = 100_000;
/// Sections nest four deep; far beyond it the file is not a config.
const MAX_DEPTH: usize = 64;

/// The file's text: UTF-8, no byte order mark, line ends as `\n`.
///
/// # Errors
/// A sentence for bytes that are not UTF-8 text.
pub fn decode(bytes: &[u8]) -> Result<String, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is UTF-16, not UTF-8".into());
    }
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.replace("\r\n", "\n").replace('\r', "\n")),
        Err(e) => {
            let good = e.valid_up_to();
            let line = bytes[..good].iter().filter(|b| **b == b'\n').count() + 1;
            Err(format!("line {line} has the byte 0x{:02x}, which is not UTF-8", bytes[good]))
        }
    }
}

/// The tree of a config file's text.
///
/// # Errors
/// The first problem that makes the rest unreadable, or all duplicate keys.
pub fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let offsets = Offsets::new(text);
    let mut builder = Builder { text, offsets, nodes: 0, anchors: HashMap::new(), problems: Vec::new() };
    match builder.document() {
        Ok(node) if builder.problems.is_empty() => Ok(node),
        Ok(_) => Err(builder.problems),
        Err(problem) => {
            builder.problems.push(*problem);
            Err(builder.problems)
        }
    }
}

/// Bytes of characters: the parser counts characters, everything else here bytes.
struct Offsets(Option<Vec<usize>>, usize);

impl Offsets {
    fn new(text: &str) -> Self {
        let table = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Offsets(table, text.len())
    }

    fn byte(&self, marker: &Marker) -> usize {
        match &self.0 {
            Some(table) => table.get(marker.index()).copied().unwrap_or(self.1),
            None => marker.index().min(self.1),
        }
    }

    fn origin(&self, span: &Span) -> Origin {
        Origin::File { start: self.byte(&span.start), end: self.byte(&span.end) }
    }
}

struct Builder<'t> {
    text: &'t str,
    offsets: Offsets,
    nodes: usize,
    anchors: HashMap<usize, Node>,
    problems: Vec<Problem>,
}

type Step<T> = Result<T, Box<Problem>>;

fn stop<T>(problem: Problem) -> Step<T> {
    Err(Box::new(problem))
}

impl<'t> Builder<'t> {
    fn document(&mut self) -> Step<Node> {
        let mut parser = Parser::new_from_str(self.text);
        let mut root = None;
        loop {
            let (event, span) = self.next(&mut parser)?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    return stop(
                        Problem::error(Path::default(), "there is a second YAML document in this file")
                            .at(self.offsets.origin(&span))
                            .label("begins here")
                            .help("Keep one app per file; for variants of it use `environments:`."),
                    );
                }
                Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamStart | Event::Nothing => {}
                event => root = Some(self.node(&mut parser, event, span, 0)?),
            }
        }
        Ok(root.unwrap_or_else(|| Node::empty(Origin::File { start: 0, end: 0 })))
    }

    fn next(&self, parser: &mut Parser<'t, saphyr_parser::StrInput<'t>>) -> Step<(Event<'t>, Span)> {
        match parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => stop(self.syntax(&e)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(
        &mut self,
        parser: &mut Parser<'t, saphyr_parser::StrInput<'t>>,
        event: Event<'t>,
        span: Span,
        depth: usize,
    ) -> Step<Node> {
        let origin = self.offsets.origin(&span);
        self.count(1, &origin)?;
        if depth > MAX_DEPTH {
            return stop(Problem::error(Path::default(), "the file is nested too deeply").at(origin));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = match &tag {
                    None => style == ScalarStyle::Plain,
                    Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => false,
                    Some(tag) => return stop(tagged(tag, origin)),
                };
                (Node { value: Value::Scalar { text: text.into_owned(), plain }, origin }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                if let Some(tag) = &tag {
                    return stop(tagged(tag, origin));
                }
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next(parser)?;
                    match event {
                        Event::SequenceEnd | Event::StreamEnd => break,
                        event => items.push(self.node(parser, event, span, depth + 1)?),
                    }
                }
                (Node { value: Value::List(items), origin }, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                if let Some(tag) = &tag {
                    return stop(tagged(tag, origin));
                }
                (self.mapping(parser, origin, depth)?, anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    self.count(size(&node), &origin)?;
                    (node, 0)
                }
                None => {
                    return stop(
                        Problem::error(Path::default(), "this alias refers to a value that contains it").at(origin),
                    );
                }
            },
            _ => return stop(Problem::error(Path::default(), "the file ends in the middle of a value").at(origin)),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(
        &mut self,
        parser: &mut Parser<'t, saphyr_parser::StrInput<'t>>,
        origin: Origin,
        depth: usize,
    ) -> Step<Node> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next(parser)?;
            let key = match event {
                Event::MappingEnd | Event::StreamEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => {
                    return stop(
                        Problem::error(Path::default(), "a key must be a word")
                            .at(self.offsets.origin(&span))
                            .label("this is a list, a mapping or an alias")
                            .help("Quote it if it is meant as text."),
                    );
                }
            };
            let key_origin = self.offsets.origin(&span);
            let (event, span) = self.next(parser)?;
            let node = self.node(parser, event, span, depth + 1)?;
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let line = match first.key_origin {
                    Origin::File { start, .. } => self.text[..start].matches('\n').count() + 1,
                    _ => 0,
                };
                self.problems.push(
                    Problem::error(Path::default().key(&key), format!("the key `{key}` is there twice"))
                        .at(key_origin)
                        .label(format!("the first one is on line {line}"))
                        .help("Remove one of the two, or merge what stands below them."),
                );
                continue;
            }
            entries.push(Entry { key, key_origin, node });
        }
        Ok(Node { value: Value::Map(entries), origin })
    }

    fn count(&mut self, more: usize, origin: &Origin) -> Step<()> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        stop(
            Problem::error(Path::default(), format!("the file has more than {MAX_NODES} values"))
                .at(origin.clone())
                .help("Aliases that repeat aliases grow fast; write the values out."),
        )
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        let at = self.offsets.byte(error.marker());
        if let Some((line, tab)) = self.tab_before(at) {
            return Problem::error(Path::default(), format!("line {line} is indented with a tab"))
                .at(Origin::File { start: tab, end: tab + 1 })
                .label("a tab")
                .help("YAML allows only spaces for indentation. Replace the tab by two spaces.");
        }
        // The scanner often stops at the start of the line after the broken one.
        let start = if at > 0 && (at >= self.text.len() || self.text.as_bytes().get(at) == Some(&b'\n')) {
            self.text[..at].trim_end().len().saturating_sub(1)
        } else {
            at
        };
        let start = (0..=start).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let end = start + self.text[start..].chars().next().map_or(0, char::len_utf8);
        let problem = Problem::error(Path::default(), "the file is not valid YAML")
            .at(Origin::File { start, end })
            .label(error.info().to_owned());
        problem.help(syntax_hint(error.info()))
    }

    /// The first line with a tab in its indentation, up to the line of a byte.
    fn tab_before(&self, byte: usize) -> Option<(usize, usize)> {
        let mut start = 0;
        for (n, line) in self.text.split_inclusive('\n').enumerate() {
            if start > byte {
                break;
            }
            let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
            if let Some(tab) = line[..indent].find('\t') {
                return Some((n + 1, start + tab));
            }
            start += line.len();
        }
        None
    }
}

fn syntax_hint(info: &str) -> &'static str {
    if info.contains("quoted scalar") {
        "A quote is not closed."
    } else if info.contains("mapping values") || info.contains("':'") {
        "Check the indentation; quote a text that contains `: `."
    } else if info.contains("flow") || info.contains(']') || info.contains('}') {
        "A bracket is not closed."
    } else {
        "Check the indentation and the quotes of this line and the one above."
    }
}

fn tagged(tag: &saphyr_parser::Tag, origin: Origin) -> Problem {
    Problem::error(Path::default(), format!("the YAML tag {tag} is not understood here"))
        .at(origin)
        .label("tagged value")
        .help("Remove the tag; quote the value if it is meant as text.")
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 1,
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.node)).sum::<usize>(),
    }
}
