//! Broken files: whatever becomes of a workflow, reading, checking and filling it end with a result.
//!
//! Every run does the same: the seed is fixed. COMFY_MUTATIONS sets how many files are tried, COMFY_MUTATION_SEED where
//! to start; a failure prints both the seed of its file and the file.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use comfy_workflow::{Fill, Known, Models, Workflow, check, core_classes, fill, load_images};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

/// What is put into files: what the reader and the checks look for, and what has broken readers before.
const PIECES: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\ud800",
    "\\u0000",
    "\u{feff}",
    "\u{1f600}",
    "null",
    "true",
    "-0",
    "1e999",
    "18446744073709551616",
    "-9223372036854775809",
    "0.1e-400",
    "[\"1\",0]",
    "[\"5\",18446744073709551615]",
    "\"class_type\"",
    "\"inputs\"",
    "\"_meta\":{\"title\":\"5\"}",
    "{\"__value__\":[]}",
    "\"nodes\":[]",
    "POSITIVE_PROMPT_PLACEHOLDER",
    "_PLACEHOLDER",
    "\"seed\":",
    "\"KSampler\"",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn corpus() -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = [here.join("tests/data"), here.join("..")]
        .iter()
        .flat_map(|dir| fs::read_dir(dir).expect("readable"))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(files.len() >= 5);
    let mut corpus: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).expect("readable")).collect();
    corpus.push(br#"{"nodes":[{"id":1}],"links":[],"version":0.4}"#.to_vec());
    // Short ones are hit where it matters more often.
    corpus.push(br#"{"1":{"class_type":"PreviewAny","inputs":{"source":["2",0]}},"2":{"class_type":"PrimitiveInt","inputs":{"value":7}}}"#.to_vec());
    corpus
}

fn mutate(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut text = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        if text.is_empty() {
            break;
        }
        let at = random.random_range(0..text.len());
        let end = (at + random.random_range(1..=40)).min(text.len());
        match random.random_range(0..7) {
            0 => text[at] ^= 1 << random.random_range(0..8),
            1 => drop(text.drain(at..end)),
            2 => text.truncate(at),
            3 => {
                // A part of it again, somewhere else: keys twice, nodes inside of nodes.
                let part = text[at..end].to_vec();
                let to = random.random_range(0..=text.len());
                text.splice(to..to, part);
            }
            4 => {
                let other = &corpus[random.random_range(0..corpus.len())];
                text.truncate(at);
                text.extend_from_slice(&other[random.random_range(0..other.len())..]);
            }
            5 => {
                let nested = "[".repeat(random.random_range(1..3000));
                text.splice(at..at, nested.bytes());
            }
            _ => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                text.splice(at..at, piece.bytes());
            }
        }
    }
    text
}

/// Another value for some inputs of a workflow that stays one: these get past the reader.
fn change_values(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut workflow: Value = loop {
        let file = &corpus[random.random_range(0..corpus.len())];
        if Workflow::parse(file).is_ok() {
            break serde_json::from_slice(file).expect("it was read");
        }
    };
    let nodes = workflow.as_object_mut().expect("nodes");
    for _ in 0..random.random_range(1..=6) {
        let ids: Vec<String> = nodes.keys().cloned().collect();
        let any_id = |random: &mut StdRng| ids[random.random_range(0..ids.len())].clone();
        let id = any_id(random);
        let value = match random.random_range(0..8) {
            0 => json!([any_id(random), random.random_range(0..4)]),
            1 => json!([any_id(random), u64::MAX]),
            2 => json!(random.random::<f64>() * 1e300),
            3 => json!(random.random::<i64>()),
            4 => json!({"__value__": [null, {"a": []}]}),
            5 => json!([]),
            6 => json!(PIECES[random.random_range(0..PIECES.len())]),
            _ => Value::Null,
        };
        let inputs = nodes[&id]["inputs"].as_object_mut().expect("inputs");
        let names: Vec<String> = inputs.keys().cloned().collect();
        match names.get(random.random_range(0..=names.len())) {
            Some(name) => inputs.insert(name.clone(), value),
            None => inputs.insert("seed".into(), value),
        };
    }
    workflow.to_string().into_bytes()
}

/// Everything that is done with a file. True if it is a workflow.
fn use_it(text: &[u8], models: &Models) -> bool {
    let Ok(workflow) = Workflow::parse(text) else { return false };
    let known = Known { classes: Some(core_classes()), models: Some(models), ..Known::default() };
    for finding in check(&workflow, &known) {
        assert!(!finding.to_string().contains('\n'), "one line each: {finding:?}");
    }
    load_images(&workflow);
    let params: Map<String, Value> =
        [("5.width".to_owned(), json!(1)), ("Sampler.steps".to_owned(), json!("x"))].into_iter().collect();
    for params in [None, Some(&params)] {
        let with = Fill { positive: "p", negative: "n", seed: Some(u64::MAX), params };
        if let Ok(done) = fill(workflow.clone(), with, || 0) {
            let again = Workflow::parse(done.workflow.to_string().as_bytes()).expect("it stays a workflow");
            assert_eq!(again, done.workflow);
        }
    }
    true
}

#[test]
fn broken_files_end_with_a_result() {
    let files = number("COMFY_MUTATIONS", 3000);
    let start = number("COMFY_MUTATION_SEED", 1);
    #[allow(clippy::disallowed_macros, reason = "a test has no other voice")]
    {
        println!("COMFY_MUTATIONS={files} COMFY_MUTATION_SEED={start}");
    }
    let corpus = corpus();
    let models: Models = ["checkpoints/sd_xl_base_1.0.safetensors"].into_iter().collect();
    let mut workflows = 0;
    for seed in start..start + files {
        let mut random = StdRng::seed_from_u64(seed);
        let text = if seed % 2 == 0 { mutate(&corpus, &mut random) } else { change_values(&corpus, &mut random) };
        match catch_unwind(AssertUnwindSafe(|| use_it(&text, &models))) {
            Ok(is_workflow) => workflows += u64::from(is_workflow),
            Err(_) => panic!("COMFY_MUTATIONS=1 COMFY_MUTATION_SEED={seed}: {}", String::from_utf8_lossy(&text)),
        }
    }
    assert!(
        workflows * 3 > files,
        "only {workflows} of {files} files were workflows: the test does not reach the checks"
    );
}
