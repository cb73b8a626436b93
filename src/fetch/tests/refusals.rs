//! What the hub itself says before any content comes: limits, refusals, redirects.

use super::*;
use hub::Said;

const REPO_NOT_FOUND: &[(&str, &str)] =
    &[("x-error-code", "RepoNotFound"), ("x-error-message", "Repository not found")];

#[test]
fn a_limit_at_the_hub_is_waited_for() {
    let weights = content(5000, 41);
    for source in [MODEL, "civitai:7"] {
        let mut app = App::new(&[entry(source, "checkpoints/x.safetensors")]);
        app.token = Some(TOKEN);
        app.hub.put("flux1.safetensors", &weights);
        app.hub.put("style.safetensors", &weights);
        let said: [Said; 4] = [
            (429, &[("retry-after", "2")]),
            (429, &[("ratelimit", "\"resolvers\";r=0;t=3")]),
            (503, &[("retry-after", "1")]),
            (502, &[]),
        ];
        app.hub.state().at_hub = said.into();
        app.fetch().unwrap_or_else(|e| panic!("{source}: {}", text(&e)));
        assert_eq!(app.read("checkpoints/x.safetensors").as_ref(), Some(&weights), "{source}");
        assert!(app.hub.state().at_hub.is_empty(), "{source}");
    }
}

#[test]
fn a_limit_that_lasts_is_told_with_its_seconds() {
    let app = App::with(&content(10, 42));
    app.hub.state().at_hub = [(429, &[("retry-after", "3600")] as &[_])].into();
    let error = app.refused();
    for word in ["429, too many requests", "3600 s", "try again later"] {
        assert!(text(&error).contains(word), "{}", text(&error));
    }
    let app = App::with(&content(10, 42));
    app.hub.state().at_hub = std::iter::repeat_n((429, &[] as &[_]), 20).collect();
    assert!(text(&app.refused()).contains("tried 6 times"));
}

#[test]
fn each_refusal_of_the_hub_says_what_to_do() {
    const INVALID: &[(&str, &str)] = &[("x-error-message", "Invalid credentials in Authorization header")];
    type Case = (&'static str, Option<&'static str>, Said, Kind, &'static [&'static str]);
    let cases: [Case; 10] = [
        (MODEL, Some("stale"), (401, INVALID), Kind::Access, &["token is not valid", "settings/tokens", "HF_TOKEN"]),
        (MODEL, None, (401, REPO_NOT_FOUND), Kind::Access, &["or it is private", "set HF_TOKEN"]),
        (MODEL, Some("other"), (401, REPO_NOT_FOUND), Kind::Access, &["this token may not read it", "/maker/model"]),
        (MODEL, None, (404, REPO_NOT_FOUND), Kind::Usage, &["there is no repository maker/model", "correct its name"]),
        (MODEL, Some("other"), (404, REPO_NOT_FOUND), Kind::Usage, &["this token may not read it", "/maker/model"]),
        (MODEL, Some("fine"), (403, &[("x-error-code", "GatedRepo")]), Kind::Access, &["fine-grained", "/maker/model"]),
        (MODEL, None, (451, &[]), Kind::Failed, &["legal reasons"]),
        ("civitai:7", Some("stale"), (401, &[]), Kind::Access, &["not valid", "civitai.com/user/account"]),
        ("civitai:7", Some("poor"), (403, &[]), Kind::Access, &["rights that this token does not have"]),
        ("civitai:7", None, (404, &[]), Kind::Usage, &["no model version 7", "modelVersionId"]),
    ];
    for (source, token, said, kind, words) in cases {
        let mut app = App::new(&[entry(source, "vae/x.safetensors")]);
        app.token = token;
        app.hub.state().at_hub = [said].into();
        let error = app.refused();
        let shown = text(&error);
        assert_eq!(error.kind(), kind, "{said:?}: {shown}");
        for word in words {
            assert!(shown.contains(word), "{said:?}: {word:?} is not in {shown}");
        }
        assert!(token.is_none_or(|token| !shown.contains(&format!("{token} "))), "{shown}");
        assert!(!app.dir.path().join("models").exists() && app.hub.state().at_hub.is_empty(), "{said:?}");
    }
}

/// Civitai describes a file to anybody, and refuses its content.
#[test]
fn a_download_that_civitai_refuses_says_what_to_do() {
    let mut app = App::new(&[entry("civitai:7", "loras/")]);
    app.hub.put("style.safetensors", &content(10, 43));
    app.token = Some("stale");
    // Behind a login page, as for those without a token.
    let error = app.refused();
    assert!(error.kind() == Kind::Access && text(&error).contains("new key"), "{}", text(&error));
}

#[test]
fn a_locked_repository_that_is_gone_is_not_taken_for_a_lost_commit() {
    let app = App::with(&content(1000, 44));
    app.fetch().expect("fetched");
    std::fs::remove_file(app.dir.path().join("models/checkpoints/flux1.safetensors")).expect("removed");
    app.hub.state().at_hub = [(404, REPO_NOT_FOUND)].into();
    assert!(text(&app.refused()).contains("there is no repository maker/model"));
}

#[test]
fn a_renamed_repository_is_followed_with_the_token() {
    let weights = content(40_000, 45);
    let mut app = App::new(&[entry("hf://maker/old/flux1.safetensors@main", "checkpoints/")]);
    app.hub.put("flux1.safetensors", &weights);
    app.hub.state().gated = true;
    app.token = Some(TOKEN);
    app.hub.state().faults = [Fault::Cut(10_000), Fault::Expire].into();
    app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(weights.clone()));
    let locked = app.lock().files["checkpoints/flux1.safetensors"].clone();
    assert_eq!((locked.commit.as_deref(), locked.sha256), (Some(COMMIT), sha256(&weights)));
    let state = app.hub.state();
    assert!(state.log.iter().all(|(_, path, token, _)| path.starts_with("/maker") == *token));
}

#[test]
fn what_a_redirect_says_of_a_file_is_kept_when_it_is_followed() {
    let weights = content(40_000, 46);
    let app = App::with(&weights);
    app.hub.state().mirror = true;
    let done = app.run(async |job| lock(job, None).await).unwrap_or_else(|e| panic!("{}", text(&e)));
    assert!(done.fetched.is_empty(), "the sha256 is known without the content");
    let locked = app.lock().files["checkpoints/flux1.safetensors"].clone();
    let expected = (Some(COMMIT), 40_000, sha256(&weights), Some(sha256(&weights)));
    assert_eq!((locked.commit.as_deref(), locked.size, locked.sha256, locked.etag), expected);
    app.hub.state().faults = [Fault::Cut(10_000)].into();
    app.fetch().expect("fetched");
    assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(weights));
}

#[test]
fn content_that_arrives_damaged_under_its_own_etag_is_found_out() {
    let weights = content(40_000, 47);
    let app = App::with(&weights);
    app.hub.state().faults = [Fault::Damage].into();
    let error = text(&app.refused());
    for word in ["arrived damaged", &sha256(&weights), "run the same command again"] {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
    assert!(app.left("checkpoints").is_empty(), "nothing of it is kept");
    assert!(app.lock().files.is_empty());
    // In a part of it, of which the rest is whole: what was resumed may be what is wrong, and is begun anew.
    app.hub.state().faults =
        [Fault::Damage].into_iter().chain([Fault::Cut(9_000)]).chain((0..8).map(|_| Fault::Cut(0))).collect();
    app.refused();
    app.hub.state().faults = [Fault::Cut(9_000)].into_iter().chain((0..8).map(|_| Fault::Cut(0))).collect();
    app.refused();
    app.hub.state().faults = [Fault::Damage].into();
    app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(app.read("checkpoints/flux1.safetensors"), Some(weights));
}
