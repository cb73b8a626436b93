use proptest::prelude::*;

use super::*;

const MB: u64 = 1 << 20;

fn row(stretches: &[(u32, u64)]) -> Vec<Stretch<u32>> {
    let mut at = 0;
    stretches
        .iter()
        .map(|&(key, len)| {
            at += len;
            Stretch { key, range: at - len..at }
        })
        .collect()
}

/// The rules of S3, and that every part says the truth.
fn check(new: &[Stretch<u32>], old: &[Stretch<u32>], parts: &[PlannedPart], part_size: u64) {
    let total = new.last().unwrap().range.end;
    assert!(parts.len() <= PARTS_MAX);
    let mut at = 0;
    for (n, part) in parts.iter().enumerate() {
        assert_eq!(part.range.start, at);
        at = part.range.end;
        assert!(part.len() >= PART_MIN || n + 1 == parts.len(), "part {n} of {} has {}", parts.len(), part.len());
        match part.copy {
            None => assert!(part.len() <= part_size.max(2 * PART_MIN)),
            Some(from) => {
                assert!((PART_MIN..=COPY_MAX).contains(&part.len()));
                assert!(same(new, part.range.clone(), old, from), "{part:?}");
            }
        }
    }
    assert_eq!(at, total);
}

/// Whether a range of one row holds what a range of the other does, stretch for stretch.
fn same(new: &[Stretch<u32>], range: Range<u64>, old: &[Stretch<u32>], from: u64) -> bool {
    let find = |row: &[Stretch<u32>], at: u64| {
        let stretch = row.iter().find(|s| s.range.contains(&at)).cloned()?;
        Some((stretch.key, at - stretch.range.start, stretch.range.end - at))
    };
    let mut at = range.start;
    while at < range.end {
        let (Some(a), Some(b)) = (find(new, at), find(old, from + at - range.start)) else { return false };
        if a != b {
            return false;
        }
        at += a.2;
    }
    true
}

fn planned(new: &[(u32, u64)], old: &[(u32, u64)]) -> Option<Vec<(u64, Option<u64>)>> {
    let parts = parts(&row(new), &row(old), 16 * MB)?;
    check(&row(new), &row(old), &parts, 16 * MB);
    Some(parts.iter().map(|p| (p.len(), p.copy)).collect())
}

#[test]
fn what_is_new_is_sent_and_the_rest_copied() {
    // Something new in the middle, in a part of its own as it is large enough.
    let plan = planned(&[(1, 100 * MB), (9, 20 * MB), (2, 50 * MB), (8, 10)], &[(1, 100 * MB), (2, 50 * MB), (7, 10)]);
    assert_eq!(
        plan.unwrap(),
        [(100 * MB, Some(0)), (10 * MB, None), (10 * MB, None), (50 * MB, Some(100 * MB)), (10, None)]
    );
    // Too small for a part: it takes bytes from what follows.
    let plan = planned(&[(1, 100 * MB), (9, 3), (2, 50 * MB)], &[(1, 100 * MB), (2, 50 * MB)]);
    assert_eq!(plan.unwrap(), [(100 * MB, Some(0)), (5 * MB, None), (45 * MB + 3, Some(105 * MB - 3))]);
}

/// Parts that are sent before the rest is decided stay what they are.
#[test]
fn where_sent_parts_begin_does_not_depend_on_what_comes_later() {
    let parts = |rest: u64| planned(&[(1, 100 * MB), (9, rest)], &[(1, 100 * MB)]).unwrap();
    let long = parts(90 * MB);
    for rest in [89 * MB, 64 * MB, 53 * MB] {
        assert_eq!(parts(rest)[..4], long[..4], "{rest}");
    }
    // Unless nearly nothing comes: two share what is left.
    assert_eq!(parts(50 * MB)[3..], [(9 * MB, None), (9 * MB, None)]);
}

#[test]
fn small_neighbours_are_copied_together() {
    let small: Vec<(u32, u64)> = (0..200).map(|n| (n, 100_000)).collect();
    let plan = planned(&[small.clone(), vec![(999, 1)]].concat(), &small).unwrap();
    assert_eq!(plan, [(20_000_000, Some(0)), (1, None)]);
}

#[test]
fn a_large_range_is_copied_in_requests_that_s3_takes() {
    let plan = planned(&[(1, 20 << 30), (2, 1)], &[(1, 20 << 30)]).unwrap();
    assert_eq!(plan.len(), 81);
    assert_eq!(plan[1], (COPY, Some(COPY)));
    // Terabytes, in fewer and larger copies.
    let plan = planned(&[(1, 10 << 40), (2, 1)], &[(1, 10 << 40)]).unwrap();
    assert!(plan.len() <= 10_000);
}

#[test]
fn nothing_is_copied_that_is_not_worth_it() {
    assert_eq!(planned(&[(1, 4 * MB), (2, 100 * MB)], &[(1, 4 * MB)]), None);
    assert_eq!(planned(&[(1, 100 * MB)], &[]), None);
    // The same key with another length is another thing.
    assert_eq!(planned(&[(1, 100 * MB)], &[(1, 99 * MB)]), None);
}

#[test]
fn ten_thousand_parts_are_enough_for_any_mix() {
    let pairs = 9_000;
    let new: Vec<_> = (0..pairs).flat_map(|n| [(n, 6 * MB), (100_000 + n, 1)]).collect();
    let old: Vec<_> = (0..pairs).rev().map(|n| (n, 6 * MB)).collect();
    match parts(&row(&new), &row(&old), 16 * MB) {
        None => {}
        Some(parts) => assert!(parts.len() <= PARTS_MAX),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_plan_keeps_the_rules(
        new in prop::collection::vec((0u32..12, prop_oneof![1u64..2000, 4 * MB..6 * MB, 1..300 * MB]), 1..30),
        old in prop::collection::vec(0u32..12, 0..30),
        part_size in 5 * MB..40 * MB,
    ) {
        // One length for each key.
        let len = |key: u32| new.iter().find(|(k, _)| *k == key).map_or(7 * MB, |(_, len)| *len);
        let new: Vec<_> = new.iter().map(|(key, _)| (*key, len(*key))).collect();
        let old: Vec<_> = old.iter().map(|key| (*key, len(*key))).collect();
        let (new, old) = (row(&new), row(&old));
        if let Some(parts) = parts(&new, &old, part_size) {
            check(&new, &old, &parts, part_size);
        }
    }
}
