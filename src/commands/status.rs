//! `status`: the live truth, as AWS says it now.

use std::fmt::Write;

use serde_json::json;

use super::look::{self, Wanted};
use super::{Context, Done};
use crate::cloud::observe;
use crate::error::Result;
use crate::stack;

/// Runs it.
///
/// # Errors
/// Whatever AWS says.
pub async fn run(context: &Context<'_>) -> Result<Done> {
    let read = async {
        let look::Look { mut world, .. } = look::look(context, Wanted::nothing()).await?;
        observe::details(&context.cloud, &mut world).await?;
        Ok(world)
    };
    let world = tokio::select! {
        world = read => world?,
        () = context.cancel.wait() => return Err(crate::apply::pace::interrupted()),
    };
    let settings = &context.settings;
    let name = settings.stack();
    let service = world.service.as_ref().map(|s| &s.stack);
    let mut text = String::new();
    let _ = writeln!(text, "{name} in account {}, {}\n", world.account, settings.region);
    for (label, stack_name, stack) in [
        ("foundation", settings.foundation(), world.foundation.as_ref().map(|f| &f.stack)),
        ("service", name.clone(), service),
    ] {
        let status = stack.map_or("not deployed", |s| s.status.as_str());
        let _ = writeln!(text, "  {label:<11} {stack_name}: {status}");
        if let Some(reason) = stack
            .and_then(|s| s.reason.as_deref())
            .filter(|_| !status.ends_with("_COMPLETE") || status.contains("ROLLBACK"))
        {
            let _ = writeln!(text, "  {:<11} {reason}", "");
        }
    }
    if let Some(e) = &world.endpoint {
        let _ = writeln!(
            text,
            "  {:<11} {}{}",
            "endpoint",
            e.status,
            e.stage.as_ref().map_or(String::new(), |s| format!(" ({s})"))
        );
        let _ = writeln!(text, "  {:<11} {}", "config", e.config);
        if let Some(failure) = &e.failure {
            let _ = writeln!(text, "  {:<11} {failure}", "reason");
        }
        for v in &e.variants {
            let instance_type = world.config.as_ref().and_then(|c| c.instance_type.clone()).unwrap_or_default();
            let count = |n: Option<i32>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let _ =
                writeln!(text, "  {:<11} {} of {} on {instance_type}", "instances", count(v.current), count(v.desired));
            for (_, resolved) in &v.images {
                let _ = writeln!(
                    text,
                    "  {:<11} {}",
                    "image",
                    super::show::short(resolved.split_once('/').map_or(resolved.as_str(), |(_, r)| r))
                );
            }
        }
    }
    match &world.scaling {
        Some(t) => {
            let _ = writeln!(
                text,
                "  {:<11} {} to {} instances, {}",
                "autoscaling",
                t.min,
                t.max,
                if t.policies.is_empty() { "no policy".into() } else { t.policies.join(", ") }
            );
            for s in &t.schedules {
                let bound = |b: Option<i32>| b.map_or_else(|| "-".to_owned(), |b| b.to_string());
                let _ = writeln!(
                    text,
                    "  {:<11} {} {} {}: min {}, max {}",
                    "schedule",
                    s.name,
                    s.when,
                    s.timezone.as_deref().unwrap_or("UTC"),
                    bound(s.min),
                    bound(s.max)
                );
            }
        }
        None if world.endpoint.is_some() => {
            let _ = writeln!(text, "  {:<11} off", "autoscaling");
        }
        None => {}
    }
    let parameters = service.map(|s| s.parameters.clone()).unwrap_or_default();
    let outputs = service.map(|s| s.outputs.clone()).unwrap_or_default();
    let url = outputs.get("ComfyUIFunctionUrl");
    let function = parameters.get("AppName").map(|app| format!("{app}-lambda"));
    let auth = parameters.get("LambdaUrlAuthType").cloned();
    let mut policy = None;
    if let Some(url) = url {
        let _ = writeln!(text, "  {:<11} {url}\n  {:<11} {}", "function", "", auth.as_deref().unwrap_or("?"));
        if auth.as_deref() == Some("AWS_IAM") {
            let document = stack::invoker_policy(&format!(
                "arn:{}:lambda:{}:{}:function:{}",
                world.pseudo(&name, &settings.region).partition,
                settings.region,
                world.account,
                function.as_deref().unwrap_or_default()
            ));
            policy = Some(document);
        }
    }
    if world.last_record > 0 {
        let open = world.open_record.map_or("", |_| " (no outcome yet)");
        let _ = writeln!(text, "  {:<11} {}{open}", "deployment", world.last_record);
    }
    if let Some(policy) = &policy {
        let _ =
            writeln!(text, "\nThis identity policy lets a principal of the account call the Function URL:\n{policy:#}");
    }
    if let Some(note) = world.silent_rollback() {
        let _ = writeln!(text, "\nNote: {note}");
    }
    if let Some(note) = world.lost_endpoint() {
        let _ = writeln!(text, "\nNote: {note}. To make it again: comfy-deploy destroy, then comfy-deploy up");
    }
    let data = json!({
        "account": world.account,
        "region": settings.region,
        "stacks": {
            "foundation": {"name": settings.foundation(), "status": world.foundation.as_ref().map(|f| &f.stack.status)},
            "service": {"name": name, "status": service.map(|s| &s.status)},
        },
        "endpoint": world.endpoint.as_ref().map(|e| json!({
            "name": e.name, "arn": e.arn, "status": e.status, "config": e.config, "failure": e.failure, "stage": e.stage,
            "instance_type": world.config.as_ref().and_then(|c| c.instance_type.clone()),
            "variants": e.variants.iter().map(|v| json!({"name": v.name, "current": v.current, "desired": v.desired,
                "images": v.images.iter().map(|(s, r)| json!({"specified": s, "resolved": r})).collect::<Vec<_>>()})).collect::<Vec<_>>(),
        })),
        "autoscaling": world.scaling.as_ref().map(|t| json!({
            "min": t.min, "max": t.max, "policies": t.policies,
            "schedules": t.schedules.iter().map(|s| json!({"name": s.name, "when": s.when, "timezone": s.timezone, "min": s.min, "max": s.max})).collect::<Vec<_>>(),
        })),
        "model": {"version": parameters.get("ModelVersion"), "key": parameters.get("ModelDataS3Key")},
        "image": parameters.get("ModelEcrImage"),
        "function": {"name": function, "url": url, "auth": auth, "policy": policy},
        "silent_rollback": world.silent_rollback(),
        "lost_endpoint": world.lost_endpoint(),
        "records": world.last_record,
    });
    Ok(Done::new(text, data))
}
