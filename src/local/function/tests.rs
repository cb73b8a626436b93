use super::*;

const GOOD: &str = r#"{"3":{"class_type":"KSampler","inputs":{}}}"#;

/// The smallest ELF file that is a static executable: its header, with the machine of `object::elf`.
fn static_elf(machine: u16) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64, 0);
    bytes[16] = 2; // ET_EXEC
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20] = 1; // version
    bytes[24] = 64; // entry
    bytes
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn python_reads_the_zip_and_finds_modes_times_and_texts() {
    let workflows = [
        Workflow { name: "a b.json".into(), text: "{}".into() },
        Workflow { name: DEFAULT_WORKFLOW.into(), text: GOOD.into() },
    ];
    let bytes = zip(b"\x7fELF binary", &workflows).unwrap();
    let dir = directory(&[]);
    let file = dir.path().join("f.zip");
    std::fs::write(&file, &bytes).unwrap();
    let script = "import sys, zipfile\n\
        z = zipfile.ZipFile(sys.argv[1])\n\
        assert z.testzip() is None\n\
        for i in z.infolist():\n    \
            print(i.filename, oct(i.external_attr >> 16), i.date_time, z.read(i)[:4])";
    let out = std::process::Command::new("python3").arg("-c").arg(script).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(
        text,
        "bootstrap 0o100755 (1980, 1, 1, 0, 0, 0) b'\\x7fELF'\n\
         workflows/a b.json 0o100644 (1980, 1, 1, 0, 0, 0) b'{}'\n\
         workflows/workflow_api.json 0o100644 (1980, 1, 1, 0, 0, 0) b'{\"3\"'\n"
    );
}

#[test]
fn the_same_files_give_the_same_zip_and_another_workflow_gives_another_key() {
    let one = [Workflow { name: DEFAULT_WORKFLOW.into(), text: GOOD.into() }];
    let two = [Workflow { name: DEFAULT_WORKFLOW.into(), text: format!("{GOOD}\n") }];
    assert_eq!(zip(b"x", &one).unwrap(), zip(b"x", &one).unwrap());
    assert_ne!(zip(b"x", &one).unwrap(), zip(b"x", &two).unwrap());
}

#[test]
fn a_package_is_named_by_its_content() {
    let dir = directory(&[(DEFAULT_WORKFLOW, GOOD), ("other.json", GOOD), ("notes.txt", "x"), (".hidden.json", "x")]);
    let handler = dir.path().join("handler");
    for (machine, architecture) in
        [(object::elf::EM_X86_64, Architecture::X86_64), (object::elf::EM_AARCH64, Architecture::Arm64)]
    {
        std::fs::write(&handler, static_elf(machine)).unwrap();
        let package = package(&handler, dir.path(), None).unwrap();
        assert_eq!(package.key, format!("functions/{}/function.zip", &package.sha256[..24]));
        assert_eq!(package.sha256, hex::encode(Sha256::digest(&package.zip)));
        assert_eq!(package.workflows, ["other.json", DEFAULT_WORKFLOW]);
        assert_eq!(package.architecture, architecture);
        assert_eq!(super::package(&handler, dir.path(), Some(architecture)).unwrap().key, package.key);
    }
    std::fs::File::options().write(true).open(&handler).unwrap().set_len(UNZIPPED_MAX as u64).unwrap();
    let e = package(&handler, dir.path(), None).unwrap_err();
    assert!(e.to_string().contains("250 MB"), "{e}");
}

#[test]
fn a_package_that_is_larger_than_it_need_be_is_told() {
    let handler = directory(&[("comfy-handler", "")]);
    std::fs::write(handler.path().join("comfy-handler"), static_elf(62)).unwrap();
    let workflows = directory(&[(DEFAULT_WORKFLOW, GOOD)]);
    let mut package = package(&handler.path().join("comfy-handler"), workflows.path(), None).unwrap();
    assert_eq!(package.warning(), None);
    package.zip = vec![0; 7_000_000].into();
    let warning = package.warning().unwrap_or_default();
    assert!(warning.contains("7 MB") && warning.contains("--profile function"), "{warning}");
}

#[test]
fn a_handler_that_is_not_there_is_an_error_with_the_path() {
    let e = package(Path::new("/nonexistent/handler"), Path::new("/"), None).unwrap_err();
    assert!(e.to_string().contains("/nonexistent/handler"), "{e}");
    assert!(e.hint().unwrap_or_default().contains("--handler"));
}

#[test]
fn workflows_that_cannot_run_are_refused_with_file_and_reason() {
    let cases = [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "no nodes"),
        (r#"{"nodes":[],"links":[],"version":0.4}"#, "editor"),
        (r#"{"3":{"inputs":{}}}"#, "\"3\" is not a node: it has no class_type"),
        (r#"{"3":5}"#, "\"3\" is not a node: it is not an object"),
    ];
    for (text, reason) in cases {
        let dir = directory(&[(DEFAULT_WORKFLOW, GOOD), ("bad.json", text)]);
        let e = workflows(dir.path()).unwrap_err();
        assert!(e.to_string().contains("bad.json") && e.to_string().contains(reason), "{text}: {e}");
        assert_eq!(e.kind().exit_code(), 2);
        assert!(e.hint().is_some());
    }
}

#[test]
fn the_directory_and_the_default_workflow_must_be_there() {
    let dir = directory(&[("other.json", GOOD)]);
    let e = workflows(dir.path()).unwrap_err();
    assert!(e.to_string().contains(DEFAULT_WORKFLOW), "{e}");
    assert!(e.hint().unwrap_or_default().contains("Export (API)"));
    let e = workflows(&dir.path().join("none")).unwrap_err();
    assert!(e.to_string().contains("no workflows directory"), "{e}");
}
