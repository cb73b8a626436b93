//! Results of nodes that earlier prompts left behind.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::graph::Key;

/// Which results outlive their prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Those that the next prompt uses again; all others are dropped when it starts (ComfyUI's default).
    #[default]
    Classic,
    /// As many as this, the least recently used ones dropped first (`--cache-lru N`).
    Lru(usize),
    /// None (`--cache-none`).
    None,
}

/// A cache of `T` per node of the running prompt.
pub(crate) struct Cache<T> {
    mode: CacheMode,
    keys: HashMap<String, Option<Key>>,
    held: HashMap<Key, Arc<T>>,
    used: HashMap<Key, u64>,
    generation: u64,
    oldest: u64,
}

impl<T> Cache<T> {
    pub fn new(mode: CacheMode) -> Self {
        Cache { mode, keys: HashMap::new(), held: HashMap::new(), used: HashMap::new(), generation: 0, oldest: 0 }
    }

    /// Begins a prompt whose nodes have these keys, and drops what the mode drops now.
    pub fn begin(&mut self, keys: HashMap<String, Option<Key>>) {
        self.keys = keys;
        match self.mode {
            CacheMode::None => self.held.clear(),
            CacheMode::Classic => {
                let wanted: HashSet<Key> = self.keys.values().flatten().copied().collect();
                self.held.retain(|key, _| wanted.contains(key));
            }
            CacheMode::Lru(most) => {
                self.generation += 1;
                for key in self.keys.values().flatten() {
                    self.used.insert(*key, self.generation);
                }
                // A whole generation goes at a time, as in ComfyUI, so fewer than `most` may stay.
                while self.held.len() > most && self.oldest < self.generation {
                    self.oldest += 1;
                    let (used, oldest) = (&self.used, self.oldest);
                    self.held.retain(|key, _| used.get(key).is_some_and(|last| *last >= oldest));
                }
                let held = &self.held;
                let wanted: HashSet<Key> = self.keys.values().flatten().copied().collect();
                self.used.retain(|key, _| held.contains_key(key) || wanted.contains(key));
            }
        }
    }

    pub fn get(&self, node: &str) -> Option<Arc<T>> {
        self.held.get(self.keys.get(node)?.as_ref()?).cloned()
    }

    pub fn set(&mut self, node: &str, value: T) {
        if let Some(Some(key)) = self.keys.get(node) {
            self.held.insert(*key, Arc::new(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(cache: &mut Cache<&'static str>, key: u8, value: &'static str) -> bool {
        cache.begin([("1".to_owned(), Some([key; 32]))].into());
        let cached = cache.get("1").is_some();
        if !cached {
            cache.set("1", value);
        }
        cached
    }

    #[test]
    fn classic_remembers_the_preceding_prompt_only() {
        let mut cache = Cache::new(CacheMode::Classic);
        assert_eq!([1, 1, 2, 1].map(|key| prompt(&mut cache, key, "x")), [false, true, false, false]);
    }

    #[test]
    fn lru_remembers_several_prompts() {
        let mut cache = Cache::new(CacheMode::Lru(10));
        assert_eq!([1, 2, 1, 2, 3].map(|key| prompt(&mut cache, key, "x")), [false, false, true, true, false]);
    }

    #[test]
    fn lru_drops_what_was_not_used_for_longest() {
        let mut cache = Cache::new(CacheMode::Lru(1));
        assert_eq!([1, 2, 3, 1].map(|key| prompt(&mut cache, key, "x")), [false; 4]);
        assert!(cache.held.len() <= 2, "{}", cache.held.len());
    }

    #[test]
    fn none_remembers_nothing() {
        let mut cache = Cache::new(CacheMode::None);
        assert_eq!([1, 1].map(|key| prompt(&mut cache, key, "x")), [false, false]);
    }

    #[test]
    fn a_node_that_always_changes_is_never_found() {
        let mut cache = Cache::new(CacheMode::Classic);
        for _ in 0..2 {
            cache.begin([("1".to_owned(), None)].into());
            assert!(cache.get("1").is_none());
            cache.set("1", ());
        }
    }
}
