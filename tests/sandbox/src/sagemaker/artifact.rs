//! Model artifacts: from the sandbox's S3 to the directory that stands for /opt/ml/model.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::s3;
use crate::world::World;

/// Where a container's model data lies: name below the model directory, and its bytes.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A tar.gz.
    Archive(String, s3::Reading),
    /// Objects as they are, with their paths below the directory.
    Files(String, Vec<(String, s3::Reading)>),
}

impl Source {
    fn uri(&self) -> &str {
        match self {
            Source::Archive(uri, _) | Source::Files(uri, _) => uri,
        }
    }

    /// Equal sources have equal names.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.uri());
        let mut add = |path: &str, reading: &s3::Reading| hash.update(format!("\n{path} {}", reading.etag));
        match self {
            Source::Archive(_, reading) => add("", reading),
            Source::Files(_, all) => all.iter().for_each(|(path, reading)| add(path, reading)),
        }
        hex::encode(&hash.finalize()[..16])
    }
}

/// Finds the objects of a model data source. `prefix` for `S3Prefix`.
pub(super) fn find(world: &World, uri: &str, prefix: bool, compressed: bool) -> Option<Source> {
    let (bucket, key) = uri.strip_prefix("s3://")?.split_once('/')?;
    if !prefix && compressed {
        return Some(Source::Archive(uri.to_owned(), s3::reading(world, bucket, key)?));
    }
    if !prefix {
        let name = key.rsplit('/').next().unwrap_or(key);
        return Some(Source::Files(uri.to_owned(), vec![(name.to_owned(), s3::reading(world, bucket, key)?)]));
    }
    let files: Vec<_> = s3::keys_under(world, bucket, key)
        .into_iter()
        .filter_map(|full| Some((full.strip_prefix(key)?.to_owned(), s3::reading(world, bucket, &full)?)))
        // A key that ends in a slash is a folder of the console (API model: S3ModelDataSource).
        .filter(|(path, _)| !path.is_empty() && !path.ends_with('/'))
        .collect();
    Some(Source::Files(uri.to_owned(), files))
}

/// Why an artifact is not there, as FailureReason says it.
#[derive(Debug)]
pub(super) struct Refusal(pub String);

/// Makes the directory of a source if it is not there. Blocks.
pub(super) fn prepare(models: &Path, blobs: &Path, source: &Source) -> Result<PathBuf, Refusal> {
    let target = models.join(source.digest());
    if target.is_dir() {
        return Ok(target);
    }
    let part = models.join(format!("{}.{}.part", source.digest(), uuid::Uuid::new_v4().simple()));
    let made = fs::create_dir_all(&part).and_then(|()| match source {
        Source::Archive(_, reading) => unpack(reading.open(blobs), &part),
        Source::Files(_, files) => files.iter().try_for_each(|(path, reading)| place(reading, blobs, &part, path)),
    });
    let done = made.and_then(|()| protect(&part)).and_then(|()| fs::rename(&part, &target));
    match done {
        Ok(()) => Ok(target),
        Err(_) if target.is_dir() => {
            remove(&part);
            Ok(target)
        }
        Err(error) => {
            remove(&part);
            tracing::warn!(%error, uri = source.uri(), "the model artifact could not be extracted");
            Err(Refusal(match source {
                // aws/deep-learning-containers#569.
                Source::Archive(uri, _) => format!(
                    "Failed to extract model data archive for container \"container_1\" from URL \"{uri}\". Please ensure \
                     that the object located at the URL is a valid tar.gz archive."
                ),
                // aws-solutions-library-samples/fraud-detection-using-machine-learning#9.
                Source::Files(uri, _) => format!(
                    "Failed to download model data for container \"container_1\" from URL: \"{uri}\". Please ensure that \
                     there is an object located at the URL and that the role passed to CreateModel has permissions to \
                     download the object."
                ),
            }))
        }
    }
}

fn unpack(archive: impl Read, target: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 20, archive)));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        // mantiumai/aws-sagemaker-gptj-deepspeed-blog#5: no links.
        if !kind.is_file() && !kind.is_dir() {
            return Err(io::Error::other(format!("{} is no regular file", entry.path()?.display())));
        }
        entry.set_preserve_permissions(false);
        entry.set_preserve_mtime(false);
        if !entry.unpack_in(target)? {
            return Err(io::Error::other(format!("{} leads out of the archive", entry.path()?.display())));
        }
    }
    Ok(())
}

fn place(reading: &s3::Reading, blobs: &Path, target: &Path, path: &str) -> io::Result<()> {
    let inside = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !inside {
        return Err(io::Error::other(format!("{path} is no path below the model directory")));
    }
    let path = target.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    io::copy(&mut reading.open(blobs), &mut File::create(path)?)?;
    Ok(())
}

/// Takes the right to write below a directory.
fn protect(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            protect(&entry.path())?;
        } else {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o444))?;
        }
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o555))
}

/// Who uses which extracted artifact. The last one removes it.
#[derive(Debug, Default, Clone)]
pub(super) struct Users(Arc<Mutex<HashMap<PathBuf, usize>>>);

/// One use.
#[derive(Debug)]
pub(super) struct Use(Users, PathBuf);

impl Users {
    pub(super) fn hold(&self, dir: PathBuf) -> Use {
        *self.0.lock().entry(dir.clone()).or_default() += 1;
        Use(self.clone(), dir)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut users = self.0.0.lock();
        let left = users.get(&self.1).map_or(0, |n| n.saturating_sub(1));
        if left > 0 {
            users.insert(self.1.clone(), left);
            return;
        }
        users.remove(&self.1);
        // Under another name first: whoever wants it from now on makes it anew.
        let away = self.1.with_extension(format!("{}.gone", uuid::Uuid::new_v4().simple()));
        if fs::rename(&self.1, &away).is_ok() {
            drop(users);
            remove(&away);
        }
    }
}

/// Removes what was extracted, protected or not.
pub(super) fn remove(dir: &Path) {
    // Directories have to be writable again from the top down.
    fn open(dir: &Path) -> io::Result<()> {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open(&entry.path())?;
            }
        }
        Ok(())
    }
    if let Err(error) = open(dir).and_then(|()| fs::remove_dir_all(dir))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "could not be removed");
    }
}

/// Removes everything below a directory. For the start only.
pub(super) fn clear(dir: &Path) {
    if dir.is_dir() {
        remove(dir);
    }
}
