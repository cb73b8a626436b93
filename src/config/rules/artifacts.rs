//! The image, the models and the bucket: values that exclude or need each other.

use crate::config::problem::Problem;
use crate::config::tree::Path;
use crate::config::{Compression, Config, Image, ModelEntry, Packaging};
use crate::fetch::{FOLDERS, Wanted};
use crate::local::models::name_clash;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    image(config, problems);
    models(config, problems);
    bucket(config, problems);
}

fn image(config: &Config, problems: &mut Vec<Problem>) {
    let Some(uri) = &config.image.uri else { return };
    if uri.ends_with(":latest") {
        problems.push(
            Problem::warning(Path::of("image.uri"), format!("`{uri}` can mean another image tomorrow"))
                .label("a tag that moves")
                .help("The digest it has now is deployed. To stay with it, write repository@sha256:..."),
        );
    }
    let Image { context, dockerfile, target, build_args, builder, .. } = Image::default();
    let set = [
        ("context", config.image.context != context),
        ("dockerfile", config.image.dockerfile != dockerfile),
        ("target", config.image.target != target),
        ("build_args", config.image.build_args != build_args),
        ("builder", config.image.builder != builder),
    ];
    for (key, _) in set.into_iter().filter(|(_, set)| *set) {
        problems.push(
            Problem::warning(Path::of("image").key(key), format!("`image.{key}` has no effect beside `image.uri`"))
                .on_key()
                .label("not used")
                .help("A prebuilt image is used as it is. Remove one of the two."),
        );
    }
    if !config.comfyui.custom_nodes.is_empty() {
        problems.push(
            Problem::warning(
                Path::of("comfyui.custom_nodes"),
                "`comfyui.custom_nodes` has no effect beside `image.uri`",
            )
            .on_key()
            .label("not used")
            .help("Custom nodes are installed when the image is built; a prebuilt image is used as it is."),
        );
    }
}

/// Sources of models, where they go, and two that go to the same place.
fn files(config: &Config, problems: &mut Vec<Problem>) {
    let mut places = std::collections::BTreeMap::new();
    let root = Path::of("models.files");
    for (n, entry) in config.models.files.iter().enumerate() {
        let path = root.index(n);
        let wanted = match Wanted::of(entry) {
            Ok(Some(wanted)) => wanted,
            Ok(None) => continue,
            Err(wrong) => {
                let path = match (entry, wrong.key) {
                    (ModelEntry::File(_), Some(key)) => path.key(key),
                    _ => path,
                };
                let what = format!("`{path}` is not {}", wrong.meant);
                problems.push(Problem::error(path, what).label(wrong.mistake.what).help(wrong.mistake.help));
                continue;
            }
        };
        if !wanted.place.is_known() {
            let (path, top) =
                (if matches!(entry, ModelEntry::File(_)) { path.key("to") } else { path.clone() }, wanted.place.top());
            problems.push(
                // All in one sentence: a warning is printed as one line, without label and help.
                Problem::warning(
                    path,
                    format!("`{top}` is not a model folder of ComfyUI; its folders are {}", FOLDERS.join(", ")),
                )
                .label("only a custom node can look there")
                .help("Correct it, unless a custom node looks there."),
            );
        }
        let key = wanted.place.path().unwrap_or_else(|| wanted.source.to_string());
        if let Some(first) = places.insert(key.clone(), n) {
            problems.push(
                Problem::error(path.clone(), format!("`{path}` is the same file as `{}`", root.index(first)))
                    .label("twice")
                    .help(format!("Both are {key}. Remove one, or give it another name with `to`.")),
            );
        }
    }
    if let Some((file, below)) = name_clash(&places.keys().map(String::as_str).collect()) {
        let (file, path) = (root.index(places[file]), root.index(places[below]));
        problems.push(
            Problem::error(path.clone(), format!("`{path}` needs a directory where `{file}` puts a file"))
                .label("in the way of each other")
                .help("Give one of them another place with `to`."),
        );
    }
    if let (Some(_), Some(first)) = (&config.models.uri, places.values().min()) {
        problems.push(
            Problem::warning(root.index(*first), "`models.files` is not used, because `models.uri` is set")
                .label("not fetched")
                .help("An artifact made elsewhere is used as it is. Remove one of the two."),
        );
    }
}

fn models(config: &Config, problems: &mut Vec<Problem>) {
    files(config, problems);
    compression(config, problems);
    let Some(uri) = &config.models.uri else { return };
    if config.models.stream {
        problems.push(
            Problem::warning(Path::of("models.stream"), "`models.stream` has no effect beside `models.uri`")
                .on_key()
                .label("not used")
                .help("An artifact made elsewhere is used as it is. Remove one of the two."),
        );
    }
    let (fits, allowed) = match config.models.packaging {
        Packaging::Tar => (uri.ends_with(".tar.gz") || uri.ends_with(".tgz"), "s3://bucket/key.tar.gz"),
        Packaging::Uncompressed => (uri.ends_with('/'), "s3://bucket/prefix/ with `packaging: uncompressed`"),
    };
    if !fits {
        problems.push(
            Problem::error(Path::of("models.uri"), format!("`models.uri` is `{uri}`"))
                .label("not a model artifact of this packaging")
                .help(format!("Allowed: {allowed}.")),
        );
    }
}

/// A wish to compress where nothing is compressed.
fn compression(config: &Config, problems: &mut Vec<Problem>) {
    let models = &config.models;
    if matches!(models.compression, Compression::Auto | Compression::None) {
        return;
    }
    if models.stream && models.uri.is_none() && models.compression().looks_at_every_file() {
        problems.push(
            Problem::warning(
                Path::of("models.stream"),
                "`models.stream` has no effect beside this `models.compression`",
            )
            .on_key()
            .label("files are fetched")
            .help("With fast and best every file is looked at first. Remove one of the two."),
        );
    }
    let (beside, help) = match (&models.uri, models.packaging) {
        (Some(_), _) => ("models.uri", "An artifact made elsewhere is used as it is. Remove one of the two."),
        (None, Packaging::Uncompressed) => (
            "models.packaging: uncompressed",
            "The files are published as they are. Remove it, or publish one archive with `packaging: tar`.",
        ),
        (None, Packaging::Tar) => return,
    };
    problems.push(
        Problem::warning(
            Path::of("models.compression"),
            format!("`models.compression` has no effect beside `{beside}`"),
        )
        .on_key()
        .label("not used")
        .help(help),
    );
}

/// S3's rules for bucket names that the pattern does not hold.
fn bucket(config: &Config, problems: &mut Vec<Problem>) {
    let Some(bucket) = &config.storage.bucket else { return };
    let number = |part: &str| part.parse::<u8>().is_ok();
    let why = if bucket.contains("..") || bucket.contains(".-") || bucket.contains("-.") {
        "a dot may not stand beside a dot or a hyphen"
    } else if bucket.split('.').count() == 4 && bucket.split('.').all(number) {
        "it looks like an IP address"
    } else if ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|prefix| bucket.starts_with(prefix))
        || ["-s3alias", "--ol-s3", ".mrap", "--x-s3"].iter().any(|suffix| bucket.ends_with(suffix))
    {
        "its prefix or suffix is reserved by S3"
    } else {
        return;
    };
    problems.push(
        Problem::error(Path::of("storage.bucket"), format!("`storage.bucket` is `{bucket}`"))
            .label("not a bucket name")
            .help(format!("S3 does not allow it: {why}.")),
    );
}
