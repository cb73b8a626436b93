//! `destroy`: the service stack and everything that was made beside it. Says what it keeps, and why.

use serde_json::json;

use super::{Context, Done};
use crate::apply::follow::{Watch, follow};
use crate::apply::{self, failure, pace, verify};
use crate::cli;
use crate::cloud::{Map, observe};
use crate::error::{Error, Kind, Result};
use crate::plan::{self, STACK_TAG};
use crate::progress::Event;
use crate::stack;

/// Runs it.
///
/// # Errors
/// [`Kind::Refused`] when the name is not confirmed or the stack is protected; [`Kind::Busy`].
pub async fn run(context: &Context<'_>, args: &cli::Destroy) -> Result<Done> {
    let settings = &context.settings;
    let name = settings.stack();
    let caller = context.cloud.identity.caller().await?;
    observe::check_account(settings, &caller.account)?;
    let service = context.cloud.stacks.stack(&name).await?;
    let tags = Map::from([(STACK_TAG.to_owned(), name.clone())]);

    if service.as_ref().is_some_and(|s| s.protected) || settings.config.protect {
        return Err(Error::new(Kind::Refused, format!("{name} is protected; nothing was changed"))
            .next("set protect: false in comfy-deploy.yaml, run comfy-deploy up, then destroy again"));
    }
    let attached = service.as_ref().is_some_and(|s| s.status == "DELETE_IN_PROGRESS");
    if let Some(s) = service.as_ref().filter(|s| s.busy() && !attached) {
        return Err(plan::busy(&name, &s.status));
    }
    confirm(context, args, &name, &caller.account)?;

    let run = context.run();
    let mut removed = Vec::new();
    if let Some(service) = &service {
        run.say(Event::Phase(format!("deleting the stack {name}")));
        let token = apply::token();
        if !attached {
            context.cloud.stacks.delete(&name, &token, run.role_arn.as_deref()).await?;
        }
        let watch = Watch { endpoint: name.clone(), container: false };
        let ended = follow(&run, &service.id, None, (!attached).then_some(token.as_str()), Some(watch)).await?;
        if ended.status != "DELETE_COMPLETE" {
            return Err(failure::deletion(&run, &name, &ended));
        }
        removed.push(format!("stack {name}"));
    }
    endpoint_gone(&run, &name).await?;
    run.say(Event::Phase("deleting superseded models and endpoint configs".into()));
    removed.extend(verify::clear(&run, &name, &tags, &[]).await);

    let mut kept = Vec::new();
    let group = format!("/aws/sagemaker/Endpoints/{name}");
    if args.logs {
        context.cloud.logs.delete_group(&group).await?;
        removed.push(format!("log group {group}"));
    } else if context.cloud.logs.tail(&group, 1).await.ok().flatten().is_some() {
        kept.push(format!("log group {group}: its lines are the history of the endpoint (--logs deletes it)"));
    }
    foundation(context, &run, args, &caller.account, &mut removed, &mut kept).await?;

    let mut text = String::new();
    if removed.is_empty() {
        text.push_str(&format!("Nothing to do: there is no stack {name} in {} {}.\n", caller.account, settings.region));
    }
    for line in &removed {
        text.push_str(&format!("deleted  {line}\n"));
    }
    for line in &kept {
        text.push_str(&format!("kept     {line}\n"));
    }
    Ok(Done::new(
        text,
        json!({"account": caller.account, "region": settings.region, "stack": name, "changed": !removed.is_empty(), "removed": removed, "kept": kept}),
    ))
}

fn confirm(context: &Context<'_>, args: &cli::Destroy, name: &str, account: &str) -> Result<()> {
    if args.confirm.is_none() {
        let region = &context.settings.region;
        context.ui.talk(&format!(
            "This deletes the endpoint and the function of {name} in account {account}, region {region}."
        ));
    }
    context.ui.confirm_name(name, args.confirm.as_deref(), "--confirm", &|| context.cancel.is_set())
}

/// CloudFormation's word is not enough: an endpoint costs money as long as it is there.
async fn endpoint_gone(run: &apply::Run<'_>, name: &str) -> Result<()> {
    let mut pace = run.pace();
    loop {
        match run.cloud.endpoints.endpoint(name).await {
            Ok(None) => return Ok(()),
            Ok(Some(e)) if e.status != "Deleting" => {
                return Err(Error::failed(format!(
                    "the endpoint {name} is still there ({}) although no stack holds it",
                    e.status
                ))
                .next(format!("look at it, then: aws sagemaker delete-endpoint --endpoint-name {name}")));
            }
            Ok(Some(_)) => {}
            Err(e) if pace::passing(&e) => {}
            Err(e) => return Err(e),
        }
        if pace.over() {
            return Err(Error::failed(format!("the endpoint {name} is not gone yet")).next(run.resume.clone()));
        }
        pace.pause(&run.cancel).await?;
    }
}

/// The foundation holds what took longest to make, and other environments may share it: kept unless asked, and even
/// then the bucket and the repository themselves are retained.
async fn foundation(
    context: &Context<'_>,
    run: &apply::Run<'_>,
    args: &cli::Destroy,
    account: &str,
    removed: &mut Vec<String>,
    kept: &mut Vec<String>,
) -> Result<()> {
    let settings = &context.settings;
    let name = settings.foundation();
    let Some(found) = context.cloud.stacks.stack(&name).await? else { return Ok(()) };
    if args.foundation {
        run.say(Event::Phase(format!("deleting the stack {name}")));
        let token = apply::token();
        context.cloud.stacks.delete(&name, &token, run.role_arn.as_deref()).await?;
        let ended = follow(run, &found.id, None, Some(&token), None).await?;
        if ended.status != "DELETE_COMPLETE" {
            return Err(failure::deletion(run, &name, &ended));
        }
        removed.push(format!("stack {name}"));
    } else {
        kept.push(format!("stack {name}: other environments of the app may share it (--foundation deletes it)"));
    }
    let bucket = stack::bucket_name(settings, account);
    kept.push(format!("bucket {bucket}: model artifacts and deployment records; a new `up` uses them again (to delete: empty it, then aws s3 rb s3://{bucket})"));
    let repository = settings.repository();
    kept.push(format!("repository {repository}: inference images; a new `up` uses them again (to delete: aws ecr delete-repository --force --repository-name {repository})"));
    Ok(())
}
