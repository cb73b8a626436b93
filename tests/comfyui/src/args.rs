//! The command line: ComfyUI's flags, and some of our own.

use std::{path::PathBuf, time::Duration};

use crate::{
    cache::CacheMode,
    models::{ModelPathsError, Models},
    options::Options,
};

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// To serve.
    Serve(Box<Options>),
    /// To print how it is used.
    Help,
}

/// What is wrong with a command line. ComfyUI exits with 2 for all of these.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// Flags that ComfyUI does not have.
    #[error("unrecognized arguments: {0}")]
    Unknown(String),
    /// A flag without its value.
    #[error("argument {0}: expected one argument")]
    Missing(String),
    /// A value that does not fit its flag.
    #[error("argument {flag}: invalid value: '{value}'")]
    Invalid {
        /// The flag.
        flag: String,
        /// The value.
        value: String,
    },
    /// A model paths file that cannot be used.
    #[error(transparent)]
    ModelPaths(#[from] ModelPathsError),
}

/// ComfyUI's flags that change nothing here and take no value.
const SWITCHES: [&str; 57] = [
    "--auto-launch",
    "--disable-auto-launch",
    "--cuda-malloc",
    "--disable-cuda-malloc",
    "--force-fp32",
    "--force-fp16",
    "--fp32-unet",
    "--fp64-unet",
    "--bf16-unet",
    "--fp16-unet",
    "--fp8_e4m3fn-unet",
    "--fp8_e5m2-unet",
    "--fp8_e8m0fnu-unet",
    "--fp16-vae",
    "--fp32-vae",
    "--bf16-vae",
    "--cpu-vae",
    "--fp8_e4m3fn-text-enc",
    "--fp8_e5m2-text-enc",
    "--fp16-text-enc",
    "--fp32-text-enc",
    "--bf16-text-enc",
    "--force-channels-last",
    "--disable-ipex-optimize",
    "--supports-fp8-compute",
    "--cache-classic",
    "--use-split-cross-attention",
    "--use-quad-cross-attention",
    "--use-pytorch-cross-attention",
    "--use-sage-attention",
    "--use-flash-attention",
    "--disable-xformers",
    "--force-upcast-attention",
    "--dont-upcast-attention",
    "--gpu-only",
    "--highvram",
    "--normalvram",
    "--lowvram",
    "--novram",
    "--cpu",
    "--async-offload",
    "--force-non-blocking",
    "--disable-smart-memory",
    "--deterministic",
    "--mmap-torch-files",
    "--disable-mmap",
    "--dont-print-server",
    "--quick-test-for-ci",
    "--windows-standalone-build",
    "--disable-api-nodes",
    "--multi-user",
    "--log-stdout",
    "--enable-compress-response-body",
    "--disable-metadata",
    "--disable-all-custom-nodes",
    "--cache-none",
    "--help",
];

/// ComfyUI's flags that take one value.
const VALUES: [&str; 29] = [
    "--port",
    "--tls-keyfile",
    "--tls-certfile",
    "--max-upload-size",
    "--base-directory",
    "--output-directory",
    "--temp-directory",
    "--input-directory",
    "--cuda-device",
    "--default-device",
    "--oneapi-device-selector",
    "--preview-method",
    "--preview-size",
    "--cache-lru",
    "--reserve-vram",
    "--default-hashing-function",
    "--front-end-version",
    "--front-end-root",
    "--user-directory",
    "--comfy-api-base",
    "--database-url",
    // The stand-in's own.
    "--stand-in-step-ms",
    "--stand-in-load-ms",
    "--stand-in-startup-ms",
    "--stand-in-shutdown-ms",
    "--stand-in-models",
    "--stand-in-model",
    "--stand-in-hash-seed",
    "--stand-in-history-ms",
];

/// ComfyUI's flags that may stand alone or with one value.
const OPTIONAL: [&str; 4] = ["--listen", "--enable-cors-header", "--directml", "--verbose"];

/// ComfyUI's flags that take any number of values.
const MANY: [&str; 3] = ["--fast", "--whitelist-custom-nodes", "--extra-model-paths-config"];

/// How it is used, for `--help`.
pub const HELP: &str = "\
comfyui-stand-in [FLAGS OF COMFYUI] [OWN FLAGS]

Behaves as ComfyUI's main.py on the wire, without models. Flags of ComfyUI that mean nothing here are accepted.

Own flags:
  --stand-in-step-ms N      time of a sampling step (2)
  --stand-in-load-ms N      time a model loader takes the first time (0)
  --stand-in-startup-ms N   time until it listens (0)
  --stand-in-shutdown-ms N  time from SIGINT to the end (2000)
  --stand-in-history-ms N   time from a prompt's success to its history entry (0)
  --stand-in-models DIR     a folder of model folders, as ComfyUI's models/
  --stand-in-model T/NAME   a model file that is claimed to be there, e.g. checkpoints/x.safetensors
  --stand-in-hash-seed N    fixes the order of output nodes; PYTHONHASHSEED does so, too
";

/// Reads a command line without the program's name. `seed` is the value of `PYTHONHASHSEED`.
///
/// # Errors
/// When ComfyUI would refuse it, or a file that it names cannot be used.
pub fn parse(arguments: &[String], seed: Option<&str>) -> Result<Command, ArgsError> {
    let mut options = Options {
        port: 8188,
        models: Models::default(),
        shutdown: Duration::from_secs(2),
        hash_seed: seed.and_then(|seed| seed.parse().ok()),
        argv: std::iter::once("main.py".to_owned()).chain(arguments.iter().cloned()).collect(),
        ..Options::default()
    };
    let mut base = PathBuf::from(".");
    let mut unknown = Vec::new();
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        let (flag, joined) = match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
            _ => (argument.as_str(), None),
        };
        let is_value = |next: &&String| !next.starts_with("--");
        let mut value = joined.clone();
        let mut more = Vec::new();
        if SWITCHES.contains(&flag) && joined.is_none() {
        } else if VALUES.contains(&flag) {
            if value.is_none() {
                value = rest.next_if(is_value).cloned();
            }
            if value.is_none() {
                return Err(ArgsError::Missing(flag.to_owned()));
            }
        } else if OPTIONAL.contains(&flag) {
            if value.is_none() {
                value = rest.next_if(is_value).cloned();
            }
        } else if MANY.contains(&flag) {
            more.extend(joined.clone());
            while let Some(next) = rest.next_if(is_value) {
                more.push(next.clone());
            }
        } else {
            unknown.push(argument.clone());
            continue;
        }
        let text = value.unwrap_or_default();
        let invalid = || ArgsError::Invalid { flag: flag.to_owned(), value: text.clone() };
        let millis = || text.parse().map(Duration::from_millis).map_err(|_| invalid());
        match flag {
            "--help" => return Ok(Command::Help),
            "--listen" => {
                let all = if text.is_empty() { "0.0.0.0,::" } else { &text };
                options.listen = all.split(',').map(str::to_owned).collect();
            }
            "--port" => options.port = text.parse().map_err(|_| invalid())?,
            "--max-upload-size" => {
                let megabytes: f64 = text.parse().map_err(|_| invalid())?;
                options.max_upload = (megabytes * 1_048_576.0).round() as usize;
            }
            "--base-directory" => base = text.clone().into(),
            "--output-directory" => options.output = Some(text.clone().into()),
            // ComfyUI makes a folder `temp` in the one that is given.
            "--temp-directory" => options.temp = Some(PathBuf::from(&text).join("temp")),
            "--input-directory" => options.input = Some(text.clone().into()),
            "--user-directory" if !std::path::Path::new(&text).is_dir() => return Err(invalid()),
            "--cache-lru" => {
                let most: usize = text.parse().map_err(|_| invalid())?;
                if most > 0 {
                    options.cache = CacheMode::Lru(most);
                }
            }
            "--cache-none" if options.cache == CacheMode::Classic => options.cache = CacheMode::None,
            "--preview-method" if !["none", "auto", "latent2rgb", "taesd"].contains(&text.as_str()) => {
                return Err(invalid());
            }
            "--disable-metadata" => options.metadata = false,
            "--disable-all-custom-nodes" => options.custom_nodes = false,
            "--extra-model-paths-config" => {
                for path in more {
                    options.models = options.models.extra_paths(path.as_ref())?;
                }
            }
            "--stand-in-step-ms" => options.step = millis()?,
            "--stand-in-load-ms" => options.load = millis()?,
            "--stand-in-startup-ms" => options.startup = millis()?,
            "--stand-in-shutdown-ms" => options.shutdown = millis()?,
            "--stand-in-history-ms" => options.history = millis()?,
            "--stand-in-models" => options.models = options.models.directory(text.as_ref()),
            "--stand-in-model" => {
                let (folder, name) = text.split_once('/').ok_or_else(invalid)?;
                options.models = options.models.claim(folder, name);
            }
            "--stand-in-hash-seed" => options.hash_seed = Some(text.parse().map_err(|_| invalid())?),
            _ => {}
        }
    }
    if !unknown.is_empty() {
        return Err(ArgsError::Unknown(unknown.join(" ")));
    }
    options.models = options.models.directory(&base.join("models"));
    options.output.get_or_insert(base.join("output"));
    options.temp.get_or_insert(base.join("temp"));
    options.input.get_or_insert(base.join("input"));
    Ok(Command::Serve(Box::new(options)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse(&arguments, None).unwrap() {
            Command::Serve(options) => *options,
            Command::Help => panic!("help"),
        }
    }

    fn refused(line: &str) -> String {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&arguments, None).unwrap_err().to_string()
    }

    #[test]
    fn a_line_as_it_is_used_for_serving() {
        let options = options(
            "--listen 127.0.0.1 --port 8189 --output-directory /o --temp-directory /t --disable-metadata --highvram \
             --cache-lru 10 --preview-method none --max-upload-size=30 --fast fp16_accumulation cublas_ops \
             --database-url sqlite:///:memory: --disable-auto-launch --cpu",
        );
        assert_eq!((options.listen, options.port), (vec!["127.0.0.1".to_owned()], 8189));
        assert_eq!(options.output, Some("/o".into()));
        assert_eq!(options.temp, Some("/t/temp".into()));
        assert_eq!((options.metadata, options.cache, options.max_upload), (false, CacheMode::Lru(10), 30 << 20));
    }

    #[test]
    fn listen_alone_is_everywhere() {
        assert_eq!(options("--listen --port 1").listen, ["0.0.0.0", "::"]);
        assert_eq!(options("").listen, ["127.0.0.1"]);
        assert_eq!(options("--cache-none").cache, CacheMode::None);
    }

    #[test]
    fn what_comfyui_refuses_is_refused() {
        assert_eq!(refused("--nonsense --port 1 x"), "unrecognized arguments: --nonsense x");
        assert_eq!(refused("--port"), "argument --port: expected one argument");
        assert_eq!(refused("--port x"), "argument --port: invalid value: 'x'");
        assert_eq!(refused("--user-directory /no/such"), "argument --user-directory: invalid value: '/no/such'");
        assert!(refused("--extra-model-paths-config /no/such.yaml").contains("/no/such.yaml"));
    }
}
