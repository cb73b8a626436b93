//! Pages of keys, versions and uploads: prefix, delimiter, markers.

use std::ops::Bound;

use super::state::{Bucket, Upload, Version};

/// What is listed.
#[derive(Debug, Default, Clone)]
pub struct Query<'a> {
    /// Only keys that start so.
    pub prefix: &'a str,
    /// Keys that share what is before it are one common prefix.
    pub delimiter: &'a str,
    /// Only keys behind this one.
    pub after: &'a str,
    /// With `after`, only what is behind this version or upload of that key.
    pub after_id: Option<&'a str>,
    /// At most so many entries and common prefixes together.
    pub max: usize,
}

/// One page.
#[derive(Debug)]
pub struct Page<T> {
    /// Entries.
    pub items: Vec<T>,
    /// Common prefixes.
    pub prefixes: Vec<String>,
    /// There is more.
    pub truncated: bool,
    /// The last key or common prefix, and id, of a truncated page.
    pub next: Option<(String, Option<String>)>,
}

/// Lists `entries` (key, id if several entries have a key, item) that come in order.
fn page<'a, T>(query: &Query<'_>, entries: impl Iterator<Item = (&'a str, Option<&'a str>, T)>) -> Page<T> {
    let mut page = Page { items: Vec::new(), prefixes: Vec::new(), truncated: false, next: None };
    // Behind a version or upload of the marker's key, that key's later entries come first.
    let mut skipping = query.after_id.is_some();
    for (key, id, item) in entries {
        if !key.starts_with(query.prefix) {
            continue;
        }
        if skipping && key == query.after {
            skipping = id != query.after_id;
            continue;
        }
        let rest = &key[query.prefix.len()..];
        let common = (!query.delimiter.is_empty())
            .then(|| rest.find(query.delimiter))
            .flatten()
            .map(|at| &key[..query.prefix.len() + at + query.delimiter.len()]);
        // A common prefix that ended the page before stands for all its keys.
        if common.is_some_and(|c| c == query.after || page.prefixes.last().is_some_and(|p| p == c)) {
            continue;
        }
        if page.items.len() + page.prefixes.len() >= query.max {
            page.truncated = query.max > 0;
            break;
        }
        match common {
            Some(common) => {
                page.prefixes.push(common.to_owned());
                page.next = Some((common.to_owned(), None));
            }
            None => {
                page.items.push(item);
                page.next = Some((key.to_owned(), id.map(str::to_owned)));
            }
        }
    }
    page.next.take_if(|_| !page.truncated);
    page
}

/// Current objects.
pub fn objects<'a>(bucket: &'a Bucket, query: &Query<'_>) -> Page<(&'a str, &'a Version)> {
    let start = if query.after >= query.prefix { Bound::Excluded(query.after) } else { Bound::Included(query.prefix) };
    let range = bucket.objects.range::<str, _>((start, Bound::Unbounded));
    let current = range.filter_map(|(k, vs)| Some((k.as_str(), vs.last().filter(|v| !v.marker)?)));
    page(query, current.take_while(|(k, _)| k.starts_with(query.prefix)).map(|(k, v)| (k, None, (k, v))))
}

/// All versions and delete markers, the newest of a key first; the flag says which is the current one.
pub fn versions<'a>(bucket: &'a Bucket, query: &Query<'_>) -> Page<(&'a str, &'a Version, bool)> {
    // A version that is gone since cannot be stepped behind: its key is listed again, and nothing is lost.
    let marked = bucket.objects.get(query.after);
    let known = marked.is_some_and(|vs| vs.iter().any(|v| Some(v.id.as_str()) == query.after_id));
    let included = query.after_id.is_some();
    let query = &Query { after_id: query.after_id.filter(|_| known), ..query.clone() };
    let start = match included {
        true => Bound::Included(query.after),
        false if query.after.is_empty() => Bound::Unbounded,
        false => Bound::Excluded(query.after),
    };
    let range = bucket.objects.range::<str, _>((start, Bound::Unbounded));
    let all = range.flat_map(|(k, vs)| {
        vs.iter().rev().enumerate().map(move |(i, v)| (k.as_str(), Some(v.id.as_str()), (k.as_str(), v, i == 0)))
    });
    page(query, all)
}

/// Uploads in progress by key, then by age.
pub fn uploads<'a>(bucket: &'a Bucket, query: &Query<'_>) -> Page<(&'a str, &'a Upload)> {
    let mut all: Vec<_> = bucket.uploads.iter().map(|(id, u)| (u.key.as_str(), u.initiated, id.as_str(), u)).collect();
    all.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    // The id of an upload that is gone since says nothing: its key is then done.
    let known = all.iter().any(|(k, _, id, _)| *k == query.after && Some(*id) == query.after_id);
    let query = Query { after_id: query.after_id.filter(|_| known), ..query.clone() };
    let behind = all.into_iter().filter(|(k, ..)| {
        query.after.is_empty() || *k > query.after || (query.after_id.is_some() && *k == query.after)
    });
    page(&query, behind.map(|(k, _, id, u)| (k, Some(id), (id, u))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(keys: &[String]) -> Bucket {
        let mut bucket = Bucket::default();
        for (i, key) in keys.iter().enumerate() {
            let version = Version { id: i.to_string(), ..Default::default() };
            bucket.objects.entry(key.clone()).or_default().push(version);
        }
        bucket
    }

    proptest! {
        #[test]
        fn pages_add_up_to_the_whole(
            keys in prop::collection::vec("[ab/]{1,5}", 0..20), prefix in "[a/]{0,2}", slash in any::<bool>(), max in 1_usize..4
        ) {
            let bucket = bucket(&keys);
            let delimiter = if slash { "/" } else { "" };
            let all = Query { prefix: &prefix, delimiter, max: 1000, ..Default::default() };
            let whole = objects(&bucket, &all);
            let whole_versions: Vec<_> = versions(&bucket, &all).items.iter().map(|(_, v, _)| v.id.clone()).collect();
            let (mut items, mut prefixes, mut after) = (Vec::new(), Vec::new(), String::new());
            loop {
                let page = objects(&bucket, &Query { after: &after, max, ..all.clone() });
                items.extend(page.items.iter().map(|(k, _)| (*k).to_owned()));
                prefixes.extend(page.prefixes);
                match page.next {
                    Some((key, _)) => after = key,
                    None => break,
                }
            }
            prop_assert_eq!(items, whole.items.iter().map(|(k, _)| (*k).to_owned()).collect::<Vec<_>>());
            prop_assert_eq!(prefixes, whole.prefixes);
            let (mut ids, mut after, mut after_id) = (Vec::new(), String::new(), None);
            loop {
                let page = versions(&bucket, &Query { after: &after, after_id: after_id.as_deref(), max, ..all.clone() });
                ids.extend(page.items.iter().map(|(_, v, _)| v.id.clone()));
                match page.next {
                    Some((key, id)) => (after, after_id) = (key, id),
                    None => break,
                }
            }
            prop_assert_eq!(ids, whole_versions);
        }
    }
}
