//! The first half of every verb: what is on disk beside what is in the account, and the plan from both.

use std::time::{Duration, Instant};

use super::{Context, model};
use crate::cloud::observe;
use crate::error::{Kind, Result};
use crate::fetch::Streams;
use crate::local::sources::{self, Sources};
use crate::plan::{Local, LocalImage, LocalModel, Plan, World};
use crate::progress::Event;
use crate::settings::Settings;

/// Which local things a verb is about.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The model artifact.
    pub model: bool,
    /// Image and function.
    pub code: bool,
    /// Whether large declared model files stay where they are.
    pub stream: bool,
}

impl Wanted {
    /// For `up`.
    pub fn everything() -> Self {
        Wanted { model: true, code: true, stream: false }
    }

    /// For `update-model`.
    pub fn model() -> Self {
        Wanted { model: true, code: false, stream: false }
    }

    /// The same, with large declared model files left where they are.
    pub fn streaming(self, stream: bool) -> Self {
        Wanted { stream, ..self }
    }

    /// For `scale` and `status`.
    pub fn nothing() -> Self {
        Wanted { model: false, code: false, stream: false }
    }
}

/// Everything a plan is made from.
pub struct Look {
    /// What is on disk.
    pub local: Local,
    /// What is in the account.
    pub world: World,
    /// The files behind `local`.
    pub sources: Sources,
}

/// Reads both sides at the same time.
///
/// # Errors
/// Of either side.
pub async fn look(context: &Context<'_>, wanted: Wanted) -> Result<Look> {
    let settings = context.settings.clone();
    let reporter = context.reporter.clone();
    let streams = match wanted.stream {
        true => Some(model::streams(context.cloud.objects.clone())?),
        false => None,
    };
    let scan = tokio::task::spawn_blocking(move || scan(&settings, wanted, streams.as_ref(), reporter.as_ref()));
    let account = observe::account(&context.settings, &context.cloud).await?;
    let (local, sources) =
        scan.await.map_err(|e| crate::error::Error::failed(format!("reading local files broke off: {e}")))??;
    let world = observe::content(&context.settings, &context.cloud, account, &local).await?;
    Ok(Look { local, world, sources })
}

/// Looks and plans; waits for another operation first if `--wait-lock` says so.
///
/// # Errors
/// [`Kind::Busy`] when it takes longer than that.
pub async fn planned(
    context: &Context<'_>,
    wanted: Wanted,
    plan: impl Fn(&Settings, &Local, &World) -> Result<Plan>,
) -> Result<(Look, Plan)> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        // Files are hashed on threads that nobody can stop; the process ends without them.
        let look = tokio::select! {
            look = look(context, wanted) => look?,
            () = context.cancel.wait() => return Err(crate::apply::pace::interrupted().why("nothing was changed")),
        };
        match plan(&context.settings, &look.local, &look.world) {
            Err(e) if e.kind() == Kind::Busy && context.settings.wait_lock.is_some_and(|w| begun.elapsed() < w) => {
                if !told {
                    context.reporter.report(Event::Phase(format!("waiting: {e}")));
                    told = true;
                }
                pause(context).await?;
            }
            Err(e) => return Err(e),
            Ok(plan) => return Ok((look, plan)),
        }
    }
}

/// Between two looks at an operation that is waited for.
///
/// # Errors
/// [`Kind::Interrupted`].
pub async fn pause(context: &Context<'_>) -> Result<()> {
    let pause = if context.settings.sandbox.is_some() { 300 } else { 10_000 };
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(pause)) => Ok(()),
        () = context.cancel.wait() => Err(crate::apply::pace::interrupted().why("nothing was changed")),
    }
}

/// The local side.
fn scan(
    settings: &Settings,
    wanted: Wanted,
    streams: Option<&Streams>,
    reporter: &dyn crate::progress::Reporter,
) -> Result<(Local, Sources)> {
    let mut sources = Sources::default();
    let model = match wanted.model {
        true => sources::model(settings, streams, reporter, &mut sources)?,
        false => LocalModel::Keep,
    };
    let (image, function) = if wanted.code {
        (sources::image(settings, reporter, &mut sources)?, sources::function(settings, reporter, &mut sources)?)
    } else {
        (LocalImage::Keep, None)
    };
    Ok((Local { model, image, function }, sources))
}
