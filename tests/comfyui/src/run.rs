//! What each node class does.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    execute::{Preview, Run},
    graph::annotated,
    life::Halt,
    picture::{Picture, Shown, picture_digest},
    py::{Value, dict, str_of},
};

mod save;

/// What flows along a link.
#[derive(Debug, Clone)]
pub(crate) enum Thing {
    /// A number, a text, a flag.
    Value(Value),
    /// A batch of pictures.
    Images(Arc<Vec<Picture>>),
    /// A batch of latents.
    Latent(Arc<Latent>),
    /// An encoded text.
    Conditioning(Arc<str>),
    /// A source of noise.
    Noise(u64),
    /// The texts that lead a sampler.
    Guider(Arc<str>, Arc<str>),
    /// A number of steps.
    Sigmas(usize),
    /// Frames.
    Video(Arc<Vec<Picture>>),
    /// A model or anything else that is only handed on.
    Opaque(&'static str),
}

impl Thing {
    /// A name for error reports.
    pub fn name(&self) -> &'static str {
        match self {
            Thing::Opaque(name) => name,
            Thing::Latent(_) => "LATENT",
            Thing::Conditioning(_) => "CONDITIONING",
            Thing::Noise(_) => "NOISE",
            Thing::Guider(..) => "GUIDER",
            Thing::Sigmas(_) => "SIGMAS",
            Thing::Video(..) => "VIDEO",
            Thing::Images(_) => "IMAGE",
            Thing::Value(value) => value.type_name(),
        }
    }
}

/// What a decoder makes pictures of.
#[derive(Debug)]
pub(crate) struct Latent {
    width: u32,
    height: u32,
    batch: usize,
    /// What a sampler put in; `None` is empty.
    drawn: Option<Shown>,
    /// Pictures that were encoded, and perhaps sampled over.
    original: Option<Arc<Vec<Picture>>>,
}

impl Latent {
    fn decode(&self) -> Vec<Picture> {
        (0..self.batch)
            .map(|index| {
                let original = self.original.as_ref().and_then(|pictures| pictures.get(index % pictures.len().max(1)));
                match (&self.drawn, original) {
                    (Some(shown), _) => {
                        let original_digest = original.map_or(0, picture_digest);
                        let shown = Shown { index: index as u16, original: original_digest, ..*shown };
                        Picture::drawn(self.width, self.height, &shown, original)
                    }
                    (None, Some(original)) => original.clone(),
                    (None, None) => Picture::flat(self.width, self.height, [127; 3]),
                }
            })
            .collect()
    }
}

/// What a node leaves.
pub(crate) struct Done {
    /// Its outputs.
    pub outputs: Vec<Thing>,
    /// What it shows to the client.
    pub shown: Option<Value>,
}

impl Done {
    fn with(outputs: Vec<Thing>) -> Self {
        Done { outputs, shown: None }
    }

    fn showing(shown: Value) -> Self {
        Done { outputs: Vec::new(), shown: Some(shown) }
    }
}

/// Five letters as PreviewImage puts them into file names.
pub(crate) fn random_letters() -> String {
    uuid::Uuid::new_v4().as_bytes()[..5].iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

/// The values of a node's inputs.
pub(crate) struct Inputs<'a>(&'a HashMap<String, Thing>);

impl Inputs<'_> {
    fn int(&self, name: &str) -> u64 {
        match self.0.get(name) {
            Some(Thing::Value(Value::Float(float))) => *float as u64,
            Some(Thing::Value(value)) => value.as_int().map_or(0, |int| u64::try_from(int.max(0)).unwrap_or(u64::MAX)),
            _ => 0,
        }
    }

    fn side(&self, name: &str) -> u32 {
        self.int(name).clamp(1, 16_384) as u32
    }

    fn count(&self, name: &str) -> usize {
        self.int(name).clamp(1, 4_096) as usize
    }

    fn float(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some(Thing::Value(value)) => value.as_f64().unwrap_or(0.0),
            _ => 0.0,
        }
    }

    fn text(&self, name: &str) -> String {
        match self.0.get(name) {
            Some(Thing::Value(value)) => str_of(value),
            _ => String::new(),
        }
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Thing::Value(value)) if value.truthy())
    }

    fn images(&self, name: &str) -> Arc<Vec<Picture>> {
        match self.0.get(name) {
            Some(Thing::Images(pictures) | Thing::Video(pictures)) => pictures.clone(),
            _ => Arc::default(),
        }
    }

    fn latent(&self, name: &str) -> Arc<Latent> {
        match self.0.get(name) {
            Some(Thing::Latent(latent)) => latent.clone(),
            _ => Arc::new(Latent { width: 64, height: 64, batch: 1, drawn: None, original: None }),
        }
    }

    fn words(&self, name: &str) -> Arc<str> {
        match self.0.get(name) {
            Some(Thing::Conditioning(text)) => text.clone(),
            _ => "".into(),
        }
    }

    fn any(&self, name: &str) -> Thing {
        self.0.get(name).cloned().unwrap_or(Thing::Value(Value::None))
    }
}

/// Runs a node.
pub(crate) fn node(
    run: &mut Run<'_>,
    loaded: &mut HashSet<String>,
    id: &str,
    class: &str,
    inputs: &HashMap<String, Thing>,
    suffix: &str,
) -> Result<Done, Halt> {
    let input = Inputs(inputs);
    let images = |pictures: Vec<Picture>| Ok(Done::with(vec![Thing::Images(Arc::new(pictures))]));
    let latent = |latent: Latent| Ok(Done::with(vec![Thing::Latent(Arc::new(latent))]));
    let words = |text: String| Ok(Done::with(vec![Thing::Conditioning(text.into())]));
    match class {
        "EmptyImage" => {
            let colour = input.int("color") as u32;
            let colour = [(colour >> 16) as u8, (colour >> 8) as u8, colour as u8];
            images(vec![Picture::flat(input.side("width"), input.side("height"), colour); input.count("batch_size")])
        }
        "TestPhoto" => {
            let seed = input.int("seed");
            let photo = |index| {
                Picture::photo(input.side("width"), input.side("height"), input.flag("alpha"), seed.wrapping_add(index))
            };
            images((0..input.count("batch_size") as u64).map(photo).collect())
        }
        "LoadImage" | "LoadImageMask" => load(run, &input, class),
        "ImageScale" => {
            let (mut width, mut height) = (input.int("width") as u32, input.int("height") as u32);
            let pictures = input.images("image");
            let Some(first) = pictures.first() else { return images(Vec::new()) };
            // One side of 0 keeps the proportions, two keep the picture.
            if width == 0 && height == 0 {
                (width, height) = (first.width, first.height);
            } else if width == 0 {
                width = (first.width * height / first.height).max(1);
            } else if height == 0 {
                height = (first.height * width / first.width).max(1);
            }
            images(pictures.iter().map(|picture| picture.scaled(width, height)).collect())
        }
        "ImageInvert" => images(input.images("image").iter().map(Picture::inverted).collect()),
        "ImageBatch" => {
            let (first, second) = (input.images("image1"), input.images("image2"));
            let mut all = first.to_vec();
            if let Some(one) = first.first() {
                all.extend(second.iter().map(|picture| picture.scaled(one.width, one.height)));
            }
            images(all)
        }
        "EmptyLatentImage" | "EmptySD3LatentImage" | "EmptyLatentAudio" => {
            let (width, height) = match class {
                "EmptyLatentAudio" => (64, 64),
                _ => (input.side("width"), input.side("height")),
            };
            latent(Latent { width, height, batch: input.count("batch_size"), drawn: None, original: None })
        }
        "VAEEncode" => {
            let pictures = input.images("pixels");
            let (width, height) = pictures.first().map_or((8, 8), |first| (first.width / 8 * 8, first.height / 8 * 8));
            let (width, height) = (width.max(8), height.max(8));
            latent(Latent { width, height, batch: pictures.len(), drawn: None, original: Some(pictures) })
        }
        "VAEDecode" => {
            let latent = input.latent("samples");
            images(latent.decode())
        }
        "CheckpointLoaderSimple" => {
            load_model(run, loaded, &input.text("ckpt_name"))?;
            Ok(Done::with(vec![Thing::Opaque("MODEL"), Thing::Opaque("CLIP"), Thing::Opaque("VAE")]))
        }
        "UNETLoader" => {
            load_model(run, loaded, &input.text("unet_name"))?;
            Ok(Done::with(vec![Thing::Opaque("MODEL")]))
        }
        "CLIPLoader" | "DualCLIPLoader" => Ok(Done::with(vec![Thing::Opaque("CLIP")])),
        "VAELoader" => Ok(Done::with(vec![Thing::Opaque("VAE")])),
        "ControlNetLoader" => Ok(Done::with(vec![Thing::Opaque("CONTROL_NET")])),
        "LoraLoader" => Ok(Done::with(vec![Thing::Opaque("MODEL"), Thing::Opaque("CLIP")])),
        "LoraLoaderModelOnly" | "ModelSamplingFlux" | "ModelSamplingSD3" => {
            Ok(Done::with(vec![Thing::Opaque("MODEL")]))
        }
        "CLIPSetLastLayer" => Ok(Done::with(vec![Thing::Opaque("CLIP")])),
        "KSamplerSelect" => Ok(Done::with(vec![Thing::Opaque("SAMPLER")])),
        "CLIPTextEncode" => words(input.text("text")),
        "CLIPTextEncodeFlux" => words(match (input.text("clip_l"), input.text("t5xxl")) {
            (l, t5) if l == t5 || l.is_empty() => t5,
            (l, t5) if t5.is_empty() => l,
            (l, t5) => format!("{l}\n{t5}"),
        }),
        "FluxGuidance" | "ConditioningZeroOut" => {
            let zero = class == "ConditioningZeroOut";
            words(if zero { String::new() } else { input.words("conditioning").to_string() })
        }
        "ConditioningCombine" => words(format!("{}\n{}", input.words("conditioning_1"), input.words("conditioning_2"))),
        "ControlNetApplyAdvanced" => Ok(Done::with(vec![input.any("positive"), input.any("negative")])),
        "RandomNoise" => Ok(Done::with(vec![Thing::Noise(input.int("noise_seed"))])),
        "BasicGuider" => Ok(Done::with(vec![Thing::Guider(input.words("conditioning"), "".into())])),
        "CFGGuider" => Ok(Done::with(vec![Thing::Guider(input.words("positive"), input.words("negative"))])),
        "BasicScheduler" => Ok(Done::with(vec![Thing::Sigmas(input.count("steps"))])),
        "KSampler" | "KSamplerAdvanced" => {
            let seed = input.int(if class == "KSampler" { "seed" } else { "noise_seed" });
            let steps = input.count("steps");
            let latent = input.latent("latent_image");
            sample(run, id, seed, steps, &input.words("positive"), &input.words("negative"), &latent)
                .map(|latent| Done::with(vec![Thing::Latent(Arc::new(latent))]))
        }
        "SamplerCustomAdvanced" => {
            let Thing::Noise(seed) = input.any("noise") else { return Err(broken("noise")) };
            let Thing::Guider(positive, negative) = input.any("guider") else { return Err(broken("guider")) };
            let Thing::Sigmas(steps) = input.any("sigmas") else { return Err(broken("sigmas")) };
            let latent = Arc::new(sample(run, id, seed, steps, &positive, &negative, &input.latent("latent_image"))?);
            Ok(Done::with(vec![Thing::Latent(latent.clone()), Thing::Latent(latent)]))
        }
        "PrimitiveInt" | "PrimitiveFloat" | "PrimitiveString" | "PrimitiveStringMultiline" | "PrimitiveBoolean" => {
            Ok(Done::with(vec![input.any("value")]))
        }
        "CreateVideo" => Ok(Done::with(vec![Thing::Video(input.images("images"))])),
        "EmptyAudio" => Ok(Done::with(vec![Thing::Opaque("AUDIO")])),
        "PreviewAny" => {
            let text = match input.any("source") {
                Thing::Value(Value::Str(text)) => text,
                Thing::Value(Value::None) => "None".into(),
                Thing::Value(value @ (Value::List(_) | Value::Dict(_))) => crate::py::dumps(&value),
                Thing::Value(value) => str_of(&value),
                other => str_of(&crate::tensor::shown(&other)),
            };
            Ok(Done::showing(dict! { "text" => vec![text] }))
        }
        "SaveImageWebsocket" => {
            let pictures = input.images("images");
            for (index, picture) in pictures.iter().enumerate() {
                let bytes = crate::files::png(picture, &[], 1).map_err(raised)?;
                run.step(id, index, pictures.len(), Some(Preview { bytes, png: true }))?;
            }
            Ok(Done::with(Vec::new()))
        }
        "TestSleep" => {
            let steps = input.count("steps");
            let each = Duration::try_from_secs_f64(input.float("seconds") / steps as f64).unwrap_or_default();
            for step in 1..=steps {
                run.life.sleep(each)?;
                let preview = match input.flag("previews") {
                    true => Some(test_preview(input.int("seed").wrapping_add(step as u64))?),
                    false => None,
                };
                run.step(id, step, steps, preview)?;
            }
            Ok(Done::with(vec![input.any("image")]))
        }
        "TestText" => {
            run.show_text(id, &input.text("text"));
            Ok(Done::with(vec![input.any("image")]))
        }
        "TestFail" => Err(Halt::Raised {
            kind: "ValueError".into(),
            text: input.text("message"),
            place: "custom_nodes/test_nodes.py\", line 64, in run".into(),
        }),
        "TestExit" => {
            // As a crash in native code: nothing is tidied up, nobody is told.
            let _ = run.life.end.send(false);
            run.life.dead.store(true, std::sync::atomic::Ordering::SeqCst);
            Err(Halt::Dead)
        }
        _ => save::node(run, class, &input, suffix),
    }
}

fn broken(name: &str) -> Halt {
    Halt::Raised {
        kind: "AttributeError".into(),
        text: format!("{name} is not what this node takes"),
        place: "comfy_extras/nodes_custom_sampler.py\", line 1, in sample".into(),
    }
}

fn raised(error: impl std::fmt::Display) -> Halt {
    Halt::Raised {
        kind: "OSError".into(),
        text: error.to_string(),
        place: "nodes.py\", line 1606, in save_images".into(),
    }
}

/// A preview as samplers make them: a small JPEG.
fn test_preview(seed: u64) -> Result<Preview, Halt> {
    let bytes = Picture::photo(64, 64, false, seed).jpeg(95).map_err(raised)?;
    Ok(Preview { bytes, png: false })
}

fn load_model(run: &Run<'_>, loaded: &mut HashSet<String>, name: &str) -> Result<(), Halt> {
    if loaded.insert(name.to_owned()) {
        run.life.sleep(run.life.options.load)?;
    }
    Ok(())
}

fn sample(
    run: &mut Run<'_>,
    id: &str,
    seed: u64,
    steps: usize,
    positive: &str,
    negative: &str,
    latent: &Latent,
) -> Result<Latent, Halt> {
    for step in 1..=steps {
        run.life.sleep(run.life.options.step)?;
        run.step(id, step, steps, None)?;
    }
    let original = match &latent.drawn {
        Some(_) => Some(Arc::new(latent.decode())),
        None => latent.original.clone(),
    };
    let shown = Shown::of(positive, negative, seed, u16::try_from(steps).unwrap_or(u16::MAX));
    Ok(Latent { width: latent.width, height: latent.height, batch: latent.batch, drawn: Some(shown), original })
}

fn load(run: &Run<'_>, input: &Inputs<'_>, class: &str) -> Result<Done, Halt> {
    let name = input.text("image");
    let (name, folder) = annotated(&name);
    let folder = run.life.folders.of(folder.unwrap_or("input")).unwrap_or(&run.life.folders.input);
    let path = folder.join(name);
    let failed = |kind: &str, text: String| Halt::Raised {
        kind: kind.into(),
        text,
        place: "nodes.py\", line 1647, in load_image".into(),
    };
    let bytes = std::fs::read(&path).map_err(|_| {
        failed("FileNotFoundError", format!("[Errno 2] No such file or directory: '{}'", path.display()))
    })?;
    let picture = Picture::decode(&bytes).map_err(|_| {
        failed("PIL.UnidentifiedImageError", format!("cannot identify image file '{}'", path.display()))
    })?;
    let mask = Thing::Opaque("MASK");
    Ok(Done::with(match class {
        "LoadImage" => vec![Thing::Images(Arc::new(vec![picture])), mask],
        _ => vec![mask],
    }))
}
