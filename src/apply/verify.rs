//! After a deployment: is the live endpoint really the planned one? And only then: clearing away what it replaced.

use super::{Run, pace};
use crate::cloud::{Endpoint, Map};
use crate::error::{Error, Kind, Result};
use crate::progress::Event;

/// Days that the endpoint's log is kept.
pub const LOG_DAYS: i32 = 30;

/// Waits until the endpoint is InService and compares what is live with what was planned. SageMaker can roll back
/// silently and still say InService.
///
/// # Errors
/// [`Kind::SilentRollback`] when something else is live; [`Kind::RolledBack`] when it is not InService at all.
pub async fn endpoint(run: &Run<'_>, name: &str, config: &str, image: &str) -> Result<Endpoint> {
    run.say(Event::Phase(format!("verifying the endpoint {name}")));
    let mut pace = run.pace();
    let live = loop {
        match run.cloud.endpoints.endpoint(name).await {
            Ok(Some(e)) if matches!(e.status.as_str(), "Creating" | "Updating" | "SystemUpdating" | "RollingBack") => {}
            Ok(Some(e)) => break e,
            Ok(None) => {
                return Err(Error::failed(format!("the endpoint {name} is gone although its stack is complete"))
                    .why("somebody deleted it outside CloudFormation, whose updates cannot make it again")
                    .next("comfy-deploy destroy, then comfy-deploy up"));
            }
            Err(e) if pace::passing(&e) => {}
            Err(e) => return Err(e),
        }
        if pace.over() {
            return Err(Error::failed(format!("the endpoint {name} does not come to rest")).next("comfy-deploy status"));
        }
        pace.pause(&run.cancel).await?;
    };
    if live.status != "InService" {
        let mut error = Error::new(Kind::RolledBack, format!("the endpoint {name} is {}", live.status));
        if let Some(why) = &live.failure {
            error = error.why(why.clone());
        }
        return Err(error.next("a failed endpoint can only be deleted: comfy-deploy destroy, then comfy-deploy up"));
    }
    compare(&live, config, image)?;
    Ok(live)
}

/// Whether the live endpoint is the planned one.
///
/// # Errors
/// [`Kind::SilentRollback`].
pub fn compare(live: &Endpoint, config: &str, image: &str) -> Result<()> {
    let silent = |why: String| {
        Error::new(Kind::SilentRollback, format!("SageMaker rolled the endpoint {} back without an error", live.name))
            .why(why)
            .why(live.failure.clone().unwrap_or_else(|| "it gives no reason".into()))
            .next("look at the container's log (aws logs tail /aws/sagemaker/Endpoints/...), mend the cause, then: comfy-deploy up")
    };
    if live.config != config {
        return Err(silent(format!("it serves {}, planned was {config}", live.config)));
    }
    let Some((_, digest)) = image.rsplit_once('@') else { return Ok(()) };
    for variant in &live.variants {
        for (specified, resolved) in &variant.images {
            if !specified.contains(digest) && !resolved.contains(digest) {
                return Err(silent(format!("variant {} runs {resolved}, planned was {digest}", variant.name)));
            }
        }
    }
    Ok(())
}

/// Sets the retention of the log group that SageMaker made. A missing group or permission is no reason to fail.
pub async fn keep_logs(run: &Run<'_>, endpoint: &str) {
    let group = format!("/aws/sagemaker/Endpoints/{endpoint}");
    if let Err(e) = run.cloud.logs.set_retention(&group, LOG_DAYS).await {
        run.say(Event::Warning(format!("the retention of {group} is not set: {e}")));
    }
}

/// Deletes this stack's models and endpoint configs except the live ones. They are retained on replacement, so that
/// CloudFormation cannot delete what SageMaker went back to; records need only the artifacts.
///
/// Returns the names deleted. What cannot be deleted is reported and left for the next run.
pub async fn clear(run: &Run<'_>, stack: &str, tags: &Map, live: &[&str]) -> Vec<String> {
    let mut gone = Vec::new();
    let endpoints = &run.cloud.endpoints;
    let configs = endpoints.tagged_configs(stack, tags).await;
    let models = endpoints.tagged_models(stack, tags).await;
    for (list, is_config) in [(configs, true), (models, false)] {
        let names = match list {
            Ok(names) => names,
            Err(e) => {
                run.say(Event::Warning(format!("superseded models and endpoint configs are not cleared away: {e}")));
                return gone;
            }
        };
        for name in names.into_iter().filter(|n| !live.contains(&n.as_str())) {
            let deleted =
                if is_config { endpoints.delete_config(&name).await } else { endpoints.delete_model(&name).await };
            match deleted {
                Ok(()) => gone.push(name),
                Err(e) => run.say(Event::Warning(format!("{name} is not cleared away: {e}"))),
            }
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Variant;

    fn live(config: &str, image: &str) -> Endpoint {
        let images = vec![(image.to_owned(), image.to_owned())];
        Endpoint {
            name: "app".into(),
            arn: "arn".into(),
            status: "InService".into(),
            config: config.into(),
            failure: None,
            variants: vec![Variant { name: "AllTraffic".into(), images, ..Variant::default() }],
            stage: None,
        }
    }

    #[test]
    fn another_config_or_another_image_is_a_silent_rollback() {
        assert!(compare(&live("app-v2", "r@sha256:b"), "app-v2", "r@sha256:b").is_ok());
        assert!(compare(&live("app-v2", "host/r:tag"), "app-v2", "r:tag").is_ok());
        for bad in [live("app-v1", "r@sha256:b"), live("app-v2", "r@sha256:a")] {
            assert_eq!(compare(&bad, "app-v2", "r@sha256:b").expect_err("differs").kind(), Kind::SilentRollback);
        }
    }
}
