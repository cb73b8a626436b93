use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> String {
    match Source::parse(text) {
        Ok(source) => source.to_string(),
        Err(mistake) => panic!("{text}: {mistake:?}"),
    }
}

#[test]
fn every_spelling_of_a_file_is_one_source() {
    let file = "hf://Comfy-Org/flux1-dev/sub/flux1 dev.safetensors@main";
    for text in [
        file,
        "hf://Comfy-Org/flux1-dev/sub/flux1 dev.safetensors",
        "hf://models/Comfy-Org/flux1-dev@main/sub/flux1 dev.safetensors",
        "https://huggingface.co/Comfy-Org/flux1-dev/resolve/main/sub/flux1%20dev.safetensors?download=true",
        "https://huggingface.co/Comfy-Org/flux1-dev/blob/main/sub/flux1%20dev.safetensors",
        "https://hf.co/Comfy-Org/flux1-dev/raw/main/sub/flux1%20dev.safetensors#x",
    ] {
        assert_eq!(parse(text), file, "{text}");
    }
    assert_eq!(
        parse("https://huggingface.co/datasets/a/b/resolve/refs%2Fpr%2F1/x.bin"),
        "hf://datasets/a/b/x.bin@refs/pr/1"
    );
    assert_eq!(parse("https://huggingface.co/a/b/resolve/refs/pr/1/x.bin"), "hf://a/b/x.bin@refs/pr/1");
    for text in [
        "civitai:128713",
        "civitai://128713",
        "https://civitai.com/api/download/models/128713",
        "https://civitai.com/models/4384/dreamshaper?modelVersionId=128713",
    ] {
        assert_eq!(parse(text), "civitai:128713", "{text}");
    }
    assert_eq!(
        parse("https://civitai.com/api/download/models/1?type=Pruned%20Model&format=SafeTensor&x=y"),
        "civitai:1?format=SafeTensor&type=Pruned+Model"
    );
    assert_eq!(parse("s3://my-bucket/a/b.safetensors"), "s3://my-bucket/a/b.safetensors");
    assert_eq!(parse("../shared/x.ckpt"), "../shared/x.ckpt");
}

#[test]
fn what_is_no_source_says_what_to_write() {
    for (text, words) in [
        ("hf://owner/repo", "hf://owner/repo/path@revision"),
        ("hf://owner/repo/../x", "`..`"),
        ("hf://owner/repo/x@", "branch"),
        ("hf://own er/repo/x", "hf://owner"),
        ("https://huggingface.co/Comfy-Org/flux1-dev", "download button"),
        ("https://huggingface.co/Comfy-Org/flux1-dev/tree/main", "download button"),
        ("civitai:dreamshaper", "modelVersionId"),
        ("https://civitai.com/models/4384", "modelVersionId"),
        ("https://civitai.com/api/download/models/1?token=secret", "CIVITAI_API_TOKEN"),
        ("http://example.com/x.safetensors", "https://"),
        ("https://me:secret@example.com/x.safetensors", "password"),
        ("ftp://example.com/x", "hf://"),
        ("s3://bucket", "s3://bucket/key"),
        ("s3://bucket/prefix/", "whole key"),
        (" x", "Blanks"),
    ] {
        let mistake = Source::parse(text).expect_err(text);
        assert!(mistake.help.contains(words), "{text}: {mistake:?}");
        assert!(!format!("{mistake:?}").contains("secret"), "{mistake:?}");
    }
}

#[test]
fn names_come_from_the_source() {
    let name = |text: &str| Source::parse(text).expect(text).file_name();
    assert_eq!(name("https://example.com/a/b%20c.safetensors?x=1").as_deref(), Some("b c.safetensors"));
    assert_eq!(name("https://example.com/a%2Fb").as_deref(), None);
    assert_eq!(name("civitai:1"), None);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        kind in "(datasets/|spaces/|)", owner in "[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", name in "[A-Za-z0-9][A-Za-z0-9_.-]{0,8}",
        path in "[A-Za-z0-9 @%#?+]{0,6}[a-z](/[A-Za-z0-9 @%#?+]{0,6}[a-z]){0,3}",
        revision in "[a-z0-9]{1,8}(/[a-z0-9]{1,4}){0,2}", version in any::<u64>(), key in "[a-z]{1,4}(/[A-Za-z0-9 @?#%]{0,4}[a-z]){0,3}",
    ) {
        // A repository is not called what a kind of repository is.
        prop_assume!(!["datasets", "spaces", "models"].contains(&owner.as_str()));
        for source in [
            Source::HuggingFace { repo: format!("{kind}{owner}/{name}"), path: path.clone(), revision },
            Source::Civitai { version, choice: vec![("format".into(), "SafeTensor".into()), ("type".into(), "A+B".into())] },
            Source::S3 { bucket: "a-bucket".into(), key },
        ] {
            prop_assert_eq!(Source::parse(&source.to_string()), Ok(source));
        }
        let url = Url::parse(&format!("https://example.com/{path}")).expect("url");
        let source = Source::Web({ let mut url = url; url.set_fragment(None); url });
        prop_assert_eq!(Source::parse(&source.to_string()), Ok(source));
    }

    #[test]
    fn no_text_breaks_the_reader(text in "\\PC*") {
        if let Ok(source) = Source::parse(&text) {
            prop_assert_eq!(Source::parse(&source.to_string()), Ok(source));
        }
    }
}
