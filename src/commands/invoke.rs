//! `invoke`: a sentence in, a picture in a file out.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use comfy_handler::Workflows;
use serde_json::{Map, Value, json};

use super::{Context, Done, show};
use crate::cli::{Format, Invoke};
use crate::cloud::{Answer, Stack, UrlCall, observe};
use crate::error::{Error, Kind, Result};
use crate::invoke::file::Place;
use crate::invoke::reply::{self, ATTEMPTS, Picture, Trouble, Whom};
use crate::invoke::{Request, curl, param_as_written};
use crate::local::function::DEFAULT_WORKFLOW;
use crate::local::workflows;
use crate::progress::Event;
use crate::stack;

/// How the app is reached.
enum Way {
    /// Its Function URL, signed or not.
    Url { url: String, sign: bool },
    /// Its endpoint, with the workflow of this machine.
    Endpoint { name: String, workflows: Workflows },
}

/// A picture that was written.
struct Written {
    path: PathBuf,
    picture: Picture,
    took: Duration,
}

/// Runs it.
///
/// # Errors
/// See [`crate::invoke::reply`]; a file that is there already; whatever AWS says.
pub async fn run(context: &Context<'_>, args: &Invoke) -> Result<Done> {
    let name = args.workflow.clone().unwrap_or_else(|| DEFAULT_WORKFLOW.to_owned());
    let local = local_workflow(context, &name, args.direct)?;
    let directory = args.out.as_ref().is_some_and(|out| out.is_dir());
    let place = Place::new(args.out.clone(), directory, &name, args.count);
    let request = Request {
        prompt: args.prompt.clone(),
        negative: args.negative.clone(),
        workflow: args.workflow.clone(),
        seed: args.seed,
        params: params(local.as_ref(), &args.params)?,
        images: args.images.iter().map(|given| image(given)).collect::<Result<_>>()?,
        format: args.format.map(Format::name).or_else(|| place.format()),
    };
    let seeds = request.seeds(args.count)?;
    let files: Vec<PathBuf> =
        (0..).zip(&seeds).filter_map(|(index, seed)| place.known(index, *seed, request.format)).collect();
    if !args.curl {
        files.iter().try_for_each(|file| writable(file, args.force))?;
    }
    let (whom, way) = tokio::select! {
        found = find(context, args.direct, local) => found?,
        () = context.cancel.wait() => return Err(crate::apply::pace::interrupted()),
    };
    if let (true, Way::Url { url, sign }) = (args.curl, &way) {
        return Ok(as_curl(context, &request, &place, url, *sign));
    }
    let mut written: Vec<Written> = Vec::new();
    for (index, seed) in (0..).zip(seeds) {
        let request = Request { seed, ..request.clone() };
        if args.count > 1 {
            context.reporter.report(Event::Phase(format!("picture {} of {}", index + 1, args.count)));
        } else {
            context.reporter.report(Event::Phase(format!("waiting for a picture of {}", context.settings.stack())));
        }
        // Dropping the request closes the connection; nothing was written yet.
        let made = tokio::select! {
            made = picture(context, &way, &whom, &request) => made,
            () = context.cancel.wait() => Err(crate::apply::pace::interrupted()),
        };
        let saved = made.and_then(|(picture, took)| {
            let path = place.file(index, picture.seed.or(seed), &picture.content_type);
            save(&path, &picture.body, args.force)?;
            Ok(Written { path, picture, took })
        });
        match saved {
            Ok(one) => {
                if args.count > 1 {
                    context.reporter.report(Event::Note(line(&one)));
                }
                written.push(one);
            }
            Err(error) if written.is_empty() => return Err(error),
            Err(error) => {
                let paths: Vec<String> = written.iter().map(|one| one.path.display().to_string()).collect();
                return Err(error.why(format!(
                    "{} of {} pictures were written before: {}",
                    written.len(),
                    args.count,
                    paths.join(", ")
                )));
            }
        }
    }
    Ok(done(&name, &way, &written))
}

fn line(one: &Written) -> String {
    let seed = one.picture.seed.map_or_else(String::new, |seed| format!("  seed {seed}"));
    let size = show::size(one.picture.body.len() as u64);
    format!("{}{seed}  {size}  {:.1} s", one.path.display(), one.took.as_secs_f64())
}

fn done(workflow: &str, way: &Way, written: &[Written]) -> Done {
    let mut text: String = written.iter().map(|one| line(one) + "\n").collect();
    if written.len() > 1 {
        let total: Duration = written.iter().map(|one| one.took).sum();
        text += &format!("{} pictures in {:.1} s\n", written.len(), total.as_secs_f64());
    }
    let (url, endpoint) = match way {
        Way::Url { url, .. } => (Some(url), None),
        Way::Endpoint { name, .. } => (None, Some(name)),
    };
    let pictures: Vec<Value> = written
        .iter()
        .map(|one| {
            json!({
                "path": one.path,
                "seed": one.picture.seed,
                "prompt_id": one.picture.prompt_id,
                "content_type": one.picture.content_type,
                "bytes": one.picture.body.len(),
                "duration_ms": one.picture.duration_ms,
                "seconds": one.took.as_secs_f64(),
            })
        })
        .collect();
    Done::new(text, json!({"workflow": workflow, "url": url, "endpoint": endpoint, "pictures": pictures}))
}

fn as_curl(context: &Context<'_>, request: &Request, place: &Place, url: &str, sign: bool) -> Done {
    let body = Value::from(request.body()).to_string();
    let content_type = format!("image/{}", request.format.unwrap_or("jpeg"));
    let file = place.file(0, request.seed, &content_type).display().to_string();
    let region = sign.then_some(context.settings.region.as_str());
    let line = curl::line(url, region, &body, &file);
    Done::new(line.clone(), json!({"curl": line, "url": url, "signed": sign}))
}

/// One picture and how long it took; what the app cannot take now is sent again, some times.
async fn picture(context: &Context<'_>, way: &Way, whom: &Whom, request: &Request) -> Result<(Picture, Duration)> {
    for attempt in 1.. {
        let begun = Instant::now();
        let answer = send(context, way, request).await?;
        match reply::read(answer, whom) {
            Ok(picture) => return Ok((picture, begun.elapsed())),
            Err(Trouble { error, again: Some(wait) }) if attempt < ATTEMPTS => {
                let words = error.aws().map_or_else(|| error.what().to_owned(), |said| said.message.clone());
                context.reporter.report(Event::Note(format!("{words}; again in {} s", wait.as_secs())));
                tokio::time::sleep(wait).await;
            }
            Err(trouble) => return Err(trouble.error),
        }
    }
    Err(Error::failed("the app did not answer"))
}

async fn send(context: &Context<'_>, way: &Way, request: &Request) -> Result<Answer> {
    let body = request.body();
    match way {
        Way::Url { url, sign } => {
            let body = Value::from(body).to_string().into();
            context.cloud.serving.url(&UrlCall { url: url.clone(), sign: *sign, body }).await
        }
        Way::Endpoint { name, workflows } => context.cloud.serving.endpoint(name, workflows.clone(), body).await,
    }
}

/// Where the app is, as the stack says.
async fn find(context: &Context<'_>, direct: bool, local: Option<Local>) -> Result<(Whom, Way)> {
    let settings = &context.settings;
    let caller = context.cloud.identity.caller().await?;
    observe::check_account(settings, &caller.account)?;
    let name = settings.stack();
    let Some(stack) = context.cloud.stacks.stack(&name).await? else {
        return Err(Error::failed(format!(
            "{name} is not deployed in account {}, {}",
            caller.account, settings.region
        ))
        .next("comfy-deploy up"));
    };
    if direct {
        let endpoint = stack.outputs.get("EndpointName").cloned().ok_or_else(|| not_up(&stack, "endpoint"))?;
        let arn = stack.outputs.get("ComfyUIEndpoint").cloned().unwrap_or_else(|| endpoint.clone());
        let files = local.map(|local| (local.name, local.text));
        return Ok((Whom { arn, direct }, Way::Endpoint { name: endpoint, workflows: Workflows::of(files) }));
    }
    let function = stack.outputs.get("FunctionName").ok_or_else(|| {
        not_up(&stack, "function")
            .next("set lambda.enabled: true and run comfy-deploy up, or call the endpoint with --direct")
    })?;
    let url = stack.outputs.get("ComfyUIFunctionUrl").cloned().ok_or_else(|| {
        not_up(&stack, "Function URL")
            .next("set lambda.url and run comfy-deploy up, or call the endpoint with --direct")
    })?;
    let pseudo = stack::Pseudo::new(&caller.account, &settings.region, &name);
    let arn = format!("arn:{}:lambda:{}:{}:function:{function}", pseudo.partition, pseudo.region, pseudo.account);
    let sign = stack.parameters.get("LambdaUrlAuthType").is_none_or(|auth| auth != "NONE");
    Ok((Whom { arn, direct }, Way::Url { url, sign }))
}

fn not_up(stack: &Stack, what: &str) -> Error {
    Error::failed(format!("stack {} has no {what}", stack.name))
        .why(format!("the stack is {}", stack.status))
        .next("`comfy-deploy status` shows what there is, `comfy-deploy up` brings it up to date")
}

/// A workflow on this machine.
struct Local {
    name: String,
    text: Vec<u8>,
}

/// The app's workflow of a name. Only a direct call needs it: what is deployed may be more or other.
fn local_workflow(context: &Context<'_>, name: &str, needed: bool) -> Result<Option<Local>> {
    let dir = context.settings.root.join(&context.settings.config.workflows);
    let json = if name.ends_with(".json") { name.to_owned() } else { format!("{name}.json") };
    let file = dir.join(&json);
    if Path::new(name).components().count() != 1 {
        return Err(Error::usage(format!("{name:?} is no name of a workflow"))
            .why("a deployed workflow has a name without any path")
            .next("`comfy-deploy workflow ls` lists the app's workflows"));
    }
    if !needed && !file.is_file() {
        return Ok(None);
    }
    Ok(Some(Local { name: json, text: workflows::read(&file)? }))
}

/// `--param` by the workflow of this machine, else as written: the function checks it again.
fn params(local: Option<&Local>, given: &[String]) -> Result<Map<String, Value>> {
    let parsed = local.and_then(|local| comfy_workflow::Workflow::parse(&local.text).ok());
    if let Some(workflow) = parsed {
        return super::workflow::typed(&workflow, given);
    }
    let pair = |param: &String| {
        let (key, text) = param.split_once('=').ok_or_else(|| {
            Error::usage(format!("--param {param:?} has no value")).next("write it as NODE.INPUT=VALUE")
        })?;
        Ok((key.to_owned(), param_as_written(text)))
    };
    given.iter().map(pair).collect()
}

/// `[NODE=]FILE`. A file of the whole name wins.
fn image(given: &str) -> Result<Value> {
    let (node, file) = match given.split_once('=') {
        Some((node, file)) if !Path::new(given).exists() => (Some(node), file),
        _ => (None, given),
    };
    let bytes = std::fs::read(file).map_err(|e| {
        Error::io("read", Path::new(file), &e)
            .kind_is(Kind::Usage)
            .next("name a JPEG, PNG or WebP picture with --image")
    })?;
    let data = STANDARD.encode(bytes);
    Ok(node.map_or_else(|| json!(data), |node| json!({"data": data, "node": node})))
}

/// Told before a picture is paid for.
fn writable(file: &Path, force: bool) -> Result<()> {
    if !force && file.symlink_metadata().is_ok() {
        return Err(there(file));
    }
    let dir = directory(file);
    if !dir.is_dir() {
        return Err(Error::usage(format!("there is no directory {}", dir.display()))
            .next(format!("mkdir -p {}, or choose another --out", dir.display())));
    }
    Ok(())
}

fn there(file: &Path) -> Error {
    Error::usage(format!("{} is there already", file.display())).next("choose another --out or --seed, or add --force")
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Whole or not at all: written beside, then renamed.
fn save(file: &Path, bytes: &[u8], force: bool) -> Result<()> {
    let failed = |e: &std::io::Error| Error::io("write", file, e);
    let mut builder = tempfile::Builder::new();
    // As the user's umask says, and not as private as temporary files are.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let mut beside =
        builder.prefix(".comfy-deploy-").permissions(mode).tempfile_in(directory(file)).map_err(|e| failed(&e))?;
    std::io::Write::write_all(&mut beside, bytes).map_err(|e| failed(&e))?;
    if force {
        beside.persist(file).map_err(|e| failed(&e.error))?;
        return Ok(());
    }
    beside.persist_noclobber(file).map(drop).map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => there(file),
        _ => failed(&e.error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.jpg");
        writable(&file, false).unwrap();
        save(&file, b"one", false).unwrap();
        assert_eq!(writable(&file, false).unwrap_err().kind(), Kind::Usage);
        assert_eq!(save(&file, b"two", false).unwrap_err().kind(), Kind::Usage);
        assert_eq!(std::fs::read(&file).unwrap(), b"one");
        save(&file, b"two", true).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        assert!(writable(&dir.path().join("no/a.jpg"), false).unwrap_err().hint().unwrap().contains("mkdir -p"));
    }

    #[test]
    fn an_image_may_name_its_node() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.png");
        std::fs::write(&file, "png").unwrap();
        let shown = file.display().to_string();
        assert_eq!(image(&shown).unwrap(), json!("cG5n"));
        assert_eq!(image(&format!("10={shown}")).unwrap(), json!({"data": "cG5n", "node": "10"}));
        assert_eq!(image("missing.png").unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn params_without_the_workflow_are_taken_as_written() {
        let params = params(None, &["5.width=768".into(), "t.text=a=b".into()]).unwrap();
        assert_eq!(Value::from(params), json!({"5.width": 768, "t.text": "a=b"}));
        assert!(super::params(None, &["5.width".into()]).is_err());
    }
}
