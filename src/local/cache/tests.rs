use super::*;

const DIGEST: FileDigest = FileDigest { sha256: [7; 32], crc32: 1, crc64nvme: u64::MAX, gain: 9 };

/// A moment at which every file made by this test has been at rest for long.
fn later() -> i128 {
    now_ns() + 10 * SETTLED_NS
}

fn file(dir: &Path, name: &str) -> (PathBuf, Stamp) {
    let path = dir.join(name);
    std::fs::write(&path, name).unwrap();
    let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
    (path, stamp)
}

#[test]
fn survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (path, stamp) = file(dir.path(), "a");
    let mut cache = DigestCache::load(dir.path());
    cache.put(&path, stamp, DIGEST, later());
    cache.save().unwrap();
    assert_eq!(DigestCache::load(dir.path()).get(&path, &stamp), Some(DIGEST));
}

#[test]
fn any_field_of_the_stamp_makes_it_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, stamp) = file(dir.path(), "a");
    let mut cache = DigestCache::in_memory();
    cache.put(&path, stamp, DIGEST, later());
    assert_eq!(cache.get(&path, &stamp), Some(DIGEST));
    for other in [
        Stamp { device: stamp.device + 1, ..stamp },
        Stamp { inode: stamp.inode + 1, ..stamp },
        Stamp { size: stamp.size + 1, ..stamp },
        Stamp { mtime_ns: stamp.mtime_ns + 1, ..stamp },
        Stamp { ctime_ns: stamp.ctime_ns + 1, ..stamp },
    ] {
        assert_eq!(cache.get(&path, &other), None, "{other:?}");
    }
}

#[test]
fn a_file_touched_just_now_is_not_kept() {
    let stamp = |mtime_ns, ctime_ns| Stamp { device: 1, inode: 1, size: 1, mtime_ns, ctime_ns };
    let now = 100 * SETTLED_NS;
    assert!(stamp(now - SETTLED_NS, now - SETTLED_NS).settled(now));
    assert!(!stamp(now - SETTLED_NS, now - SETTLED_NS + 1).settled(now));
    assert!(!stamp(now - 1, now - SETTLED_NS).settled(now));
    assert!(!stamp(0, now + 1).settled(now), "a ctime in the future is another clock");
    assert!(stamp(now + 1, now - SETTLED_NS).settled(now), "an mtime in the future was set by hand");
}

#[test]
fn damage_and_other_versions_are_an_empty_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (path, stamp) = file(dir.path(), "a");
    let mut cache = DigestCache::load(dir.path());
    cache.put(&path, stamp, DIGEST, later());
    cache.save().unwrap();
    let stored = dir.path().join(".comfy-deploy/digests.json");
    let good = std::fs::read_to_string(&stored).unwrap();
    for bad in
        ["", "{", &good[..good.len() / 2], &good.replace("\"version\":2", "\"version\":1"), &good.replace("07", "zz")]
    {
        std::fs::write(&stored, bad).unwrap();
        assert_eq!(DigestCache::load(dir.path()).get(&path, &stamp), None, "{bad}");
    }
    std::fs::write(&stored, good).unwrap();
    assert!(DigestCache::load(dir.path()).get(&path, &stamp).is_some());
}

#[test]
fn concurrent_runs_keep_each_others_entries_and_drop_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (a, a_stamp) = file(dir.path(), "a");
    let (b, b_stamp) = file(dir.path(), "b");
    let (gone, gone_stamp) = file(dir.path(), "gone");
    let mut one = DigestCache::load(dir.path());
    let mut two = DigestCache::load(dir.path());
    one.put(&a, a_stamp, DIGEST, later());
    one.put(&gone, gone_stamp, DIGEST, later());
    one.save().unwrap();
    std::fs::remove_file(&gone).unwrap();
    two.put(&b, b_stamp, DIGEST, later());
    two.save().unwrap();
    let read = DigestCache::load(dir.path());
    assert!(read.get(&a, &a_stamp).is_some());
    assert!(read.get(&b, &b_stamp).is_some());
    assert_eq!(read.get(&gone, &gone_stamp), None);
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_with_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let (path, stamp) = file(dir.path(), "a");
    std::fs::write(dir.path().join(".comfy-deploy"), "a file, not a directory").unwrap();
    let mut cache = DigestCache::load(dir.path());
    cache.put(&path, stamp, DIGEST, later());
    let error = cache.save().unwrap_err();
    assert!(error.to_string().contains(".comfy-deploy"), "{error}");
}
