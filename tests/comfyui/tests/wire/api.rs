//! The library's faults and records, and behaviour that no recording shows by itself.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use comfyui_stand_in::{
    CacheMode, Models, Options, Picture, Shown, StandIn, picture_digest,
    py::{self, Value},
    read,
};

use crate::{
    replay::at,
    support::{Listener, PATIENCE, ask, get, history, post, wait},
};

fn image(id: &str, colour: u32, prefix: &str) -> String {
    format!(
        r#"{{"prompt":{{"1":{{"class_type":"EmptyImage","inputs":{{"width":64,"height":64,"batch_size":1,
        "color":{colour}}}}},"2":{{"class_type":"SaveImage","inputs":{{"images":["1",0],"filename_prefix":"{prefix}"}}}}}},
        "prompt_id":"{id}","client_id":"c"}}"#
    )
}

fn run(stand_in: &StandIn, id: &str, prompt: &str) -> Value {
    let answer = post(stand_in.port(), "/prompt", prompt);
    assert_eq!(answer.status, 200, "{}", answer.text());
    history(stand_in.port(), id)
}

fn file(entry: &Value, node: &str) -> String {
    py::str_of(at(entry, &format!("outputs/{node}/images/0/filename")))
}

/// The program's example workflows, with their placeholders filled in.
fn workflow(name: &str, positive: &str, seed: u64) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows").join(name);
    let text = std::fs::read_to_string(path).unwrap().replace("POSITIVE_PROMPT_PLACEHOLDER", positive);
    let text =
        text.replace("NEGATIVE_PROMPT_PLACEHOLDER", "blurry").replace("\"seed\": 0", &format!("\"seed\": {seed}"));
    py::parse(&text).unwrap()
}

#[test]
fn the_shipped_workflows_run_and_show_what_went_in() {
    let models = ["flux1-dev-fp8", "flux1-schnell-fp8", "sd_xl_base_1.0"]
        .iter()
        .fold(Models::default(), |models, name| models.claim("checkpoints", &format!("{name}.safetensors")));
    let stand_in = StandIn::start(Options { models, step: Duration::ZERO, ..Options::default() }).unwrap();
    for (name, steps) in [("flux1-dev-fp8.json", 20), ("flux1-schnell-fp8.json", 4), ("workflow_api.json", 25)] {
        let prompt = py::dumps(&workflow(name, "a red fox", 18_446_744_073_709_551_615));
        let entry = run(&stand_in, name, &format!(r#"{{"prompt":{prompt},"prompt_id":"{name}"}}"#));
        let saved = at(&entry, "outputs").as_dict().unwrap().keys().next().unwrap().clone();
        let path = format!("/view?filename={}&type=output", file(&entry, &saved));
        let picture = Picture::decode(&get(stand_in.port(), &path).body).unwrap();
        assert_eq!((picture.width, picture.height), (1024, 1024));
        assert_eq!(read(&picture), Some(Shown::of("a red fox", "blurry", u64::MAX, steps)), "{name}");
        let jpeg = get(stand_in.port(), &format!("{path}&preview=jpeg;90"));
        assert_eq!(jpeg.header("content-type"), "image/jpeg");
        assert_eq!(read(&Picture::decode(&jpeg.body).unwrap()), read(&picture));
    }
}

#[test]
fn a_picture_made_from_another_shows_it() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    let original = Picture::photo(128, 128, false, 3);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 128, 128);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&original.pixels).unwrap();
    std::fs::write(stand_in.input_directory().join("from.png"), bytes).unwrap();
    let prompt = r#"{"prompt":{"0":{"class_type":"LoadImage","inputs":{"image":"from.png"}},
        "1":{"class_type":"CheckpointLoaderSimple","inputs":{"ckpt_name":"tiny_random.safetensors"}},
        "2":{"class_type":"VAEEncode","inputs":{"pixels":["0",0],"vae":["1",2]}},
        "3":{"class_type":"CLIPTextEncode","inputs":{"text":"p","clip":["1",1]}},
        "4":{"class_type":"KSampler","inputs":{"seed":7,"steps":3,"cfg":7,"sampler_name":"euler","scheduler":"normal",
            "denoise":0.5,"model":["1",0],"positive":["3",0],"negative":["3",0],"latent_image":["2",0]}},
        "5":{"class_type":"VAEDecode","inputs":{"samples":["4",0],"vae":["1",2]}},
        "6":{"class_type":"SaveImage","inputs":{"images":["5",0],"filename_prefix":"i"}}},"prompt_id":"p"}"#;
    let entry = run(&stand_in, "p", prompt);
    let view = get(stand_in.port(), &format!("/view?filename={}", file(&entry, "6")));
    let shown = read(&Picture::decode(&view.body).unwrap());
    assert_eq!(shown, Some(Shown { original: picture_digest(&original), ..Shown::of("p", "p", 7, 3) }));
}

#[test]
fn caches_of_each_mode() {
    for (cache, new_files) in [
        (CacheMode::Classic, [true, false, true, true]),
        (CacheMode::Lru(10), [true, false, true, false]),
        (CacheMode::None, [true, true, true, true]),
    ] {
        let stand_in = StandIn::start(Options { cache, ..Options::default() }).unwrap();
        let count = || stand_in.output_directory().read_dir().unwrap().count();
        for (index, (colour, new)) in [1, 1, 2, 1].into_iter().zip(new_files).enumerate() {
            let before = count();
            run(&stand_in, &format!("p{index}"), &image(&format!("p{index}"), colour, "x"));
            assert_eq!(count() > before, new, "{cache:?}, prompt {index}");
        }
    }
}

#[test]
fn a_cached_prompt_names_a_file_that_is_gone_until_its_output_node_changes() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    let first = file(&run(&stand_in, "a", &image("a", 1, "x")), "2");
    stand_in.lose_output_files().unwrap();
    let again = file(&run(&stand_in, "b", &image("b", 1, "x")), "2");
    assert_eq!(again, first);
    let view = |name: &str| get(stand_in.port(), &format!("/view?filename={name}")).status;
    assert_eq!(view(&again), 404);
    let nodes = stand_in.counts().nodes_run;
    let nonce = image("c", 1, "x").replace("\"filename_prefix\"", "\"_nonce\":1,\"filename_prefix\"");
    assert_eq!(view(&file(&run(&stand_in, "c", &nonce), "2")), 200);
    assert_eq!(stand_in.counts().nodes_run, nodes + 1, "only the output node ran");
}

#[test]
fn frozen_nothing_is_answered_and_thawed_all_is() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    let port = stand_in.port();
    let mut listener = Listener::open(port, "c");
    stand_in.freeze();
    let asked = std::thread::spawn(move || {
        let start = Instant::now();
        (get(port, "/prompt").status, start.elapsed())
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(!asked.is_finished());
    stand_in.thaw();
    let (status, time) = asked.join().unwrap();
    assert_eq!(status, 200);
    assert!(time >= Duration::from_millis(150), "{time:?}");
    post(port, "/prompt", &image("a", 1, "x"));
    listener.until_end();
}

#[test]
fn killed_it_is_gone_and_restarted_it_knows_nothing() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    let port = stand_in.port();
    let name = file(&run(&stand_in, "a", &image("a", 1, "x")), "2");
    let mut listener = Listener::open(port, "c");
    stand_in.freeze();
    stand_in.kill();
    assert!(!stand_in.is_up());
    assert!(listener.next(PATIENCE).is_err());
    assert!(ask(port, "GET", "/prompt", &[], b"").is_err());
    stand_in.restart().unwrap();
    assert_eq!(stand_in.port(), port);
    assert_eq!(get(port, "/history/a").text(), "{}");
    assert_eq!(get(port, &format!("/view?filename={name}")).status, 200, "files stay");
    assert_ne!(file(&run(&stand_in, "b", &image("b", 1, "x")), "2"), name, "caches do not");
    stand_in.stop();
    assert!(!stand_in.temp_directory().exists());
}

#[test]
fn cut_sockets_end_and_prompts_go_on() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    let mut listener = Listener::open(stand_in.port(), "c");
    wait("the socket", || (stand_in.counts().sockets_open == 1).then_some(()));
    stand_in.cut_sockets();
    let error = listener.next(PATIENCE).unwrap_err().to_string();
    assert!(error.contains("without"), "no close frame: {error}");
    run(&stand_in, "a", &image("a", 1, "x"));
    let mut again = Listener::open(stand_in.port(), "d");
    post(stand_in.port(), "/prompt", &image("b", 2, "x").replace("\"c\"", "\"d\""));
    again.until_end();
    assert_eq!(stand_in.clients(), ["c", "d"]);
}

#[test]
fn history_can_come_late() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    stand_in.delay_history(Duration::from_millis(300));
    let mut listener = Listener::open(stand_in.port(), "c");
    post(stand_in.port(), "/prompt", &image("a", 1, "x"));
    listener.until(|frame| frame.kind() == "execution_success");
    assert_eq!(get(stand_in.port(), "/history/a").text(), "{}");
    listener.until_end();
    assert_ne!(get(stand_in.port(), "/history/a").text(), "{}");
}

#[test]
fn what_came_in_is_recorded() {
    let stand_in = StandIn::start(Options::default()).unwrap();
    run(&stand_in, "a", &image("a", 1, "x"));
    post(stand_in.port(), "/prompt", "{}");
    post(stand_in.port(), "/interrupt", "");
    post(stand_in.port(), "/history", r#"{"delete":["a"]}"#);
    get(stand_in.port(), "/view?filename=x.png&type=temp");
    let seen: Vec<_> =
        stand_in.prompts().into_iter().map(|prompt| (prompt.status, prompt.prompt_id, prompt.client_id)).collect();
    assert_eq!(seen, [(200, Some("a".to_owned()), Some("c".to_owned())), (400, None, None)]);
    assert_eq!(stand_in.interrupts(), [None]);
    assert_eq!(stand_in.history_deletes(), ["a"]);
    assert_eq!(stand_in.views(), ["filename=x.png&type=temp"]);
    assert_eq!(stand_in.history_entries(), 0);
    assert_eq!((stand_in.counts().prompts, stand_in.counts().views), (2, 1));
}

#[test]
fn files_that_are_not_there_or_not_meant() {
    let stand_in = StandIn::start(Options { max_upload: 1_000, ..Options::default() }).unwrap();
    let port = stand_in.port();
    for (query, status) in [
        ("", 404),
        ("filename=", 400),
        ("filename=no.png", 404),
        ("filename=../x.png", 400),
        ("filename=/etc/passwd", 400),
        ("filename=x.png&type=zzz", 400),
        ("filename=x.png&subfolder=../..", 403),
    ] {
        assert_eq!(get(port, &format!("/view?{query}")).status, status, "{query}");
    }
    std::fs::write(stand_in.output_directory().join("page.html"), "0123456789").unwrap();
    let with = |name: &str, value: &str| ask(port, "GET", "/view?filename=page.html", &[(name, value)], b"").unwrap();
    let whole = with("X", "");
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    let part = with("Range", "bytes=2-4");
    assert_eq!((part.status, part.text().as_str(), part.header("content-range")), (206, "234", "bytes 2-4/10"));
    assert_eq!(with("Range", "bytes=10-").status, 416);
    assert_eq!(with("If-None-Match", whole.header("etag")).status, 304);
    assert_eq!(with("Origin", "http://evil.example").status, 403);
    let large = post(port, "/prompt", &" ".repeat(1_001));
    assert_eq!((large.status, large.text().as_str()), (413, "Maximum request body size 1000 exceeded."));
}
