use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::{ARG_NODES, ARG_REF, context};
use crate::config::{Comfyui, CustomNode, Image};

struct Context {
    root: tempfile::TempDir,
    image: Image,
    comfyui: Comfyui,
}

impl Context {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let this = Context { root, image: Image::default(), comfyui: Comfyui::default() };
        this.write("Dockerfile", "FROM scratch\n");
        this.write("start.sh", "#!/bin/sh\n");
        this.write("lib/a.py", "a");
        this
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join("image").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("directory");
        fs::write(path, text).expect("file");
    }

    fn tag(&self) -> String {
        context(self.root.path(), &self.image, &self.comfyui).expect("a context").tag
    }
}

#[test]
fn the_tag_has_its_form() {
    let tag = Context::new().tag();
    let hash = tag.strip_prefix("c-").expect("prefix");
    assert!(hash.len() == 24 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{tag}");
}

#[test]
fn the_tag_covers_what_decides_a_build() {
    type Change = (&'static str, fn(&mut Context));
    let changes: [Change; 13] = [
        ("Dockerfile", |c| c.write("Dockerfile", "FROM scratch\nCMD x\n")),
        ("content", |c| c.write("lib/a.py", "b")),
        ("new file", |c| c.write("lib/b.py", "")),
        ("moved file", |c| fs::rename(c.path("lib/a.py"), c.path("lib/c.py")).expect("rename")),
        ("new directory", |c| fs::create_dir(c.path("empty")).expect("mkdir")),
        ("execute bit", |c| {
            fs::set_permissions(c.path("start.sh"), fs::Permissions::from_mode(0o755)).expect("chmod");
        }),
        ("link", |c| symlink("lib", c.path("link")).expect("link")),
        ("build argument", |c| drop(c.image.build_args.insert("A".into(), "1".into()))),
        ("target", |c| c.image.target = Some("gui".into())),
        ("platform", |c| c.image.platform = "linux/arm64".into()),
        ("ComfyUI", |c| c.comfyui.git_ref = "f".repeat(40)),
        ("custom nodes", |c| {
            c.comfyui.custom_nodes.push(CustomNode { url: "https://example.com/n".into(), git_ref: "0".repeat(40) });
        }),
        ("ignore file", |c| c.write(".dockerignore", "lib\n")),
    ];
    let mut tags = vec![Context::new().tag()];
    for (what, change) in changes {
        let mut changed = Context::new();
        change(&mut changed);
        let tag = changed.tag();
        assert!(!tags.contains(&tag), "{what} does not change the tag");
        tags.push(tag);
    }
}

#[test]
fn the_tag_does_not_cover_the_rest() {
    let base = Context::new();
    base.write(".dockerignore", "*.tmp\nmodels\n");
    let tag = base.tag();
    base.write("x.tmp", "ignored");
    base.write("models/a/b.safetensors", "ignored");
    fs::set_permissions(base.path("lib/a.py"), fs::Permissions::from_mode(0o600)).expect("chmod");
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(base.path("lib/a.py")).and_then(|f| f.set_modified(old)).expect("mtime");
    assert_eq!(base.tag(), tag);
    // Another checkout of the same files elsewhere.
    let other = Context::new();
    other.write(".dockerignore", "*.tmp\nmodels\n");
    assert_eq!(other.tag(), tag);
}

#[test]
fn a_dangling_link_and_a_pipe_are_no_problem() {
    let base = Context::new();
    symlink("/nowhere/at/all", base.path("dangling")).expect("link");
    let made = std::process::Command::new("mkfifo").arg(base.path("pipe")).status().expect("mkfifo runs");
    assert!(made.success());
    base.tag();
}

#[test]
fn arguments_are_made_from_comfyui() {
    let mut base = Context::new();
    for n in ["a", "b"] {
        let url = format!("https://example.com/{n}");
        base.comfyui.custom_nodes.push(CustomNode { url, git_ref: n.repeat(40) });
    }
    let got = context(base.root.path(), &base.image, &base.comfyui).expect("a context");
    assert_eq!(got.build_args[ARG_REF], base.comfyui.git_ref);
    let (a, b) = ("a".repeat(40), "b".repeat(40));
    assert_eq!(got.build_args[ARG_NODES], format!("https://example.com/a@{a} https://example.com/b@{b}"));
    assert_eq!((got.files, got.bytes), (3, 24));
    assert!(got.warning().is_none());

    base.image.build_args.insert(ARG_REF.into(), "x".into());
    let error = context(base.root.path(), &base.image, &base.comfyui).expect_err("set twice");
    assert!(error.to_string().contains("comfyui.ref"), "{error}");
}

#[test]
fn buildkits_own_ignore_file_wins() {
    let base = Context::new();
    base.write(".dockerignore", "lib");
    base.write("Dockerfile.dockerignore", "start.sh");
    let got = context(base.root.path(), &base.image, &base.comfyui).expect("a context");
    assert_eq!(got.ignore_file, Some(base.path("Dockerfile.dockerignore")));
    // Dockerfile, both ignore files and lib/a.py.
    assert_eq!(got.files, 4);
}

#[test]
fn what_is_missing_is_named() {
    let mut base = Context::new();
    base.image.dockerfile = "Dockerfile.gpu".into();
    let error = context(base.root.path(), &base.image, &base.comfyui).expect_err("no Dockerfile");
    assert!(error.to_string().contains("image/Dockerfile.gpu"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("image.uri")));
    for outside in ["../Dockerfile", "/etc/passwd", ""] {
        base.image.dockerfile = outside.into();
        let error = context(base.root.path(), &base.image, &base.comfyui).expect_err("outside");
        assert!(error.to_string().contains("inside the build context"), "{error}");
    }
    base.image.context = "nowhere".into();
    let error = context(base.root.path(), &base.image, &base.comfyui).expect_err("no context");
    assert!(error.to_string().contains("nowhere"), "{error}");
    base.image.context = "image/start.sh".into();
    let error = context(base.root.path(), &base.image, &base.comfyui).expect_err("a file");
    assert!(error.to_string().contains("not a directory"), "{error}");
}

#[test]
fn the_shipped_context_holds_what_its_dockerfile_copies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut image = Image::default();
    let mut tags = Vec::new();
    for target in ["inference", "gui"] {
        image.target = Some(target.into());
        let got = context(root, &image, &Comfyui::default()).expect("the shipped context");
        // Dockerfile, extra_model_paths.yaml, three locks and their check, the node that loads the artifact's nodes (two
        // files) and, once it is built, comfy-serve; none of the sources beside them.
        assert!((8..=9).contains(&got.files), "{} files", got.files);
        let dockerfile = fs::read_to_string(&got.dockerfile).expect("readable");
        assert!(dockerfile.contains(&format!(" AS {target}\n")), "no target {target}");
        for arg in got.build_args.keys() {
            assert!(dockerfile.contains(&format!("\nARG {arg}")), "{arg} is not used");
        }
        for newer in ["<<", "--link", "--chmod=", "--mount="] {
            let used = dockerfile.lines().filter(|line| !line.starts_with('#')).any(|line| line.contains(newer));
            assert!(!used, "{newer} needs a newer tool");
        }
        tags.push(got.tag);
    }
    assert_ne!(tags[0], tags[1]);
}

#[test]
fn a_large_context_warns() {
    let base = Context::new();
    let file = fs::File::create(base.path("big.bin")).expect("file");
    file.set_len(super::LARGE_CONTEXT).expect("sparse");
    let got = context(base.root.path(), &base.image, &base.comfyui).expect("a context");
    let warning = got.warning().expect("a warning");
    assert!(warning.contains("100 MB") && warning.contains(".dockerignore"), "{warning}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Names and contents cannot be shifted into each other.
    #[test]
    fn different_files_have_different_tags(
        a in prop::collection::btree_map("[a-z]{1,3}", "[a-z]{0,3}", 0..4),
        b in prop::collection::btree_map("[a-z]{1,3}", "[a-z]{0,3}", 0..4),
    ) {
        let tag = |files: &std::collections::BTreeMap<String, String>| {
            let context = Context::new();
            files.iter().filter(|(name, _)| *name != "lib").for_each(|(name, text)| context.write(name, text));
            context.tag()
        };
        let (mut a, mut b) = (a, b);
        a.remove("lib");
        b.remove("lib");
        prop_assert_eq!(a == b, tag(&a) == tag(&b));
    }
}
