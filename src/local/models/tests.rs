use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex;
use std::time::Instant;

use sha2::Digest;

use super::*;
use crate::error::Kind;
use crate::local::cache::FileDigest;
use crate::progress::{Silent, Task};

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Reporter for Recorder {
    fn report(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn all(dir: &Path, globs: &[&str]) -> Result<ModelTree> {
    let globs: Vec<String> = globs.iter().map(|g| g.to_string()).collect();
    scan(dir, &globs, &mut DigestCache::in_memory(), false, &Silent)
}

fn paths(tree: &ModelTree) -> Vec<&str> {
    tree.files.iter().map(|f| f.path.as_str()).collect()
}

fn refusal(dir: &Path) -> Error {
    let e = all(dir, &[]).unwrap_err();
    assert!(e.hint().is_some(), "{e} says nothing to do");
    e
}

#[test]
fn files_are_sorted_by_bytes_and_hidden_ones_left_out() {
    let dir = directory(&[
        ("b/x", "1"),
        ("b-c", "2"),
        ("B", "3"),
        (".git/config", ""),
        ("b/.hidden", ""),
        (".comfy-deploy/warmup.json", "{}"),
        (".comfy-deploy/digests.json", ""),
        ("b/.comfy-deploy/warmup.json", ""),
    ]);
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let tree = all(dir.path(), &[]).unwrap();
    // `-` is before `/`: by the bytes of the whole path, not name by name.
    assert_eq!(paths(&tree), [".comfy-deploy/warmup.json", "B", "b-c", "b/x"]);
}

#[test]
fn digests_and_modes_are_those_of_the_files() {
    let dir = directory(&[("a", "123456789"), ("run", "")]);
    std::fs::set_permissions(dir.path().join("run"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::set_permissions(dir.path().join("a"), PermissionsExt::from_mode(0o600)).unwrap();
    let mut tree = all(dir.path(), &[]).unwrap();
    assert_eq!(hex::encode(tree.files[0].sha256), "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225");
    // The check values of the two CRCs in every catalogue.
    assert_eq!(tree.files[0].disk().crc32, 0xcbf4_3926);
    assert_eq!(tree.files[0].disk().crc64nvme, 0xae8b_1486_0a79_9888);
    assert_eq!((tree.files[0].mode, tree.files[1].mode), (0o644, 0o755));
    assert_eq!((tree.bytes(), tree.hashed), (9, 9));
}

#[test]
fn links_are_followed_inside_the_directory() {
    let dir = directory(&[("blobs/a", "content"), ("x/y", "")]);
    symlink("../blobs/a", dir.path().join("x/model")).unwrap();
    symlink("blobs", dir.path().join("again")).unwrap();
    let tree = all(dir.path(), &[]).unwrap();
    assert_eq!(paths(&tree), ["again/a", "blobs/a", "x/model", "x/y"]);
    assert_eq!(tree.files[2].sha256, tree.files[1].sha256);
    assert_eq!(tree.files[2].size, 7);
}

#[test]
fn a_link_out_of_the_directory_a_loop_and_a_dangling_link_are_refused() {
    for (to, reason) in
        [("/etc/passwd", "leaves"), ("nowhere", "leads nowhere"), (".", "that it is in"), ("link", "itself")]
    {
        let dir = directory(&[("sub/a", "")]);
        symlink(to, dir.path().join("sub/link")).unwrap();
        let e = refusal(dir.path());
        assert!(e.to_string().contains("sub/link") && e.to_string().contains(reason), "{to}: {e}");
        assert_eq!(e.kind(), Kind::Usage);
    }
    // Not a prefix of letters, but of names.
    let outer = directory(&[("models/a", ""), ("models-old/b", "")]);
    symlink("../models-old/b", outer.path().join("models/link")).unwrap();
    assert!(refusal(&outer.path().join("models")).to_string().contains("leaves"));
}

#[test]
fn pipes_and_sockets_are_refused_without_opening_them() {
    let dir = directory(&[("a", "")]);
    let fifo = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(refusal(dir.path()).to_string().contains("named pipe"));
    std::fs::remove_file(fifo).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert!(refusal(dir.path()).to_string().contains("a socket"));
}

#[test]
fn missing_empty_and_wrong_directories_are_refused() {
    let dir = directory(&[(".hidden", ""), ("file", "")]);
    let e = refusal(&dir.path().join("none"));
    assert!(e.to_string().contains("no models directory"), "{e}");
    assert!(refusal(&dir.path().join("file")).to_string().contains("not a directory"));
    std::fs::remove_file(dir.path().join("file")).unwrap();
    assert!(refusal(dir.path()).to_string().contains("has no files"));
}

fn read_one(path: &Path, stamp: &Stamp) -> Error {
    digest::read_one(path, stamp, &mut [0; 64], |_| true).unwrap_err()
}

#[test]
fn an_unreadable_file_is_an_error_with_its_path() {
    // It can be opened, but its first page is never mapped; a mode of 0 would not stop root.
    let path = Path::new("/proc/self/mem");
    let e = read_one(path, &Stamp::of(&std::fs::metadata(path).unwrap()));
    assert!(e.to_string().contains("/proc/self/mem") && e.hint().is_some(), "{e}");
    let dir = directory(&[("gone", "")]);
    let stamp = Stamp::of(&std::fs::metadata(dir.path().join("gone")).unwrap());
    let e = read_one(&dir.path().join("vanished"), &stamp);
    assert!(e.to_string().contains("vanished"), "{e}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let dir = directory(&[("a", &"x".repeat(1000))]);
    let path = dir.path().join("a");
    let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
    let append = || {
        use std::io::Write;
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    };
    let grown = digest::read_one(&path, &stamp, &mut [0; 64], |_| {
        append();
        // Stop growing it at some time, or reading never ends.
        std::fs::metadata(&path).unwrap().len() < 2000
    });
    assert!(!matches!(grown, Ok(Some(_))), "a digest of nothing that ever was");
    let e = read_one(&path, &stamp);
    assert!(e.to_string().contains("changed while"), "{e}");
    assert!(e.hint().is_some());
}

#[test]
fn names_that_cannot_be_published_are_refused() {
    for (name, reason) in [
        ("a".repeat(256), "256 bytes"),
        (format!("sub/{}", "é".repeat(128)), "256 bytes"),
        (["abc"; 226].join("/"), "903 bytes"),
        ("/a".into(), "absolute"),
        ("a/../b".into(), "`..`"),
        ("a//b".into(), "empty name"),
        ("a\nb".into(), "line break"),
    ] {
        let problem = name_problem(&name).unwrap_or_default();
        assert!(problem.contains(reason), "{name}: {problem}");
    }
    for name in ["a".repeat(255), "a b/ü.safetensors".into(), "..a/b..".into()] {
        assert_eq!(name_problem(&name), None, "{name}");
    }
}

#[test]
fn names_on_disk_are_checked() {
    use std::os::unix::ffi::OsStrExt;
    for (name, reason) in [(&b"a\nb"[..], "line break"), (b"caf\xe9", "not UTF-8")] {
        let dir = directory(&[]);
        std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
        let e = refusal(dir.path());
        assert!(e.to_string().contains(reason) && !e.to_string().contains('\n'), "{e}");
    }
    let dir = directory(&[]);
    let deep = ["d".repeat(250), "e".repeat(250), "f".repeat(250), "g".repeat(250)].join("/");
    std::fs::create_dir_all(dir.path().join(deep)).unwrap();
    assert!(
        refusal(dir.path()).to_string().contains("1003 bytes") || refusal(dir.path()).to_string().contains("fit into")
    );
}

#[test]
fn globs_select_and_exclude() {
    let dir = directory(&[("checkpoints/a.safetensors", ""), ("checkpoints/a.ckpt", ""), ("loras/b.safetensors", "")]);
    let select =
        |globs: &[&str]| all(dir.path(), globs).map(|t| t.files.into_iter().map(|f| f.path).collect::<Vec<_>>());
    assert_eq!(select(&["*.safetensors"]).unwrap(), ["checkpoints/a.safetensors", "loras/b.safetensors"]);
    assert_eq!(select(&["checkpoints/"]).unwrap(), ["checkpoints/a.ckpt", "checkpoints/a.safetensors"]);
    assert_eq!(select(&["checkpoints", "!*.ckpt"]).unwrap(), ["checkpoints/a.safetensors"]);
    assert_eq!(select(&["!*.ckpt"]).unwrap(), ["checkpoints/a.safetensors", "loras/b.safetensors"]);
    let e = select(&["*.safetensors", "vae/x.safetensors"]).unwrap_err();
    assert!(e.to_string().contains("vae/x.safetensors"), "{e}");
    assert_eq!(e.kind(), Kind::Usage);
    assert!(select(&["a{"]).is_err() && select(&["*.ckpt", "!*"]).is_err());
}

#[test]
fn names_that_differ_in_case_are_warned_of() {
    let dir = directory(&[("A", ""), ("a", ""), ("b", "")]);
    let recorder = Recorder::default();
    scan(dir.path(), &[], &mut DigestCache::in_memory(), false, &recorder).unwrap();
    let warnings: Vec<_> =
        recorder.0.into_inner().unwrap().into_iter().filter(|e| matches!(e, Event::Warning(_))).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn an_unchanged_tree_is_not_read_again_unless_asked_to() {
    let dir = directory(&[("sub/b", "22")]);
    std::fs::File::create(dir.path().join("a")).unwrap().set_len(64 << 20).unwrap();
    // Files of this moment are not trusted; wait until they are at rest.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let mut cache = DigestCache::load(dir.path());
    let first = scan(dir.path(), &[], &mut cache, false, &Silent).unwrap();
    assert_eq!(first.hashed, (64 << 20) + 2);
    cache.save().unwrap();

    let recorder = Recorder::default();
    let mut cache = DigestCache::load(dir.path());
    let second = scan(dir.path(), &[], &mut cache, false, &recorder).unwrap();
    assert_eq!((second.hashed, &second.files), (0, &first.files));
    assert!(recorder.0.into_inner().unwrap().is_empty(), "nothing was read, so nothing is reported");

    assert_eq!(scan(dir.path(), &[], &mut cache, true, &Silent).unwrap().hashed, first.hashed);
    std::fs::write(dir.path().join("sub/b"), "23").unwrap();
    let third = scan(dir.path(), &[], &mut cache, false, &Silent).unwrap();
    assert_eq!(third.hashed, 2);
    assert_ne!(third.files[1].sha256, first.files[1].sha256);
}

#[test]
fn twenty_sparse_gigabytes_that_are_known_take_milliseconds() {
    let dir = directory(&[]);
    let mut cache = DigestCache::in_memory();
    for n in 0..4 {
        let path = dir.path().canonicalize().unwrap().join(format!("{n}.safetensors"));
        std::fs::File::create(&path).unwrap().set_len(5 << 30).unwrap();
        let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
        let digest = FileDigest { sha256: [n; 32], crc32: 0, crc64nvme: 0, gain: 0 };
        cache.put(&path, stamp, digest, crate::local::cache::now_ns() + 60_000_000_000);
    }
    let begun = Instant::now();
    let tree = scan(dir.path(), &[], &mut cache, false, &Silent).unwrap();
    assert_eq!((tree.bytes(), tree.hashed), (20 << 30, 0));
    // Reading so much takes longer on any machine.
    assert!(begun.elapsed().as_secs() < 3, "{:?}", begun.elapsed());
}

#[test]
fn progress_ends_at_the_total() {
    let dir = directory(&[("a", "1"), ("b", "22"), ("c", "333")]);
    let recorder = Recorder::default();
    scan(dir.path(), &[], &mut DigestCache::in_memory(), false, &recorder).unwrap();
    let events = recorder.0.into_inner().unwrap();
    assert!(matches!(events.first(), Some(Event::Begin { task: Task::Scan, total: Some(6), .. })), "{events:?}");
    let most = events.iter().filter_map(|e| if let Event::Bytes { done, .. } = e { Some(*done) } else { None }).max();
    assert_eq!(most, Some(6));
    assert!(matches!(events.last(), Some(Event::End { task: Task::Scan, .. })));
}

#[test]
fn the_warm_up_workflow_comes_from_elsewhere_unless_it_is_there() {
    let dir = directory(&[("b/x", "1")]);
    let workflow = directory(&[("w.json", "{}")]);
    let source = workflow.path().join("w.json");
    let scan = |dir: &Path| {
        artifact(
            dir,
            Choice { warmup: Some(&source), ..Choice::default() },
            &mut DigestCache::in_memory(),
            false,
            &Silent,
        )
        .unwrap()
    };
    let mut tree = scan(dir.path());
    assert_eq!(paths(&tree), [WARMUP, "b/x"]);
    assert_eq!((tree.files[0].disk().source.clone(), tree.files[0].mode), (source.canonicalize().unwrap(), 0o644));
    let own = directory(&[("b/x", "1"), (WARMUP, "own")]);
    assert_eq!(scan(own.path()).files[0].size, 3);
    let missing = workflow.path().join("none.json");
    let e = artifact(
        dir.path(),
        Choice { warmup: Some(&missing), ..Choice::default() },
        &mut DigestCache::in_memory(),
        false,
        &Silent,
    )
    .unwrap_err();
    assert!(e.to_string().contains("none.json"), "{e}");
}

/// Nothing that is only listed is read.
#[derive(Debug)]
struct Unreadable;

impl RemoteFile for Unreadable {
    fn source(&self) -> String {
        "hf://a/b/c".into()
    }

    fn open(&self, _: std::ops::Range<u64>, _: &Stop) -> Box<dyn RemoteBytes> {
        panic!("nothing of it is needed")
    }
}

#[test]
fn files_elsewhere_are_chosen_as_if_they_were_here() {
    let elsewhere = |path: &str, content: &str| {
        let sha256 = sha2::Sha256::digest(content).into();
        ModelFile::remote(path.into(), content.len() as u64, sha256, Arc::new(Unreadable))
    };
    let recorder = Recorder::default();
    let take = |dir: &Path, globs: &[&str], remote: &[ModelFile]| {
        let globs: Vec<String> = globs.iter().map(|g| g.to_string()).collect();
        let choice = Choice { globs: &globs, warmup: None, remote: remote.to_vec() };
        let tree = artifact(dir, choice, &mut DigestCache::in_memory(), false, &recorder)?;
        Ok::<_, Error>(tree.files.into_iter().map(|f| (f.path.clone(), f.is_remote())).collect::<Vec<_>>())
    };
    let dir = directory(&[("a/here", "same"), ("a/other", "this"), ("a/longer", "longer"), ("z", "")]);
    let remote = ["a/here", "a/longer", "a/new", "a/other"].map(|path| elsewhere(path, "same"));
    let names = |of: &[(&str, bool)]| of.iter().map(|(n, r)| (n.to_string(), *r)).collect::<Vec<_>>();
    let all = names(&[("a/here", false), ("a/longer", true), ("a/new", true), ("a/other", true), ("z", false)]);
    assert_eq!(take(dir.path(), &[], &remote).unwrap(), all);
    assert_eq!(take(dir.path(), &["a/n*"], &remote).unwrap(), names(&[("a/new", true)]));
    assert_eq!(
        take(dir.path(), &["a", "!a/o*", "!a/l*"], &remote).unwrap(),
        names(&[("a/here", false), ("a/new", true)])
    );
    // What is here and is something else is said.
    let notes = recorder.0.lock().unwrap().iter().filter(|e| matches!(e, Event::Note(_))).count();
    assert!(notes >= 2, "{notes}");
    let nowhere = dir.path().join("none");
    assert_eq!(take(&nowhere, &["/a/new"], &remote[2..3]).unwrap(), names(&[("a/new", true)]));
    assert!(take(&nowhere, &["/a/new", "b/*.pt"], &remote[2..3]).is_err());
    assert!(take(&nowhere, &[], &[]).is_err());
}

#[test]
fn a_file_cannot_be_a_directory_too() {
    let clash = |paths: &[&'static str]| name_clash(&paths.iter().copied().collect());
    assert_eq!(clash(&["a/b", "a/b-c", "a/b/c"]), Some(("a/b", "a/b/c")));
    assert_eq!(clash(&["a", "a/b/c"]), Some(("a", "a/b/c")));
    assert_eq!(clash(&["a/b", "a/bc", "ab"]), None);
}
