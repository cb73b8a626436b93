//! `gui`: ComfyUI with its editor on this machine, from the same Dockerfile, with the app's models. No AWS.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::{Done, sandbox};
use crate::apply::Cancel;
use crate::cli;
use crate::config::Image;
use crate::container::{DATA_DIRS, Engine, Gui, Runner, shell_line};
use crate::error::{Error, Result};
use crate::local::image;
use crate::progress::{Event, Reporter, Task};
use crate::settings::Settings;
use crate::ui::Ui;

/// Where workflows, settings and pictures are kept, beside the config file, unless `--data` says otherwise.
const DATA: &str = "gui-data";
/// Between two looks whether ComfyUI answers.
const LOOK: Duration = Duration::from_millis(500);

/// Runs it.
///
/// # Errors
/// No models directory or build context, no tool that runs containers, a port that is taken, a failed build or container.
pub async fn run(
    settings: &Settings,
    args: &cli::Gui,
    ui: &Ui,
    runner: &dyn Runner,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Done> {
    let models = models(settings, args)?;
    let data = absolute(&args.data.clone().unwrap_or_else(|| settings.root.join(DATA)))?;
    let config = &settings.config;
    let image = Image { target: Some("gui".into()), ..config.image.clone() };
    let (root, comfyui) = (settings.root.clone(), config.comfyui.clone());
    let context = tokio::task::spawn_blocking(move || image::context(&root, &image, &comfyui))
        .await
        .map_err(|e| Error::failed("reading the build context failed").why(e.to_string()))??;
    let engine = Engine::detect(config.image.builder, runner).await?;
    if let (Err(why), false) = (&engine.gpu, args.cpu) {
        ui.warn(&format!("ComfyUI will run on the CPU, where a picture takes minutes: {why}"));
    }
    let gui = Gui {
        name: format!("comfy-gui-{}", settings.stack()),
        image: format!("localhost/comfy-deploy/{}:gui", settings.repository()),
        port: args.port,
        models,
        data,
        user: (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
        cpu: args.cpu,
    };
    let (build, run) = (engine.build(&context, &gui.image), engine.run(&gui)?);
    if args.dry_run {
        let lines = [shell_line(&build), shell_line(&run)];
        return Ok(Done::new(format!("{}\n", lines.join("\n")), json!({"build": lines[0], "run": lines[1]})));
    }
    // Before minutes of building, not after them.
    free(gui.port)?;
    reporter.report(Event::Begin {
        task: Task::Image,
        label: format!("building the image with {}", engine.tool.kind.name()),
        total: None,
    });
    engine.build_image(&context, &gui.image, runner, reporter, &cancel.receiver()).await?;
    reporter.report(Event::End { task: Task::Image, summary: format!("{} built", gui.image) });
    // What comes now is ComfyUI's own output; nothing may be drawn over it.
    reporter.finish();
    for name in DATA_DIRS {
        let dir = gui.data.join(name);
        std::fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, &e))?;
    }
    let url = format!("http://127.0.0.1:{}", gui.port);
    let announce = async {
        while !sandbox::answers(&format!("127.0.0.1:{}", gui.port), "/").await {
            tokio::time::sleep(LOOK).await;
        }
        ui.talk(&format!("ComfyUI is ready: open {url} in a browser. Ctrl-C stops it."));
        std::future::pending::<()>().await;
    };
    let mut line = |text: &str| ui.talk(text);
    let stopping = cancel.receiver();
    tokio::select! {
        ended = engine.serve(&gui, runner, &mut line, &stopping) => ended?,
        () = announce => {}
    }
    let shown = gui.data.display();
    let data = json!({"url": url, "image": gui.image, "data": gui.data});
    Ok(Done::new(format!("ComfyUI has ended. Workflows, settings and pictures are in {shown}\n"), data))
}

fn models(settings: &Settings, args: &cli::Gui) -> Result<PathBuf> {
    let dir = match &args.models {
        Some(dir) => absolute(dir)?,
        None => absolute(&settings.root.join(&settings.config.models.dir))?,
    };
    if dir.is_dir() {
        return Ok(dir);
    }
    let error = Error::usage(format!("there is no models directory {}", dir.display()));
    Err(match &settings.config.models.uri {
        Some(uri) => error
            .why(format!("models.uri names {uri}, which is in S3"))
            .next("unpack it, and name the directory: comfy-deploy gui --models DIR"),
        None => {
            error.next("make it and put models in it, for example checkpoints/model.safetensors, or use --models DIR")
        }
    })
}

/// The tools take absolute paths only.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("find", path, &e))
}

fn free(port: u16) -> Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(|cause| {
        Error::failed(format!("port {port} of this machine cannot be used")).why(cause.to_string()).next(format!(
            "stop what uses it, or use another one: comfy-deploy gui --port {}",
            port.wrapping_add(1).max(1024)
        ))
    })
}
