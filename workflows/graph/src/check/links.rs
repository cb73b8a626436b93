//! Links: whether they lead to a node, to an output of it, and to one of the right type.

use super::{Check, Kind, Severity};
use crate::classes::InputType;
use crate::nearest::{nearest, quote};
use crate::node::{Link, Node};

impl Check<'_> {
    pub(super) fn links(&mut self, node: Node<'_>) {
        for (name, value) in node.inputs() {
            if !value.is_array() {
                continue;
            }
            match Link::of(value) {
                Some(link) => self.link(node, name, link),
                // ComfyUI takes every array for a link; it wraps lists of values.
                None => {
                    let text: String = value.to_string();
                    let message = format!(r#"{} is not a link; a link is ["node id", output]"#, quote(&text));
                    self.find(Severity::Error, Kind::MalformedLink, node, Some(name), message);
                }
            }
        }
    }

    fn link(&mut self, node: Node<'_>, name: &str, link: Link<'_>) {
        let Some(source) = self.nodes.get(link.node).copied() else {
            let near =
                nearest(link.node, self.nodes.keys().copied()).filter(|_| link.node.len() > 2).map(str::to_owned);
            let message = format!("it is linked to node {}, which is not there", quote(link.node));
            self.find(Severity::Error, Kind::DanglingLink, node, Some(name), message).nearest = near;
            return;
        };
        let Some(classes) = self.known.classes else { return };
        let Some(class) = classes.get(source.class()) else { return };
        let Some(given) = usize::try_from(link.slot).ok().and_then(|slot| class.outputs.get(slot)) else {
            let has = match class.outputs.as_slice() {
                [] => "no outputs".to_owned(),
                [one] => format!("the output 0 ({one}) alone"),
                [first, .., last] => format!("the outputs 0 ({first}) to {} ({last})", class.outputs.len() - 1),
            };
            let message = format!(
                "it is linked to output {} of node {} ({}), which has {has}",
                link.slot,
                quote(link.node),
                source.class()
            );
            self.find(self.misfit(), Kind::NoSuchOutput, node, Some(name), message);
            return;
        };
        let wanted = classes.get(node.class()).and_then(|class| class.inputs.get(name)).map(|input| &input.kind);
        if let Some(wanted) = wanted.map(type_name)
            && !overlap(given, wanted)
        {
            let message = format!(
                "it takes {wanted}, and output {} of node {} ({}) is {given}",
                link.slot,
                quote(link.node),
                source.class()
            );
            let near = class.outputs.iter().position(|kind| overlap(kind, wanted));
            let hint = near.map(|slot| format!("; its output {slot} is {wanted}")).unwrap_or_default();
            self.find(self.misfit(), Kind::TypeMismatch, node, Some(name), message + &hint);
        }
    }
}

/// The type that a link to an input must have. One of some names is a type of its own, which texts do not have.
fn type_name(kind: &InputType) -> &str {
    match kind {
        InputType::Of(name) => name,
        InputType::Int { .. } => "INT",
        InputType::Float { .. } => "FLOAT",
        InputType::Choice(_) | InputType::Model { .. } | InputType::File => "COMBO",
    }
}

/// Both may name several types; one in common is enough.
fn overlap(given: &str, wanted: &str) -> bool {
    let given: Vec<&str> = given.split(',').map(str::trim).collect();
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).collect();
    given.contains(&"*") || wanted.contains(&"*") || given.iter().any(|one| wanted.contains(one))
}
