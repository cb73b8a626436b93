//! `model pack`: the artifact as a file. Looks at files alone; no call is made.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::{Done, with_ambient};
use crate::cli::Cli;
use crate::config::{Compression, Models};
use crate::error::{Error, Result};
use crate::fetch;
use crate::local::cache::DigestCache;
use crate::local::lengths::LengthCache;
use crate::local::{models, workflows};
use crate::pack::{Archive, Contents, Manifest, measure, write};
use crate::progress::{Event, units};
use crate::settings;
use crate::ui::Ui;

/// Bytes that are made at a time.
const STEP: u64 = 8 << 20;

/// Runs it.
///
/// # Errors
/// What is wrong with the models, or with the file that is written.
pub fn run(cli: &Cli, dir: Option<&Path>, out: &Path, ui: &Ui) -> Result<Done> {
    let app = with_ambient(|ambient| settings::app(cli, ambient))?;
    let stdout = out == Path::new("-");
    if stdout && ui.is_json() {
        return Err(Error::usage("the archive and the JSON result cannot both go to standard output")
            .next("name a file: comfy-deploy model pack -o model.tar.gz --output json"));
    }
    // As `up` takes them: what models.files selects, and the workflow to warm up with.
    let (dir, globs, warmup, root): (PathBuf, Vec<String>, Option<PathBuf>, Option<&Path>) = match (dir, &app) {
        (Some(dir), _) => (dir.to_owned(), Vec::new(), None, None),
        (None, Some(app)) => (
            app.root.join(&app.config.models.dir),
            fetch::selection(&app.root, &app.config.models, false)?.globs,
            workflows::warmup(&app.root, &app.config)?,
            Some(app.root.as_path()),
        ),
        (None, None) => {
            return Err(Error::usage("there is no comfy-deploy.yaml here, and no --dir")
                .next("name the directory: comfy-deploy model pack --dir models"));
        }
    };
    let reporter = ui.reporter();
    let choice = models::Choice { globs: &globs, warmup: warmup.as_deref(), remote: Vec::new() };
    let mut cache = root.map_or_else(DigestCache::in_memory, DigestCache::load);
    let tree = models::artifact(&dir, choice, &mut cache, false, reporter.as_ref());
    if root.is_some()
        && let Err(e) = cache.save()
    {
        reporter.report(Event::Warning(format!("the file digests are not kept: {e}")));
    }
    let tree = Arc::new(tree?);
    let compression =
        app.as_ref().map_or_else(|| Models::default().compression(), |app| app.config.models.compression());
    let identity = Manifest::of(&tree, compression).identity()?;
    let packed = match compression {
        Compression::Adaptive => {
            reporter.report(Event::Note(
                "compression: adaptive weighs the machine against the uplink; without one, files are packed as with auto"
                    .into(),
            ));
            Compression::Auto
        }
        given => given,
    };
    let mut lengths = root.map_or_else(LengthCache::in_memory, LengthCache::load);
    let contents = Contents::new(tree.clone(), packed);
    let contents = measure(&contents, &mut lengths, reporter.as_ref(), &AtomicBool::new(false))?;
    let archive = Archive::new(contents, STEP);
    let bytes = archive.layout().total;
    if stdout {
        let mut stdout = std::io::stdout();
        write(&archive, &mut stdout)?.flush().map_err(|e| Error::io("write", out, &e))?;
        return Ok(Done::new("", serde_json::Value::Null));
    }
    save(&archive, out)?;
    let text = format!("{}: {} in {} files", out.display(), units::bytes(bytes), tree.files.len());
    let data = json!({"file": out, "bytes": bytes, "files": tree.files.len(), "id": identity});
    Ok(Done::new(text, data))
}

/// Into a file that has its name once it is complete; into devices and pipes directly.
fn save(archive: &Archive, out: &Path) -> Result<()> {
    let io = |e: std::io::Error| Error::io("write", out, &e);
    if std::fs::metadata(out).is_ok_and(|meta| !meta.is_file()) {
        let mut file = File::options().write(true).open(out).map_err(io)?;
        write(archive, &mut file)?;
        return Ok(());
    }
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut partial = tempfile::NamedTempFile::new_in(parent).map_err(io)?;
    write(archive, partial.as_file_mut())?;
    partial.persist(out).map_err(|e| io(e.error))?;
    Ok(())
}
