//! `update-model`: a new model version, blue-green, and nothing else.

use super::look::{self, Wanted};
use super::{Context, Done, model, up};
use crate::cli;
use crate::error::Result;
use crate::plan;

/// Runs it.
///
/// # Errors
/// As `up`.
pub async fn run(context: &Context<'_>, _args: &cli::UpdateModel) -> Result<Done> {
    let stream = model::bring(context, model::Instance::Deployed).await?;
    let (look, plan) = look::planned(context, Wanted::model().streaming(stream), |settings, local, world| {
        plan::update_model(settings, &local.model, world)
    })
    .await?;
    up::carry_out(context, "update-model", look, &plan).await
}
