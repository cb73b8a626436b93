//! The image built and the container run, until it ends or is stopped.

use std::time::Duration;

use tokio::sync::watch;

use super::{Engine, Gui};
use crate::container::output::{LAST_LINES, Tail};
use crate::container::runner::{Cancel, Exit, Invocation, Runner, Stream};
use crate::error::{Error, Kind, Result};
use crate::local::image::ImageContext;
use crate::progress::{Event, Reporter, Task};

/// Between two requests to stop: the first one may come before the container is there.
const STOP_EVERY: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(1) };
/// Requests to stop before giving up; each waits for the container itself, some ten seconds.
const STOP_TRIES: u32 = 5;

impl Engine {
    /// Builds the image and reports the tool's lines.
    ///
    /// # Errors
    /// The tool failed, with its last lines; cancelled.
    pub async fn build_image(
        &self,
        context: &ImageContext,
        image: &str,
        runner: &dyn Runner,
        reporter: &dyn Reporter,
        cancel: &Cancel,
    ) -> Result<()> {
        let build = self.build(context, image);
        let mut tail = Tail::default();
        let exit = runner
            .run(&build, cancel, &mut |_, line| {
                let line = tail.take(line);
                reporter.report(Event::Line { task: Task::Image, line });
            })
            .await
            .map_err(|cause| cannot_start(&build, &cause))?;
        match exit {
            Exit::Code(0) => Ok(()),
            Exit::Cancelled => Err(Error::new(Kind::Interrupted, "interrupted while the image was built")
                .next("run the same command again; finished steps are in the tool's cache")),
            exit => Err(ended("the build of the image", &build, exit, &tail).next(format!(
                "mend {} (it needs a target `gui`) or its context, and run the same command again",
                context.dockerfile.display()
            ))),
        }
    }

    /// Runs ComfyUI and hands on its lines, until it ends or `cancel` turns true; then it is asked to end, as ComfyUI
    /// wants it, so that nothing half-written is left.
    ///
    /// # Errors
    /// The container cannot be run, ended by itself with an error, or does not stop.
    pub async fn serve(
        &self,
        gui: &Gui,
        runner: &dyn Runner,
        line: &mut (dyn FnMut(&str) + Send),
        cancel: &Cancel,
    ) -> Result<()> {
        let run = self.run(gui)?;
        let stop = self.stop(gui);
        // Not `cancel`: it would end the tool's command line, and leave the container to the engine.
        let (_keep, never) = watch::channel(false);
        let mut cancel = cancel.clone();
        let cancelled = async {
            if cancel.wait_for(|set| *set).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let mut tail = Tail::default();
        let exit = {
            let mut take = |_: Stream, text: &str| line(&tail.take(text));
            let mut running = runner.run(&run, &never, &mut take);
            tokio::select! {
                exit = &mut running => exit.map_err(|cause| cannot_start(&run, &cause))?,
                () = cancelled => {
                    for _ in 0..STOP_TRIES {
                        let ask = async {
                            // What it says about a container that is not there, or gone, is of no use.
                            let _ = runner.run(&stop, &never, &mut |_, _| {}).await;
                            tokio::time::sleep(STOP_EVERY).await;
                        };
                        tokio::select! {
                            exit = &mut running => {
                                exit.map_err(|cause| cannot_start(&run, &cause))?;
                                return Ok(());
                            }
                            () = ask => {}
                        }
                    }
                    let program = self.tool.kind.program();
                    return Err(Error::failed(format!("the container {} does not stop", gui.name))
                        .next(format!("{program} rm --force {}", gui.name)));
                }
            }
        };
        if exit.ok() {
            return Ok(());
        }
        let error = ended("ComfyUI", &run, exit, &tail);
        Err(match (&self.gpu, gui.cpu) {
            (Ok(_), false) => error.next("if it is about the GPU: comfy-deploy gui --cpu"),
            _ => error.next(format!("if the container is there already: {} rm --force {}", run.program, gui.name)),
        })
    }
}

fn cannot_start(invocation: &Invocation, cause: &std::io::Error) -> Error {
    Error::failed(format!("cannot start {}", invocation.program)).why(cause.to_string())
}

fn ended(what: &str, invocation: &Invocation, exit: Exit, tail: &Tail) -> Error {
    let how = match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Cancelled | Exit::TimedOut => "no exit code".into(),
    };
    let error = Error::failed(format!("{what} failed: {} ended with {how}", invocation.program));
    let text = tail.text();
    if text.is_empty() { error } else { error.why(format!("its last {LAST_LINES} lines were\n{text}")) }
}
