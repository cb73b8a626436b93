//! The workflow as a whole: outputs, placeholders, cycles, and whether the classes exist.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Check, Kind, Severity};
use crate::nearest::{nearest, quote};
use crate::node::{Link, Node};
use crate::placeholder::{self, POSITIVE_PLACEHOLDERS};

/// So many nodes of a cycle are named.
const SHOWN: usize = 12;

impl<'a> Check<'a> {
    pub(super) fn graph(&mut self) {
        self.outputs();
        let texts = self.workflow.views().flat_map(|node| node.inputs().values()).filter_map(Value::as_str);
        if !texts.into_iter().any(placeholder::has_positive) {
            let message = format!(
                "no text has the placeholder {}, so every prompt gives the same picture; put it where the prompt belongs",
                POSITIVE_PLACEHOLDERS[1]
            );
            self.find_whole(Severity::Warning, Kind::NoPlaceholder, message);
        }
    }

    fn outputs(&mut self) {
        let Some(classes) = self.known.classes else { return };
        let (mut outputs, mut unknown) = (false, false);
        for node in self.nodes.values() {
            match classes.get(node.class()) {
                Some(class) => outputs |= class.output_node,
                None => unknown = true,
            }
        }
        match (outputs, unknown) {
            (true, _) => {}
            (false, false) => self.find_whole(
                Severity::Error,
                Kind::NoOutputNode,
                "no node saves or shows anything; add a SaveImage node".into(),
            ),
            (false, true) => self.find_whole(
                Severity::Warning,
                Kind::NoOutputNode,
                "no node of ComfyUI saves or shows anything; unless a custom node does, add a SaveImage node".into(),
            ),
        }
    }

    /// One finding for each link that closes a circle, at the node that has the link.
    pub(super) fn cycles(&mut self, needed: &BTreeSet<&str>) {
        let targets: BTreeMap<&str, Vec<&str>> = self
            .nodes
            .iter()
            .map(|(id, node)| {
                (*id, node.links().map(|(_, link)| link.node).filter(|to| self.nodes.contains_key(to)).collect())
            })
            .collect();
        // Depth first with an explicit path: a chain may be as long as the file.
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut cycles: Vec<Vec<&str>> = Vec::new();
        for start in self.workflow.views().map(|node| node.id()) {
            if done.contains(start) {
                continue;
            }
            let mut path = vec![(start, 0)];
            let mut on_path = BTreeMap::from([(start, 0)]);
            while let Some((id, next)) = path.last_mut() {
                let id = *id;
                let to = targets.get(id).and_then(|targets| targets.get(*next)).copied();
                *next += 1;
                match to {
                    None => {
                        done.insert(id);
                        on_path.remove(id);
                        path.pop();
                    }
                    Some(to) => {
                        if let Some(at) = on_path.get(to) {
                            cycles.push(path[*at..].iter().map(|(id, _)| *id).collect());
                        } else if !done.contains(to) {
                            on_path.insert(to, path.len());
                            path.push((to, 0));
                        }
                    }
                }
            }
        }
        cycles.dedup();
        for cycle in cycles {
            let Some(node) = cycle.last().and_then(|id| self.nodes.get(id).copied()) else { continue };
            let ids: Vec<String> = cycle.iter().take(SHOWN).map(|id| id.escape_debug().to_string()).collect();
            let more = if cycle.len() > SHOWN { " <- ..." } else { "" };
            let message =
                format!("nodes need each other in a circle: {}{more} <- {}", ids.join(" <- "), cycle[0].escape_debug());
            let severity = if needed.contains(node.id()) { Severity::Error } else { Severity::Warning };
            self.find(severity, Kind::Cycle, node, None, message);
        }
    }

    /// The nodes that some output needs. A class that is not known may be an output.
    pub(super) fn needed(&self) -> BTreeSet<&'a str> {
        let is_end = |node: &Node<'_>| match self.known.classes {
            Some(classes) => classes.get(node.class()).is_none_or(|class| class.output_node),
            None => true,
        };
        let mut needed: BTreeSet<&str> = BTreeSet::new();
        let mut todo: Vec<&str> = self.nodes.values().filter(|node| is_end(node)).map(Node::id).collect();
        if todo.is_empty() {
            // There is no end to start from, so nothing can be told apart.
            return self.nodes.keys().copied().collect();
        }
        while let Some(id) = todo.pop() {
            if let Some(node) = self.nodes.get(id)
                && needed.insert(id)
            {
                todo.extend(node.inputs().values().filter_map(Link::of).map(|link| link.node));
            }
        }
        needed
    }

    pub(super) fn class(&mut self, node: Node<'_>) {
        let Some(classes) = self.known.classes else { return };
        if classes.get(node.class()).is_some() {
            return;
        }
        if classes.is_api(node.class()) {
            let message = "it calls an outside service with an account there, which an endpoint does not have".into();
            self.find(Severity::Warning, Kind::OutsideService, node, None, message);
            return;
        }
        let (severity, message) = match self.known.custom_nodes {
            true => (
                Severity::Note,
                format!("{} is not a class of ComfyUI itself; a custom node must provide it", quote(node.class())),
            ),
            false => (
                Severity::Warning,
                format!(
                    "{} is not a class of ComfyUI {}; if a custom node provides it, add that to comfyui.custom_nodes",
                    quote(node.class()),
                    classes.comfyui
                ),
            ),
        };
        let near = nearest(node.class(), classes.names()).map(str::to_owned);
        self.find(severity, Kind::UnknownClass, node, None, message).nearest = near;
    }
}
