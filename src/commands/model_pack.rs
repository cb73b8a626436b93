//! `model pack`: the artifact as a file. Looks at files alone; no call is made.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Done, with_ambient};
use crate::apply::Cancel;
use crate::apply::pace::interrupted;
use crate::cli::Cli;
use crate::config::{Compression, Models};
use crate::error::{Error, Result};
use crate::fetch;
use crate::local::cache::DigestCache;
use crate::local::lengths::LengthCache;
use crate::local::{models, workflows};
use crate::pack::{Archive, Contents, Manifest, measure, write};
use crate::progress::{Event, Reporter, units};
use crate::settings;
use crate::ui::Ui;

/// Bytes that are made at a time.
const STEP: u64 = 8 << 20;

/// What is asked for.
pub struct Wish<'a> {
    /// The models; absent: those of the config file.
    pub dir: Option<&'a Path>,
    /// Where the archive goes; `-` is standard output.
    pub out: &'a Path,
    /// Whether what is known of files is not believed.
    pub rehash: bool,
}

/// Runs it.
///
/// # Errors
/// What is wrong with the models, or with the file that is written; [`Kind::Interrupted`], which leaves no file.
pub async fn run(cli: &Cli, wish: Wish<'_>, ui: &Ui, cancel: &Cancel) -> Result<Done> {
    let job = job(cli, &wish, ui)?;
    let stop = Arc::new(Stop::default());
    let mut work = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || job.run(&stop)
    });
    let ended = |done: Result<Result<Done>, tokio::task::JoinError>| {
        done.map_err(|e| Error::failed(format!("packing broke off: {e}")))?
    };
    tokio::select! {
        done = &mut work => ended(done),
        () = cancel.wait() => {
            stop.asked.store(true, Ordering::Relaxed);
            // What was begun is removed by who began it. Hashing is not waited for: it leaves nothing.
            if stop.writing.load(Ordering::Relaxed) {
                return ended(work.await);
            }
            Err(interrupted().why("nothing was written"))
        }
    }
}

/// Between who works and who waits.
#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    writing: AtomicBool,
}

/// All that is needed on another thread.
struct Job {
    dir: PathBuf,
    globs: Vec<String>,
    warmup: Option<PathBuf>,
    /// Of the app, where what is known of files is kept.
    root: Option<PathBuf>,
    compression: Compression,
    rehash: bool,
    out: PathBuf,
    reporter: Arc<dyn Reporter>,
}

fn job(cli: &Cli, wish: &Wish<'_>, ui: &Ui) -> Result<Job> {
    let app = with_ambient(|ambient| settings::app(cli, ambient))?;
    if wish.out == Path::new("-") && ui.is_json() {
        return Err(Error::usage("the archive and the JSON result cannot both go to standard output")
            .next("name a file: comfy-deploy model pack -o model.tar.gz --output json"));
    }
    // As `up` takes them: what models.files selects, and the workflow to warm up with.
    let (dir, globs, warmup, root) = match (wish.dir, &app) {
        (Some(dir), _) => (dir.to_owned(), Vec::new(), None, None),
        (None, Some(app)) => (
            app.root.join(&app.config.models.dir),
            fetch::selection(&app.root, &app.config.models, false)?.globs,
            workflows::warmup(&app.root, &app.config)?,
            Some(app.root.clone()),
        ),
        (None, None) => {
            return Err(Error::usage("there is no comfy-deploy.yaml here, and no --dir")
                .next("name the directory: comfy-deploy model pack --dir models"));
        }
    };
    let compression = app.map_or_else(|| Models::default().compression(), |app| app.config.models.compression());
    let (out, rehash, reporter) = (wish.out.to_owned(), wish.rehash, ui.reporter());
    Ok(Job { dir, globs, warmup, root, compression, rehash, out, reporter })
}

impl Job {
    fn run(&self, stop: &Stop) -> Result<Done> {
        let (root, reporter) = (self.root.as_deref(), self.reporter.as_ref());
        let choice = models::Choice { globs: &self.globs, warmup: self.warmup.as_deref(), remote: Vec::new() };
        let mut cache = root.map_or_else(DigestCache::in_memory, DigestCache::load);
        let tree = models::artifact(&self.dir, choice, &mut cache, self.rehash, reporter);
        if root.is_some()
            && let Err(e) = cache.save()
        {
            reporter.report(Event::Warning(format!("the file digests are not kept: {e}")));
        }
        let tree = Arc::new(tree?);
        let identity = Manifest::of(&tree, self.compression).identity()?;
        let packed = match self.compression {
            Compression::Adaptive => {
                reporter.report(Event::Note(
                    "compression: adaptive weighs the machine against the uplink; without one, files are packed as with auto"
                        .into(),
                ));
                Compression::Auto
            }
            given => given,
        };
        let mut lengths = match root {
            Some(root) if self.rehash => LengthCache::anew(root),
            Some(root) => LengthCache::load(root),
            None => LengthCache::in_memory(),
        };
        let contents = measure(&Contents::new(tree.clone(), packed), &mut lengths, reporter, &stop.asked)?;
        let archive = Archive::new(contents, STEP);
        let (bytes, out) = (archive.layout().total, self.out.as_path());
        stop.writing.store(true, Ordering::Relaxed);
        if out == Path::new("-") {
            let mut stdout = std::io::stdout();
            write(&archive, &mut stdout, &stop.asked)?.flush().map_err(|e| Error::io("write", out, &e))?;
            return Ok(Done::new("", serde_json::Value::Null));
        }
        save(&archive, out, &stop.asked)?;
        let text = format!("{}: {} in {} files", out.display(), units::bytes(bytes), tree.files.len());
        let data = json!({"file": out, "bytes": bytes, "files": tree.files.len(), "id": identity});
        Ok(Done::new(text, data))
    }
}

/// Into a file that has its name once it is complete; into devices and pipes directly.
fn save(archive: &Archive, out: &Path, stop: &AtomicBool) -> Result<()> {
    let io = |e: std::io::Error| Error::io("write", out, &e);
    if std::fs::metadata(out).is_ok_and(|meta| !meta.is_file()) {
        let mut file = File::options().write(true).open(out).map_err(io)?;
        write(archive, &mut file, stop)?;
        return Ok(());
    }
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // With the permissions that any new file has; by default a temporary file is its owner's alone.
    let anyones = std::fs::Permissions::from_mode(0o666);
    let mut partial = tempfile::Builder::new().permissions(anyones).tempfile_in(parent).map_err(io)?;
    write(archive, partial.as_file_mut(), stop)?;
    partial.persist(out).map_err(|e| io(e.error))?;
    Ok(())
}
