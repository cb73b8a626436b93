//! Whether there is room, here and where the files will go, asked before any byte moves.

use std::sync::Mutex;

use super::*;

#[test]
fn what_could_not_be_deployed_is_refused_before_any_byte_moves() {
    let mut app = App::new(&[entry("hf://maker/model/small.safetensors", "vae/")]);
    app.hub.put("small.safetensors", &content(500, 51));
    app.hub.put("flux1.safetensors", &content(500, 52));
    app.hub.state().sizes.insert("flux1.safetensors".into(), 1 << 40);
    app.fetch().expect("one that fits");
    std::fs::write(app.dir.path().join("mine.safetensors"), [7; 300]).expect("written");
    app.config.models.files.extend([entry(MODEL, "checkpoints/"), entry("mine.safetensors", "loras/")]);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    app.fits = Box::new(move |sizes| {
        seen.lock().expect("list").push(sizes.to_vec());
        Err(Error::usage("too large"))
    });
    app.hub.state().log.clear();
    for streaming in [Streaming::Never, Streaming::IfNeeded, Streaming::Always] {
        app.streaming = streaming;
        assert!(text(&app.refused()).contains("too large"));
        // By the lock, by the hub, and by the disk.
        assert_eq!(asked.lock().expect("list").pop(), Some(vec![500, 1 << 40, 300]));
    }
    assert!(app.hub.ranges().is_empty() && !app.dir.path().join("models/loras").exists());
    // Where nothing is to be moved, nobody asks.
    app.config.models.files.truncate(1);
    assert_eq!(app.fetch().expect("it is here").kept.len(), 1);
}

#[test]
fn files_of_this_machine_need_room_too() {
    let mut app = App::new(&[entry("large.safetensors", "loras/")]);
    let file = std::fs::File::create(app.dir.path().join("large.safetensors")).expect("created");
    file.set_len(200 << 20).expect("a hole");
    app.free = |_| Some(100 << 20);
    for streaming in [Streaming::Never, Streaming::IfNeeded] {
        app.streaming = streaming;
        let error = text(&app.refused());
        assert!(error.contains("210 MB") && error.contains("105 MB free"), "{error}");
    }
    assert!(!app.dir.path().join("models").exists());
}

/// The memory of a process is a regular file whose first byte nobody can read.
#[cfg(target_os = "linux")]
#[test]
fn a_copy_that_breaks_off_leaves_nothing() {
    let app = App::new(&[entry("/proc/self/mem", "loras/x.safetensors")]);
    assert!(text(&app.refused()).contains("cannot copy /proc/self/mem"));
    assert!(app.left("loras").is_empty());
}

#[test]
fn what_went_wrong_first_is_told_though_the_lock_cannot_be_written() {
    let mut app = App::with(&content(1000, 53));
    // Nothing can be renamed to where a directory is.
    app.free = |models| {
        let root = models.parent().expect("parent");
        std::fs::create_dir_all(Lock::file(root)).expect("directory");
        Some(0)
    };
    let error = text(&app.refused());
    assert!(error.contains("the models need 1.0 kB") && !error.contains("cannot write"), "{error}");
}
