//! `model push`: the artifact into the bucket, and nothing else.

use serde_json::{Value, json};

use super::look::{self, Wanted};
use super::{Context, Done, model, show};
use crate::apply::publish::{self, Artifact, Lengths};
use crate::cloud::BucketState;
use crate::error::{Error, Kind, Result};
use crate::pack::Manifest;
use crate::plan::{self, LocalModel};
use crate::progress::{Event, units};
use crate::stack;

/// Runs it.
///
/// # Errors
/// What is wrong with the models, a bucket that is not there, and what S3 says; finished parts are kept.
pub async fn run(context: &Context<'_>, dry_run: bool) -> Result<Done> {
    let stream = match dry_run {
        true => context.settings.config.models.stream,
        false => model::bring(context, model::Instance::Configured).await?,
    };
    let look = tokio::select! {
        look = look::look(context, Wanted::model().streaming(stream)) => look?,
        () = context.cancel.wait() => return Err(interrupted()),
    };
    let (Some(tree), LocalModel::Tree { id, .. }) = (look.sources.model, &look.local.model) else {
        return Err(Error::usage("models.uri names an artifact that was made elsewhere; there is nothing to upload")
            .next("remove models.uri, and put the models into models.dir"));
    };
    let settings = &context.settings;
    // An artifact that no `up` would deploy is not sent.
    if let Some(tight) = plan::room_for(settings, &look.local.model, &look.world)? {
        context.reporter.report(Event::Note(tight));
    }
    let bucket = stack::bucket_name(settings, &look.world.account);
    // Looked at only where the foundation stack does not say that it is there.
    if look.world.bucket.is_some_and(|state| state != BucketState::Owned) {
        return Err(Error::failed(format!("there is no bucket {bucket} to upload to"))
            .next("the foundation stack makes it: comfy-deploy up, which uploads the models too"));
    }
    let files = tree.files.len();
    let artifact = Artifact {
        bucket: bucket.clone(),
        tree: tree.clone(),
        packaging: settings.config.models.packaging,
        compression: settings.config.models.compression(),
        lengths: Lengths { root: Some(settings.root.clone()), rehash: settings.rehash },
        kms_key_arn: settings.config.storage.kms_key_arn.clone(),
        now: jiff::Timestamp::now().as_second(),
    };
    let objects = context.cloud.objects.clone();
    let reporter = context.reporter.as_ref();
    let work = async {
        let key = Manifest::of(&tree, artifact.compression).key(artifact.packaging)?;
        let uri = format!("s3://{bucket}/{key}");
        let mut data = json!({"id": id, "uri": uri, "files": files});
        if look.world.model_present {
            data["already"] = true.into();
            data["sent_bytes"] = 0.into();
            return Ok(Done::new(format!("Nothing to do: {uri} is there already."), data));
        }
        let prepared = publish::prepare(objects.clone(), artifact, reporter).await?;
        let summary = prepared.summary();
        data["bytes"] = prepared.bytes.into();
        data["copied_bytes"] = prepared.copied.into();
        data["from"] = prepared.from.clone().into();
        data["parts"] = prepared.parts.into();
        data["compressed_files"] = counts(&prepared.compressed());
        if dry_run {
            data["sent_bytes"] = prepared.sent().into();
            data["dry_run"] = true.into();
            data["at_most"] = prepared.at_most.into();
            let bytes = show::limit(prepared.bytes, prepared.at_most);
            let compressed = in_words(&prepared.compressed());
            return Ok(Done::new(
                format!(
                    "{uri}\n{bytes} in {files} files{compressed}: {summary} in {} parts. Nothing was sent.",
                    prepared.parts
                ),
                data,
            ));
        }
        reporter.report(Event::Note(summary));
        let mut compressed = prepared.compressed();
        let published = publish::publish(objects, prepared, reporter).await?;
        let uploaded = published.uploaded;
        if let Some(decision) = published.decision {
            compressed = decision.compressed;
            data["compressed_files"] = counts(&compressed);
            data["adaptive"] =
                json!({"uplink_bytes_per_second": decision.uplink.map(f64::round), "why": decision.text});
        }
        let sent = if uploaded.already { 0 } else { uploaded.bytes - uploaded.spared };
        data["already"] = uploaded.already.into();
        data["sent_bytes"] = sent.into();
        data["crc64nvme"] = uploaded.crc64nvme.into();
        data["bytes"] = uploaded.bytes.into();
        let (bytes, compressed) = (units::bytes(uploaded.bytes), in_words(&compressed));
        let text = format!("{uri}\n{bytes} in {files} files{compressed}, {} sent.", units::bytes(sent));
        Ok(Done::new(text, data))
    };
    tokio::select! {
        done = work => done,
        () = context.cancel.wait() => Err(interrupted()),
    }
}

/// By codec.
fn counts(compressed: &[(&'static str, usize)]) -> Value {
    compressed.iter().map(|(codec, n)| ((*codec).to_owned(), json!(n))).collect::<serde_json::Map<_, _>>().into()
}

/// ` (2 by deflate-6)`, or nothing.
fn in_words(compressed: &[(&'static str, usize)]) -> String {
    let words: Vec<String> = compressed.iter().map(|(codec, n)| format!("{n} by {codec}")).collect();
    if words.is_empty() { String::new() } else { format!(" (compressed: {})", words.join(", ")) }
}

fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "interrupted").why("what was uploaded so far is kept")
}
