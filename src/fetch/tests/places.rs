//! Files that stand where one would go: ours, and those of somebody else.

use super::*;

const PATH: &str = "models/checkpoints/flux1.safetensors";

/// The file in the models directory, and another one moved to its place.
fn put(app: &App, content: &[u8]) {
    let (new, file) = (app.dir.path().join("new"), app.dir.path().join(PATH));
    std::fs::create_dir_all(file.parent().expect("parent")).expect("directory");
    std::fs::write(&new, content).expect("written");
    std::fs::rename(new, file).expect("moved");
}

fn is_in_the_way(app: &App) {
    let before = app.read("checkpoints/flux1.safetensors");
    let error = text(&app.refused());
    for word in ["another file than hf://maker/model/flux1.safetensors", "not replaced", "remove it", "`to`"] {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
    assert_eq!(app.read("checkpoints/flux1.safetensors"), before);
}

#[test]
fn a_file_that_was_put_there_is_never_replaced() {
    let weights = content(1000, 13);
    let app = App::with(&weights);
    put(&app, b"mine");
    is_in_the_way(&app);
    // The same content is taken over without loading it, and is still not ours.
    put(&app, &weights);
    let done = app.fetch().expect("taken over");
    assert_eq!((done.fetched.len(), done.kept.len(), app.hub.ranges().len()), (0, 1, 0));
    put(&app, b"mine again");
    assert_eq!(status(app.dir.path(), &app.config).expect("status")[0].state, State::Changed);
    is_in_the_way(&app);
    // Where a fetched one stood, too.
    std::fs::remove_file(app.dir.path().join(PATH)).expect("removed");
    app.fetch().expect("fetched");
    put(&app, b"mine at last");
    is_in_the_way(&app);
}

#[test]
fn a_fetched_file_that_was_damaged_is_fetched_again() {
    let weights = content(1000, 15);
    let app = App::with(&weights);
    app.fetch().expect("fetched");
    for damage in [&b"damaged"[..], &content(1000, 16), b""] {
        std::fs::write(app.dir.path().join(PATH), damage).expect("written");
        app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
        assert_eq!(app.read("checkpoints/flux1.safetensors").as_ref(), Some(&weights));
    }
}

#[test]
fn what_another_machine_fetched_is_told_from_a_file_of_ones_own_by_the_lock_alone() {
    let (old, new) = (content(1000, 17), content(1000, 18));
    let app = App::with(&old);
    app.fetch().expect("fetched");
    // As after a checkout: the lock, but none of the notes that are not committed.
    let forget = || std::fs::remove_dir_all(app.dir.path().join(".comfy-deploy")).expect("removed");
    forget();
    assert_eq!(app.fetch().expect("as locked").kept.len(), 1);
    put(&app, b"mine");
    is_in_the_way(&app);
    // A file as the lock has it goes when the lock moves on in the same run.
    let mut app = app;
    put(&app, &old);
    app.config.models.files = vec![entry(&format!("{}/web/flux1.safetensors", app.hub.url), "checkpoints/")];
    let relock = |app: &App| app.run(async |job| lock(job, Some(&[])).await).map(drop);
    relock(&app).expect("the same content");
    app.hub.put("flux1.safetensors", &new);
    std::fs::remove_dir_all(app.dir.path().join(".comfy-deploy")).expect("removed");
    relock(&app).unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(new));
}

/// The content of a file on the web is known only once it was loaded.
#[test]
fn a_file_that_only_turns_out_to_be_another_one_is_not_replaced() {
    let mut app = App::with(&content(1000, 19));
    app.config.models.files = vec![entry(&format!("{}/web/flux1.safetensors", app.hub.url), "checkpoints/")];
    put(&app, b"mine");
    assert!(text(&app.refused()).contains("not replaced"));
    // What came is kept for when it is gone.
    assert_eq!(
        app.left("checkpoints"),
        [".flux1.safetensors.part", ".flux1.safetensors.part.json", "flux1.safetensors"]
    );
    put(&app, &content(1000, 19));
    app.fetch().expect("the same");
    assert_eq!(app.left("checkpoints"), ["flux1.safetensors"]);
    put(&app, b"mine again");
    assert!(text(&app.refused()).contains("not replaced"), "what stood there was not ours");
    assert_eq!(app.read("checkpoints/flux1.safetensors").as_deref(), Some(&b"mine again"[..]));
}
