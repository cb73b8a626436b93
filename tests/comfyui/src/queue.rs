//! Prompts that wait, that run and that have ended.

use std::{cmp::Ordering, sync::Arc};

use indexmap::IndexMap;

use crate::py::{Dict, Value, dumps};

/// ComfyUI removes an entry when it finds more than this, before it adds one: so one more can be seen.
const MAXIMUM_HISTORY: usize = 10_000;

/// What is not kept in the history.
const SECRETS: [&str; 2] = ["auth_token_comfy_org", "api_key_comfy_org"];

/// A prompt in the queue.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its place: smaller runs first. An int, or a float when the client gave it.
    pub number: Value,
    /// Its id.
    pub id: String,
    /// The prompt, with values converted.
    pub prompt: Value,
    /// `extra_data` with the client's id in it.
    pub extra: Value,
    /// The output nodes to run.
    pub outputs: Vec<String>,
}

impl Job {
    /// As `/queue` and `/history` show it.
    fn shown(&self, secrets: bool) -> Value {
        let mut extra = self.extra.clone();
        if let (Value::Dict(extra), false) = (&mut extra, secrets) {
            extra.retain(|key, _| !SECRETS.contains(&key.as_str()));
        }
        Value::List(vec![
            self.number.clone(),
            Value::from(self.id.as_str()),
            self.prompt.clone(),
            extra,
            Value::from(self.outputs.clone()),
        ])
    }

    /// The id of the client that gets the messages.
    pub fn client(&self) -> Option<String> {
        self.extra.get("client_id").filter(|id| **id != Value::None).map(crate::py::str_of)
    }
}

/// Python compared two prompts that have the same number and id, and raised.
#[derive(Debug, PartialEq)]
pub(crate) struct NotComparable;

fn less(a: &Job, b: &Job) -> Result<bool, NotComparable> {
    let order = a.number.as_f64().partial_cmp(&b.number.as_f64()).unwrap_or(Ordering::Equal);
    match order.then_with(|| a.id.cmp(&b.id)) {
        Ordering::Less => Ok(true),
        Ordering::Greater => Ok(false),
        Ordering::Equal if a.prompt.equals(&b.prompt) && a.extra.equals(&b.extra) => Ok(a.outputs < b.outputs),
        Ordering::Equal => Err(NotComparable),
    }
}

/// The queue and the history.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// A binary heap in the layout of Python's `heapq`, which `/queue` shows as it is.
    heap: Vec<Arc<Job>>,
    running: Option<Arc<Job>>,
    /// Entries as JSON: they are only ever shown.
    history: IndexMap<String, String>,
}

impl Queue {
    /// Adds a prompt.
    ///
    /// # Errors
    /// As in Python the prompt is in the queue even then; only nobody was told.
    pub fn push(&mut self, job: Job) -> Result<(), NotComparable> {
        self.heap.push(Arc::new(job));
        self.sift_down(0, self.heap.len() - 1)
    }

    /// Takes the next prompt out to run it.
    pub fn start(&mut self) -> Option<Arc<Job>> {
        let last = self.heap.pop()?;
        let job = if self.heap.is_empty() {
            last
        } else {
            let first = std::mem::replace(&mut self.heap[0], last);
            self.sift_up(0);
            first
        };
        self.running = Some(job.clone());
        Some(job)
    }

    fn sift_down(&mut self, start: usize, mut at: usize) -> Result<(), NotComparable> {
        while at > start {
            let parent = (at - 1) / 2;
            if !less(&self.heap[at], &self.heap[parent])? {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
        Ok(())
    }

    fn sift_up(&mut self, start: usize) {
        let end = self.heap.len();
        let mut at = start;
        let mut child = 2 * at + 1;
        while child < end {
            let right = child + 1;
            // Two prompts that cannot be compared are left as they are: what a raised exception leaves behind, too.
            if right < end && !less(&self.heap[child], &self.heap[right]).unwrap_or(true) {
                child = right;
            }
            self.heap.swap(at, child);
            at = child;
            child = 2 * at + 1;
        }
        let _ = self.sift_down(start, at);
    }

    /// Ends the running prompt and files its entry.
    pub fn finish(&mut self, outputs: Value, status: Value, meta: Value) {
        let Some(job) = self.running.take() else { return };
        if self.history.len() > MAXIMUM_HISTORY {
            self.history.shift_remove_index(0);
        }
        let mut entry = Dict::new();
        entry.insert("prompt".into(), job.shown(false));
        entry.insert("outputs".into(), outputs);
        entry.insert("status".into(), status);
        entry.insert("meta".into(), meta);
        self.history.insert(job.id.clone(), dumps(&Value::Dict(entry)));
    }

    /// Prompts that wait or run.
    pub fn remaining(&self) -> usize {
        self.heap.len() + usize::from(self.running.is_some())
    }

    /// Prompts that wait.
    pub fn waiting(&self) -> usize {
        self.heap.len()
    }

    /// Whether this prompt runs.
    pub fn runs(&self, id: &str) -> bool {
        self.running.as_ref().is_some_and(|job| job.id == id)
    }

    /// Takes a prompt that waits out; one at a time, as ids can be there twice.
    pub fn delete(&mut self, id: &str) -> bool {
        let Some(at) = self.heap.iter().position(|job| job.id == id) else { return false };
        self.heap.remove(at);
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_up(at);
        }
        true
    }

    /// Takes all prompts that wait out.
    pub fn clear(&mut self) {
        self.heap.clear();
    }

    /// As `/queue` shows it.
    pub fn shown(&self) -> Value {
        let running: Vec<Value> = self.running.iter().map(|job| job.shown(true)).collect();
        let pending: Vec<Value> = self.heap.iter().map(|job| job.shown(true)).collect();
        crate::py::dict! { "queue_running" => Value::List(running), "queue_pending" => Value::List(pending) }
    }

    /// `/history/{id}` as JSON.
    pub fn history_of(&self, id: &str) -> String {
        match self.history.get(id) {
            Some(entry) => format!("{{{}: {entry}}}", dumps(&Value::from(id))),
            None => "{}".into(),
        }
    }

    /// `/history` as JSON.
    pub fn history(&self, most: Option<usize>, offset: Option<usize>) -> String {
        let start = match (offset, most) {
            (Some(offset), _) => offset,
            (None, Some(most)) => self.history.len().saturating_sub(most),
            (None, None) => 0,
        };
        // A limit of 0 is only looked at after the first entry.
        let most = most.map_or(usize::MAX, |most| most.max(1));
        let entries: Vec<String> = self
            .history
            .iter()
            .skip(start)
            .take(most)
            .map(|(id, entry)| format!("{}: {entry}", dumps(&Value::from(id.as_str()))))
            .collect();
        format!("{{{}}}", entries.join(", "))
    }

    /// Forgets one ended prompt.
    pub fn forget(&mut self, id: &str) {
        self.history.shift_remove(id);
    }

    /// Forgets all ended prompts.
    pub fn forget_all(&mut self) {
        self.history.clear();
    }

    /// Entries in the history.
    pub fn ended(&self) -> usize {
        self.history.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::py::dict;

    fn job(number: i128, id: &str) -> Job {
        Job {
            number: Value::Int(number),
            id: id.into(),
            prompt: dict! { "number" => Value::Int(number) },
            extra: dict! { "client_id" => "c", "api_key_comfy_org" => "secret" },
            outputs: vec!["1".into()],
        }
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.start()).map(|job| job.id.clone()).collect()
    }

    #[test]
    fn runs_by_number_then_id() {
        let mut queue = Queue::default();
        for (number, id) in [(3, "c"), (1, "a"), (-2, "front"), (2, "b"), (1, "A")] {
            queue.push(job(number, id)).unwrap();
        }
        assert_eq!(queue.remaining(), 5);
        assert!(queue.delete("b") && !queue.delete("b"));
        assert_eq!(drain(&mut queue), ["front", "A", "a", "c"]);
    }

    #[test]
    fn the_same_number_and_id_twice_is_an_error_but_queued() {
        let mut queue = Queue::default();
        queue.push(job(1, "a")).unwrap();
        let mut other = job(1, "a");
        other.prompt = dict! { "other" => true };
        assert_eq!(queue.push(other), Err(NotComparable));
        assert_eq!(queue.remaining(), 2);
        queue.push(job(1, "b")).unwrap();
    }

    #[test]
    fn history_is_capped_keeps_its_order_and_no_secrets() {
        let mut queue = Queue::default();
        for number in 0..10_003 {
            queue.push(job(number, &format!("id{number}"))).unwrap();
            queue.start();
            queue.finish(dict! {}, dict! {}, dict! {});
        }
        assert_eq!(queue.ended(), 10_001);
        assert_eq!(queue.history_of("id1"), "{}");
        assert!(queue.history_of("id2").starts_with(r#"{"id2": {"prompt": [2, "id2", {"number": 2}, {"client_id""#));
        assert!(!queue.history(None, None).contains("secret"));
        assert!(queue.history(Some(1), None).starts_with(r#"{"id10002": "#));
        assert!(queue.history(Some(1), Some(1)).starts_with(r#"{"id3": "#));
        queue.forget("id2");
        assert_eq!(queue.history_of("id2"), "{}");
        queue.forget_all();
        assert_eq!(queue.history(None, None), "{}");
    }

    #[test]
    fn the_running_prompt_is_shown_and_not_deleted() {
        let mut queue = Queue::default();
        queue.push(job(1, "a")).unwrap();
        queue.push(job(2, "b")).unwrap();
        queue.start();
        assert!(queue.runs("a") && !queue.runs("b"));
        assert!(!queue.delete("a"));
        let shown = dumps(&queue.shown());
        assert!(shown.starts_with(r#"{"queue_running": [[1, "a", "#), "{shown}");
        queue.clear();
        assert_eq!(queue.remaining(), 1);
    }
}
