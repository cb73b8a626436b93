//! The order of a Python `set` of strings.
//!
//! ComfyUI keeps output nodes, input names and executed nodes in sets, whose order changes from process to process
//! because Python salts its hashes. What matters to a client is that this order is not the order of the file; so the
//! same is done here with a salt of our own, that tests can fix as they would fix `PYTHONHASHSEED`.

use std::hash::{DefaultHasher, Hash, Hasher};

/// `names` in the order in which a process salted with `seed` would iterate over a set of them. Doubles are dropped.
pub fn set_order<S: AsRef<str>>(seed: u64, names: impl IntoIterator<Item = S>) -> Vec<String> {
    let mut keyed: Vec<(u64, String)> = names
        .into_iter()
        .map(|name| {
            let mut hasher = DefaultHasher::new();
            (seed, name.as_ref()).hash(&mut hasher);
            (hasher.finish(), name.as_ref().to_owned())
        })
        .collect();
    keyed.sort();
    keyed.dedup();
    keyed.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_order_and_seeds_differ() {
        let names = ["1", "2", "3", "9"];
        assert_eq!(set_order(7, names), set_order(7, ["9", "3", "2", "1", "1"]));
        let orders: std::collections::BTreeSet<_> = (0..64).map(|seed| set_order(seed, names)).collect();
        assert!(orders.len() > 10, "{}", orders.len());
    }
}
