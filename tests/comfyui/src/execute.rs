//! The worker: takes one prompt after the other and runs its nodes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use indexmap::IndexMap;

use crate::{
    cache::{Cache, CacheMode},
    graph::{self, Plan, annotated},
    life::{Halt, Life, Payload, lock},
    order::set_order,
    py::{Dict, Value, dict},
    queue::Job,
    run::{self, Thing},
    tensor,
};

/// The results of nodes, and what belongs to node objects.
pub(crate) struct Results {
    outputs: Cache<Vec<Thing>>,
    shown: Cache<Shown>,
    /// Node objects live as long as each next prompt has a node of the same id and class: the random part of
    /// PreviewImage's file names belongs to one.
    objects: HashMap<(String, String), String>,
    /// Model loaders that have run.
    pub loaded: std::collections::HashSet<String>,
}

struct Shown {
    output: Value,
    meta: Value,
}

impl Results {
    fn new(mode: CacheMode) -> Self {
        Results {
            outputs: Cache::new(mode),
            shown: Cache::new(mode),
            objects: HashMap::new(),
            loaded: std::collections::HashSet::new(),
        }
    }
}

/// Runs prompts until the end of this life.
pub(crate) fn work(life: &Arc<Life>) {
    let mut results = Results::new(life.options.cache);
    loop {
        let job = {
            let mut work = lock(&life.work);
            loop {
                if life.dead.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(job) = work.queue.start() {
                    break Some(job);
                }
                if work.free {
                    break None;
                }
                work = life.wake.wait(work).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        };
        if let Some(job) = job {
            life.faults.wait();
            life.queue_updated();
            if Run::prompt(life, &job, &mut results) == Err(Halt::Dead) {
                return;
            }
        }
        if std::mem::take(&mut lock(&life.work).free) {
            results = Results::new(life.options.cache);
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// How far a node is.
#[derive(Clone)]
struct Progress {
    value: Value,
    max: Value,
    finished: bool,
}

/// A picture on its way to the client while a node runs.
pub(crate) struct Preview {
    /// The encoded picture.
    pub bytes: Vec<u8>,
    /// Whether that is PNG; else it is JPEG.
    pub png: bool,
}

/// One prompt while it runs.
pub(crate) struct Run<'a> {
    pub life: &'a Arc<Life>,
    pub job: &'a Job,
    /// The prompt, with what ComfyUI leaves in it on the way.
    pub prompt: Dict,
    client: Option<String>,
    progress: IndexMap<String, Progress>,
    messages: Vec<Value>,
}

impl Run<'_> {
    fn prompt(life: &Arc<Life>, job: &Job, results: &mut Results) -> Result<(), Halt> {
        life.interrupt.store(false, Ordering::SeqCst);
        let client = job.client();
        lock(&life.current).client = client.clone();
        let prompt = job.prompt.as_dict().cloned().unwrap_or_default();
        let mut run = Run { life, job, prompt, client, progress: IndexMap::new(), messages: Vec::new() };
        let success = run.nodes(results)?;
        life.sleep(*lock(&life.faults.history_delay))?;
        let (mut outputs, mut meta) = (Dict::new(), Dict::new());
        for id in set_order(life.seed, run.prompt.keys()) {
            if let Some(shown) = results.shown.get(&id) {
                outputs.insert(id.clone(), shown.output.clone());
                meta.insert(id, shown.meta.clone());
            }
        }
        let status = dict! {
            "status_str" => if success { "success" } else { "error" },
            "completed" => success,
            "messages" => Value::List(std::mem::take(&mut run.messages)),
        };
        lock(&life.current).node = None;
        lock(&life.work).queue.finish(Value::Dict(outputs), status, Value::Dict(meta));
        life.seen.ended.fetch_add(1, Ordering::SeqCst);
        life.queue_updated();
        if run.client.is_some() {
            let data = dict! { "node" => Value::None, "prompt_id" => job.id.as_str() };
            life.send("executing", data, run.client.clone());
        }
        Ok(())
    }

    /// Whether all went well.
    fn nodes(&mut self, results: &mut Results) -> Result<bool, Halt> {
        let id = self.job.id.clone();
        self.message("execution_start", dict! { "prompt_id" => id.as_str() }, false);
        let prints = self.fingerprints();
        let keys = graph::keys(&self.prompt, |node| match prints.get(node) {
            Some(print) => print.clone(),
            None => Some("False".into()),
        });
        results.outputs.begin(keys.clone());
        results.shown.begin(keys);
        let prompt = &self.prompt;
        results.objects.retain(|(id, class), _| {
            prompt.get(id).and_then(|node| node.get("class_type")).and_then(Value::as_str) == Some(class)
        });
        let cached: Vec<String> =
            self.prompt.keys().filter(|node| results.outputs.get(node).is_some()).cloned().collect();
        self.message("execution_cached", dict! { "nodes" => cached, "prompt_id" => id.as_str() }, false);
        let prompt = self.prompt.clone();
        let mut plan =
            Plan::new(&prompt, &self.life.registry, &self.job.outputs, |node| results.outputs.get(node).is_some());
        let mut executed = Vec::new();
        while let Some(node) = plan.next() {
            let node_type = prompt.get(&node).and_then(|node| node.get("class_type")).cloned().unwrap_or(Value::None);
            match self.node(&node, results) {
                Ok(ran) => {
                    if ran {
                        executed.push(node.clone());
                    }
                    plan.done(&node);
                }
                Err(Halt::Dead) => return Err(Halt::Dead),
                Err(halt) => {
                    let executed = set_order(self.life.seed, executed);
                    let mut data = dict! {
                        "prompt_id" => id, "node_id" => node.as_str(), "node_type" => node_type, "executed" => executed,
                    };
                    let interrupted = halt == Halt::Interrupted;
                    if let (Halt::Raised { kind, text, place }, Value::Dict(data)) = (halt, &mut data) {
                        data.insert("exception_message".into(), Value::Str(format!("{text}\n")));
                        data.insert("exception_type".into(), Value::Str(kind));
                        data.insert("traceback".into(), trace(&place));
                        data.insert("current_inputs".into(), self.current_inputs(&node, results));
                        let ids = set_order(self.life.seed, self.prompt.keys());
                        data.insert("current_outputs".into(), Value::from(ids));
                    }
                    let event = if interrupted { "execution_interrupted" } else { "execution_error" };
                    self.message(event, data, interrupted);
                    return Ok(false);
                }
            }
        }
        self.message("execution_success", dict! { "prompt_id" => id }, false);
        Ok(true)
    }

    /// Nodes that say by themselves whether they changed: `None` for "always". ComfyUI leaves the answer in the prompt.
    fn fingerprints(&mut self) -> BTreeMap<String, Option<String>> {
        let mut prints = BTreeMap::new();
        for (id, node) in &mut self.prompt {
            let Value::Dict(node) = node else { continue };
            let class = node.get("class_type").and_then(Value::as_str).unwrap_or_default();
            let print = match class {
                "LoadImage" | "LoadImageMask" => {
                    let name = node.get("inputs").and_then(|inputs| inputs.get("image")).and_then(Value::as_str);
                    let (name, folder) = annotated(name.unwrap_or_default());
                    let folder = self.life.folders.of(folder.unwrap_or("input"));
                    folder.and_then(|folder| std::fs::read(folder.join(name)).ok()).map(|bytes| {
                        use sha2::Digest as _;
                        sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
                    })
                }
                "SaveImageWebsocket" => None,
                _ => continue,
            };
            let left = match (&print, class) {
                (Some(print), _) => Value::from(vec![print.as_str()]),
                (None, "SaveImageWebsocket") => Value::from(vec![now() as f64 / 1000.0]),
                (None, _) => Value::Float(f64::NAN),
            };
            node.insert("is_changed".into(), left);
            prints.insert(id.clone(), print);
        }
        prints
    }

    /// Runs one node; `false` when its result was there already.
    fn node(&mut self, id: &str, results: &mut Results) -> Result<bool, Halt> {
        let prompt_id = self.job.id.as_str();
        if results.outputs.get(id).is_some() {
            if self.client.is_some() {
                let output = results.shown.get(id).map_or(Value::None, |shown| shown.output.clone());
                let data = dict! {
                    "node" => id, "display_node" => id, "output" => output, "prompt_id" => prompt_id,
                };
                self.life.send("executed", data, self.client.clone());
            }
            self.finish(id);
            return Ok(false);
        }
        self.set_progress(id, Value::Float(0.0), Value::Float(1.0), false);
        self.send_progress();
        if self.client.is_some() {
            lock(&self.life.current).node = Some(id.to_owned());
            let data = dict! { "node" => id, "display_node" => id, "prompt_id" => prompt_id };
            self.life.send("executing", data, self.client.clone());
        }
        self.life.check()?;
        self.life.seen.nodes_run.fetch_add(1, Ordering::SeqCst);
        let inputs = self.inputs(id, results);
        let class = self.prompt.get(id).and_then(|node| node.get("class_type")).and_then(Value::as_str);
        let class = class.unwrap_or_default().to_owned();
        let suffix = results.objects.entry((id.to_owned(), class.clone())).or_insert_with(run::random_letters).clone();
        let done = run::node(self, &mut results.loaded, id, &class, &inputs, &suffix)?;
        if let Some(output) = done.shown {
            let data = dict! {
                "node" => id, "display_node" => id, "output" => output.clone(), "prompt_id" => prompt_id_of(self),
            };
            let meta = dict! {
                "node_id" => id, "display_node" => id, "parent_node" => Value::None, "real_node_id" => id,
            };
            results.shown.set(id, Shown { output, meta });
            if self.client.is_some() {
                self.life.send("executed", data, self.client.clone());
            }
        }
        results.outputs.set(id, done.outputs);
        self.finish(id);
        Ok(true)
    }

    /// The values of a node's inputs: constants, and results of other nodes. Unknown inputs are not handed on.
    fn inputs(&self, id: &str, results: &Results) -> HashMap<String, Thing> {
        let node = self.prompt.get(id);
        let class = node.and_then(|node| node.get("class_type")).and_then(Value::as_str).unwrap_or_default();
        let Some(class) = self.life.registry.get(class) else { return HashMap::new() };
        let given = graph::inputs(&self.prompt, id);
        let mut inputs = HashMap::new();
        for (name, value) in given.into_iter().flatten() {
            if !class.inputs.iter().any(|input| input.name == *name) {
                continue;
            }
            let thing = match graph::link(value) {
                Some((from, slot)) => results.outputs.get(from).and_then(|outputs| {
                    let slot = slot.as_int().unwrap_or(0);
                    let index = if slot < 0 { slot + outputs.len() as i128 } else { slot };
                    outputs.get(usize::try_from(index).ok()?).cloned()
                }),
                None => Some(Thing::Value(value.clone())),
            };
            inputs.insert(name.clone(), thing.unwrap_or(Thing::Value(Value::None)));
        }
        inputs
    }

    /// The inputs as an error report shows them.
    fn current_inputs(&self, id: &str, results: &Results) -> Value {
        let mut things = self.inputs(id, results);
        let mut shown = Dict::new();
        for name in graph::inputs(&self.prompt, id).into_iter().flat_map(Dict::keys) {
            if let Some(thing) = things.remove(name) {
                shown.insert(name.clone(), Value::List(vec![tensor::shown(&thing)]));
            }
        }
        Value::Dict(shown)
    }

    fn message(&mut self, event: &str, data: Value, broadcast: bool) {
        let mut data = data;
        if let Value::Dict(data) = &mut data {
            data.insert("timestamp".into(), Value::from(now()));
        }
        self.messages.push(Value::List(vec![Value::from(event), data.clone()]));
        if self.client.is_some() || broadcast {
            self.life.send(event, data, self.client.clone());
        }
    }

    fn set_progress(&mut self, id: &str, value: Value, max: Value, finished: bool) {
        self.progress.insert(id.to_owned(), Progress { value, max, finished });
    }

    fn finish(&mut self, id: &str) {
        let max = self.progress.get(id).map_or(Value::Int(1), |progress| progress.max.clone());
        self.set_progress(id, max.clone(), max, true);
        self.send_progress();
    }

    fn send_progress(&self) {
        let nodes: Dict = self
            .progress
            .iter()
            .map(|(id, progress)| {
                let state = dict! {
                    "value" => progress.value.clone(),
                    "max" => progress.max.clone(),
                    "state" => if progress.finished { "finished" } else { "running" },
                    "node_id" => id.as_str(),
                    "prompt_id" => self.job.id.as_str(),
                    "display_node_id" => id.as_str(),
                    "parent_node_id" => Value::None,
                    "real_node_id" => id.as_str(),
                };
                (id.clone(), state)
            })
            .collect();
        let data = dict! { "prompt_id" => self.job.id.as_str(), "nodes" => nodes };
        self.life.send("progress_state", data, self.client.clone());
    }

    /// Tells the client how far a node is; ends the node when somebody asked for that.
    pub fn step(&mut self, id: &str, value: usize, max: usize, preview: Option<Preview>) -> Result<(), Halt> {
        self.life.check()?;
        self.set_progress(id, Value::from(value), Value::from(max), false);
        self.send_progress();
        let with_metadata = preview.is_some() && self.life.takes_metadata(self.client.as_ref());
        let data = dict! {
            "value" => value, "max" => max, "prompt_id" => self.job.id.as_str(), "node" => id,
        };
        let Some(preview) = preview else {
            self.life.send("progress", data, self.client.clone());
            return Ok(());
        };
        let mut frame = Vec::with_capacity(preview.bytes.len() + 256);
        if with_metadata {
            let metadata = crate::py::dumps(&dict! {
                "node_id" => id, "prompt_id" => self.job.id.as_str(), "display_node_id" => id,
                "parent_node_id" => Value::None, "real_node_id" => id,
                "image_type" => if preview.png { "image/png" } else { "image/jpeg" },
            });
            frame.extend_from_slice(&4u32.to_be_bytes());
            frame.extend_from_slice(&(metadata.len() as u32).to_be_bytes());
            frame.extend_from_slice(metadata.as_bytes());
            frame.extend_from_slice(&preview.bytes);
            self.life.send_payload(Payload::Binary(frame), self.client.clone());
            self.life.send("progress", data, self.client.clone());
        } else {
            self.life.send("progress", data, self.client.clone());
            frame.extend_from_slice(&1u32.to_be_bytes());
            frame.extend_from_slice(&(if preview.png { 2u32 } else { 1 }).to_be_bytes());
            frame.extend_from_slice(&preview.bytes);
            self.life.send_payload(Payload::Binary(frame), self.client.clone());
        }
        Ok(())
    }

    /// Sends a text to be shown at a node (binary event 3).
    pub fn show_text(&self, id: &str, text: &str) {
        let mut frame = 3u32.to_be_bytes().to_vec();
        frame.extend_from_slice(&(id.len() as u32).to_be_bytes());
        frame.extend_from_slice(id.as_bytes());
        frame.extend_from_slice(text.as_bytes());
        self.life.send_payload(Payload::Binary(frame), self.client.clone());
    }
}

fn prompt_id_of(run: &Run<'_>) -> String {
    run.job.id.clone()
}

/// The frames of a traceback, each cut to its first line.
fn trace(place: &str) -> Value {
    let mut frames: Vec<Value> =
        [(496, "execute"), (315, "get_output_data"), (289, "_async_map_node_over_list"), (277, "process_inputs")]
            .map(|(line, function)| {
                Value::Str(format!("  File \"/opt/ComfyUI/execution.py\", line {line}, in {function}\n"))
            })
            .into();
    frames.push(Value::Str(format!("  File \"/opt/ComfyUI/{place}\n")));
    Value::List(frames)
}
