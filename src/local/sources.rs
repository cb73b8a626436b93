//! The local side of a plan, and the files behind it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::cache::DigestCache;
use super::function::{self, FunctionPackage, Handler};
use super::image::{self, ImageContext};
use super::lengths::LengthCache;
use super::models::{self, Choice, ModelTree};
use super::workflows::{self, Surroundings};
use crate::config::Packaging;
use crate::error::{Error, Result};
use crate::fetch::{self, Streams};
use crate::pack::{Contents, Layout, measure};
use crate::plan::{LocalFunction, LocalImage, LocalModel};
use crate::progress::{Event, Reporter};
use crate::settings::Settings;

/// So many bytes are compressed to know how long an archive is, in less time than anybody notices: the workflow to warm
/// up with, and what else is small beside the weights.
const LITTLE: u64 = 4 << 20;

/// The files that a deployment may have to send.
#[derive(Default)]
pub struct Sources {
    /// Of the model artifact.
    pub model: Option<Arc<ModelTree>>,
    /// Of the inference image.
    pub image: Option<ImageContext>,
    /// Of the function.
    pub function: Option<FunctionPackage>,
}

/// The model artifact: scanned from `models.dir`, with large declared files left where they are if there are `streams`, or
/// named by `models.uri`. Blocking.
///
/// # Errors
/// What is wrong with the directory or the URI.
pub fn model(
    settings: &Settings,
    streams: Option<&Streams>,
    reporter: &dyn Reporter,
    sources: &mut Sources,
) -> Result<LocalModel> {
    let config = &settings.config.models;
    if let Some(uri) = &config.uri {
        let named = uri
            .strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .filter(|(b, k)| !b.is_empty() && !k.is_empty());
        let (bucket, key) =
            named.ok_or_else(|| Error::usage(format!("models.uri is {uri}")).why("it must be s3://bucket/key"))?;
        return Ok(LocalModel::External { bucket: bucket.into(), key: key.into() });
    }
    let warmup = workflows::warmup(&settings.root, &settings.config)?;
    let mut cache = DigestCache::load(&settings.root);
    let dir = settings.root.join(&config.dir);
    let selection = fetch::selection(&settings.root, config, streams.is_some())?;
    let remote = streams.map(|streams| selection.streamed.iter().map(|file| streams.file(file)).collect());
    let remote = remote.transpose()?.unwrap_or_default();
    let choice = Choice { globs: &selection.globs, warmup: warmup.as_deref(), remote };
    let tree = models::artifact(&dir, choice, &mut cache, settings.rehash, reporter);
    // Also after an error: what was hashed need not be hashed again.
    if let Err(e) = cache.save() {
        reporter.report(Event::Warning(format!("the file digests are not kept: {e}")));
    }
    let tree = Arc::new(tree?);
    let mut contents = Contents::new(tree.clone(), config.compression());
    let stored = match config.packaging {
        Packaging::Tar => Layout::new(&contents).total,
        Packaging::Uncompressed => tree.bytes(),
    };
    let mut bytes = stored;
    if !contents.exact() {
        let mut lengths = LengthCache::load(&settings.root);
        contents.known(&mut lengths);
        // Little is compressed to plan: of what no earlier run found out, it is told what it would be if it were stored.
        if !contents.open() && contents.unknown_bytes() <= LITTLE {
            contents = measure(&contents, &mut lengths, reporter, &AtomicBool::new(false))?;
        }
        bytes = Layout::new(&contents).total;
    }
    let manifest = contents.manifest();
    let local = LocalModel::Tree {
        id: manifest.identity()?,
        key: manifest.key(config.packaging)?,
        bytes,
        at_most: contents.open() || !contents.exact(),
        stored,
        files: tree.files.len(),
    };
    sources.model = Some(tree);
    Ok(local)
}

/// The inference image: the identity of its build context, or the one named by `image.uri`. Blocking.
///
/// # Errors
/// What is wrong with the context.
pub fn image(settings: &Settings, reporter: &dyn Reporter, sources: &mut Sources) -> Result<LocalImage> {
    let config = &settings.config.image;
    if let Some(uri) = &config.uri {
        return Ok(LocalImage::Prebuilt { uri: uri.clone() });
    }
    let context = image::context(&settings.root, config, &settings.config.comfyui)?;
    if let Some(warning) = context.warning() {
        reporter.report(Event::Warning(warning));
    }
    let tag = context.tag.clone();
    sources.image = Some(context);
    Ok(LocalImage::Context { tag })
}

/// The function package, unless the function is off. Blocking; may build the binary.
///
/// # Errors
/// What is wrong with the binary, and workflows that cannot be read. What else is wrong with a workflow is a warning: the
/// others can be used all the same, and its models may come later.
pub fn function(settings: &Settings, reporter: &dyn Reporter, sources: &mut Sources) -> Result<Option<LocalFunction>> {
    let config = &settings.config.lambda;
    if !config.enabled {
        return Ok(None);
    }
    let dir = settings.root.join(&settings.config.workflows);
    let exe = std::env::current_exe().ok();
    let handler =
        match function::find_handler(settings.handler.as_deref(), exe.as_deref(), function::checkout().as_deref())? {
            Handler::Found(file) => file,
            Handler::Build(checkout) => function::build_handler(&checkout, reporter)?,
        };
    let package = function::package(&handler, &dir, config.architecture)?;
    // The sandbox is for trying things out, with whatever build is at hand.
    if let Some(warning) = package.warning().filter(|_| settings.sandbox.is_none()) {
        reporter.report(Event::Warning(warning));
    }
    let models = match &sources.model {
        Some(tree) => Some(tree.files.iter().map(|file| &file.path).collect()),
        None => workflows::models(&settings.root, &settings.config)?,
    };
    let surroundings = Surroundings::of(&settings.config, models);
    for checked in workflows::check_all(&settings.root, &settings.config, &surroundings)? {
        if let Some(warning) = checked.warning() {
            reporter.report(Event::Warning(warning));
        }
    }
    let local =
        LocalFunction { key: package.key.clone(), bytes: package.zip.len() as u64, architecture: package.architecture };
    sources.function = Some(package);
    Ok(Some(local))
}
