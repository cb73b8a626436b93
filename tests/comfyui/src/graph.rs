//! The graph of a prompt: links, cache keys, and the order in which nodes run.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use crate::{
    nodes::Registry,
    py::{Dict, Value, dumps},
};

/// What identifies a node's result: its class, its inputs and those of everything above it.
pub(crate) type Key = [u8; 32];

/// The node and slot of a link.
pub(crate) fn link(value: &Value) -> Option<(&str, &Value)> {
    match value.as_list()? {
        [Value::Str(from), slot @ (Value::Int(_) | Value::Float(_) | Value::Bool(_))] => Some((from, slot)),
        _ => None,
    }
}

/// A file name that may end in `[input]`, `[output]` or `[temp]`, apart from that.
pub(crate) fn annotated(name: &str) -> (&str, Option<&'static str>) {
    for (end, folder, cut) in [("[output]", "output", 9), ("[input]", "input", 8), ("[temp]", "temp", 7)] {
        if name.ends_with(end) {
            // A space is expected before the bracket, and cut off with it whatever it is.
            let keep = name.len().saturating_sub(cut);
            return (name.get(..keep).unwrap_or_default(), Some(folder));
        }
    }
    (name, None)
}

pub(crate) fn inputs<'a>(prompt: &'a Dict, id: &str) -> Option<&'a Dict> {
    prompt.get(id)?.get("inputs")?.as_dict()
}

/// The cache keys of all nodes. `changed` gives a node's own fingerprint beside its inputs; `None` means that its result
/// is never to be used again.
pub(crate) fn keys(prompt: &Dict, changed: impl Fn(&str) -> Option<String>) -> HashMap<String, Option<Key>> {
    let prints: HashMap<&str, Option<String>> = prompt.keys().map(|id| (id.as_str(), changed(id))).collect();
    prompt.keys().map(|id| (id.clone(), key(prompt, id, &prints))).collect()
}

fn key(prompt: &Dict, id: &str, prints: &HashMap<&str, Option<String>>) -> Option<Key> {
    let mut ancestors = Vec::new();
    let mut places = HashMap::new();
    ancestry(prompt, id, &mut ancestors, &mut places);
    let mut hash = Sha256::new();
    for id in std::iter::once(id).chain(ancestors) {
        let class = prompt.get(id)?.get("class_type")?.as_str()?;
        hash.update(class);
        hash.update([0]);
        hash.update(prints.get(id)?.as_ref()?);
        let mut inputs: Vec<_> = inputs(prompt, id)?.iter().collect();
        inputs.sort_by_key(|(name, _)| *name);
        for (name, value) in inputs {
            hash.update([1]);
            hash.update(name);
            hash.update([2]);
            match link(value) {
                Some((from, slot)) => hash.update(format!("{}:{}", places.get(from)?, dumps(slot))),
                None => hash.update(dumps(&canonical(value)?)),
            }
        }
        hash.update([3]);
    }
    Some(hash.finalize().into())
}

fn ancestry<'a>(prompt: &'a Dict, id: &str, found: &mut Vec<&'a str>, places: &mut HashMap<&'a str, usize>) {
    let Some(inputs) = inputs(prompt, id) else { return };
    let mut names: Vec<_> = inputs.keys().collect();
    names.sort();
    for name in names {
        if let Some((from, _)) = inputs.get(name).and_then(link)
            && !places.contains_key(from)
        {
            places.insert(from, found.len());
            found.push(from);
            ancestry(prompt, from, found, places);
        }
    }
}

/// Equal values in one form: Python's cache keys do not tell `1`, `1.0` and `True` apart. `NaN` equals nothing.
fn canonical(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Bool(flag) => Value::Int((*flag).into()),
        Value::Float(float) if float.is_nan() => return None,
        Value::Float(float) if float.fract() == 0.0 && float.abs() < 1e30 => Value::Int(*float as i128),
        Value::List(list) => Value::List(list.iter().map(canonical).collect::<Option<_>>()?),
        Value::Dict(dict) => {
            let mut members: Vec<_> = dict.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members.into_iter().map(|(name, value)| Some((name.clone(), canonical(value)?)));
            Value::Dict(members.collect::<Option<_>>()?)
        }
        other => other.clone(),
    })
}

/// The nodes that still have to run, in the order in which ComfyUI takes them: of those that are ready, output nodes
/// first, then what feeds an output node, then what feeds that.
pub(crate) struct Plan<'a> {
    prompt: &'a Dict,
    registry: &'a Registry,
    /// In the order in which they were found.
    pending: Vec<String>,
    waits: HashMap<String, usize>,
    /// Who waits for a node, in the order in which that was found.
    feeds: HashMap<String, Vec<String>>,
}

impl<'a> Plan<'a> {
    /// The nodes that `outputs` need; those that are `cached` are not followed.
    pub fn new(prompt: &'a Dict, registry: &'a Registry, outputs: &[String], cached: impl Fn(&str) -> bool) -> Self {
        let mut plan = Plan { prompt, registry, pending: Vec::new(), waits: HashMap::new(), feeds: HashMap::new() };
        let mut seen = HashSet::new();
        for output in outputs {
            let mut stack = vec![output.clone()];
            let mut links = Vec::new();
            while let Some(id) = stack.pop() {
                if !seen.insert(id.clone()) {
                    continue;
                }
                plan.pending.push(id.clone());
                plan.waits.insert(id.clone(), 0);
                plan.feeds.insert(id.clone(), Vec::new());
                for (from, _) in inputs(prompt, &id).into_iter().flat_map(Dict::values).filter_map(link) {
                    if !cached(from) {
                        stack.push(from.to_owned());
                        links.push((from.to_owned(), id.clone()));
                    }
                }
            }
            for (from, to) in links {
                let feeds = plan.feeds.entry(from).or_default();
                if !feeds.contains(&to) {
                    feeds.push(to.clone());
                    *plan.waits.entry(to).or_default() += 1;
                }
            }
        }
        plan
    }

    fn output(&self, id: &str) -> bool {
        let class = self.prompt.get(id).and_then(|node| node.get("class_type")).and_then(Value::as_str);
        class.and_then(|name| self.registry.get(name)).is_some_and(|class| class.output_node)
    }

    fn fed_by(&self, id: &str) -> impl Iterator<Item = &String> {
        self.feeds.get(id).into_iter().flatten()
    }

    /// The node to run next; `None` when all have run.
    pub fn next(&self) -> Option<String> {
        let ready: Vec<&String> = self.pending.iter().filter(|id| self.waits.get(*id) == Some(&0)).collect();
        let near = |id: &&&String| self.fed_by(id).any(|next| self.output(next));
        let far = |id: &&&String| self.fed_by(id).any(|next| self.fed_by(next).any(|after| self.output(after)));
        let pick = ready.iter().find(|id| self.output(id));
        pick.or_else(|| ready.iter().find(near))
            .or_else(|| ready.iter().find(far))
            .or_else(|| ready.first())
            .map(|id| (*id).clone())
    }

    /// Takes a node that has run out of the plan.
    pub fn done(&mut self, id: &str) {
        self.pending.retain(|other| other != id);
        for next in self.feeds.remove(id).unwrap_or_default() {
            if let Some(waits) = self.waits.get_mut(&next) {
                *waits -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
