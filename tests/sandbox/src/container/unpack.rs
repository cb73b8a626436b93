//! Layers on top of each other, as a file system.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rustix::thread::UnshareFlags;

use super::Image;

/// What marks a file as gone from the layers below (OCI image specification: layer, whiteouts).
const GONE: &str = ".wh.";
/// What marks a directory as not having anything of the layers below.
const OPAQUE: &str = ".wh..wh..opq";

/// Makes the file system of an image, unless it is there. Needs root. Blocks.
pub(super) fn image(image: &Image, blobs: &Path, target: &Path) -> io::Result<()> {
    if target.is_dir() {
        return Ok(());
    }
    // A name that no other run has: one that was given up may still be at it.
    let part = target.with_extension(format!("{}.part", uuid::Uuid::new_v4().simple()));
    fs::create_dir_all(&part)?;
    let layers = image.layers(blobs).iter().map(File::open).collect::<io::Result<Vec<_>>>()?;
    // A thread of its own, because what it changes first is for ever.
    let (root, work) = (part.clone(), move |root: PathBuf| within(&root, layers));
    let made = std::thread::spawn(move || work(root)).join();
    let made = made.map_err(|_| io::Error::other("unpacking the image failed"))?;
    let done = made.map_err(|error| whole(&error)).and_then(|()| fs::rename(&part, target));
    if done.is_err() {
        remove(&part)?;
    }
    if target.is_dir() { Ok(()) } else { done }
}

/// An error with its causes: tar's own words name the file and not what is wrong with it.
fn whole(error: &io::Error) -> io::Error {
    let first: &dyn std::error::Error = error;
    let all = std::iter::successors(Some(first), |error| error.source()).map(ToString::to_string);
    io::Error::new(error.kind(), all.collect::<Vec<_>>().join(": "))
}

/// Unpacks with the target as the thread's root: links in a layer lead to where they lead in a container, and never out.
fn within(root: &Path, layers: Vec<File>) -> io::Result<()> {
    // SAFETY: of all that could be shared with other threads, only the root and the working directory are let go.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::FS)?;
    }
    rustix::process::chroot(root)?;
    rustix::process::chdir("/")?;
    layers.into_iter().try_for_each(layer)
}

fn layer(mut file: File) -> io::Result<()> {
    let mut magic = [0; 2];
    let compressed = file.read(&mut magic)? == 2 && magic == [0x1f, 0x8b];
    file.rewind()?;
    let file = BufReader::with_capacity(1 << 20, file);
    let bytes: Box<dyn Read> = if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    lay(Path::new("/"), bytes)
}

/// Puts one layer on what is there.
fn lay(root: &Path, bytes: impl Read) -> io::Result<()> {
    let mut archive = tar::Archive::new(bytes);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    // What this layer itself brought stays, whatever its whiteouts say and in whatever order.
    let mut own = HashSet::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = plain(root, &entry.path()?)?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = path.parent().unwrap_or(root);
        if name == OPAQUE {
            for below in fs::read_dir(parent).into_iter().flatten() {
                let below = below?.path();
                if !own.contains(&below) {
                    remove(&below)?;
                }
            }
            continue;
        }
        if let Some(gone) = name.strip_prefix(GONE) {
            let gone = parent.join(gone);
            if !own.contains(&gone) {
                remove(&gone)?;
            }
            continue;
        }
        // Devices are the engine's.
        let kind = entry.header().entry_type();
        if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            continue;
        }
        if let Ok(there) = fs::symlink_metadata(&path)
            && !(there.is_dir() && kind.is_dir())
        {
            remove(&path)?;
        }
        if !entry.unpack_in(root)? {
            return Err(io::Error::other(format!("{} leads out of the layer", path.display())));
        }
        own.extend(path.ancestors().take_while(|a| *a != root).map(Path::to_owned));
    }
    Ok(())
}

/// A path of a layer below the root.
fn plain(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut plain = root.to_owned();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => return Err(io::Error::other(format!("{} leads out of the layer", path.display()))),
        }
    }
    Ok(plain)
}

/// Removes whatever is there, if anything is.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A layer of paths: with a slash at the end a directory, with an arrow a link, else a file of this content.
    fn made(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Whoever runs the tests owns what they unpack.
            header.set_uid(rustix::process::getuid().as_raw().into());
            header.set_gid(rustix::process::getgid().as_raw().into());
            header.set_mode(0o755);
            header.set_size(0);
            if let Some((path, to)) = path.split_once(" -> ") {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, to).unwrap();
            } else if path.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
                builder.append_data(&mut header, path, &[][..]).unwrap();
            } else {
                header.set_mode(0o4750);
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    /// What is there after these layers, sorted, files with their content.
    fn after(layers: &[&[(&str, &str)]]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for entries in layers {
            lay(dir.path(), &made(entries)[..]).unwrap();
        }
        fn list(root: &Path, dir: &Path, all: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let there = fs::symlink_metadata(&path).unwrap();
                if there.is_dir() {
                    list(root, &path, all);
                    all.push(format!("{name}/"));
                } else if there.is_symlink() {
                    all.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
                } else {
                    all.push(format!("{name} {}", fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let mut all = Vec::new();
        list(dir.path(), dir.path(), &mut all);
        all.sort();
        all
    }

    #[test]
    fn later_layers_replace_remove_and_hide() {
        let base: &[(&str, &str)] = &[("a/", ""), ("a/one", "1"), ("a/two", "2"), ("b/", ""), ("b/x", "x"), ("c", "c")];
        assert_eq!(after(&[base, &[("a/one", "new")]]), ["a/", "a/one new", "a/two 2", "b/", "b/x x", "c c"]);
        assert_eq!(after(&[base, &[("a/.wh.two", ""), (".wh.b", "")]]), ["a/", "a/one 1", "c c"]);
        // What the same layer brings stays, before and after the mark.
        let opaque: &[(&str, &str)] = &[("a/new", "n"), ("a/.wh..wh..opq", ""), ("a/later", "l")];
        assert_eq!(after(&[base, opaque]), ["a/", "a/later l", "a/new n", "b/", "b/x x", "c c"]);
        // A file in place of a directory, and the other way round; a link in place of a directory.
        assert_eq!(after(&[base, &[("b", "file"), ("c/", ""), ("c/y", "y")]])[3..], ["b file", "c/", "c/y y"]);
        assert_eq!(after(&[base, &[("b -> a", "")]])[3..], ["b -> a", "c c"]);
        // A mark for what is not there is none.
        assert_eq!(after(&[&[("a", "1")], &[(".wh.nothing", "")]]), ["a 1"]);
    }

    #[test]
    fn modes_stay() {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), &made(&[("tool", "t")])[..]).unwrap();
        assert_eq!(fs::metadata(dir.path().join("tool")).unwrap().permissions().mode() & 0o7777, 0o4750);
    }

    #[test]
    fn an_error_has_its_cause() {
        let mut layer = made(&[("tool", "t")]);
        // The header, and nothing behind it.
        layer.truncate(512);
        let error = whole(&lay(tempfile::tempdir().unwrap().path(), &layer[..]).unwrap_err()).to_string();
        assert!(error.contains("tool"), "{error}");
        assert!(error.contains(": "), "{error}");
    }

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let link = format!("etc -> {}", outside.display());
        lay(&root, &made(&[(&link, "")])[..]).unwrap();
        lay(&root, &made(&[("etc/passwd", "bad")])[..]).unwrap_err();
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        plain(&root, Path::new("../x")).unwrap_err();
    }

    /// With the root of the thread changed, an absolute link leads to where it leads in a container.
    #[test]
    fn links_lead_to_where_they_lead_in_a_container() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs");
        fs::create_dir(&blobs).unwrap();
        fs::write(blobs.join("a"), made(&[("run/", ""), ("var/", ""), ("var/run -> /run", "")])).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &made(&[("var/run/lock", "l")])).unwrap();
        fs::write(blobs.join("b"), gzip.finish().unwrap()).unwrap();
        let whole = Image::for_test(&["sha256:a", "sha256:b"]);
        let target = dir.path().join("images/x");
        image(&whole, &blobs, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("run/lock")).unwrap(), "l");
        // Once is enough.
        fs::remove_dir_all(&blobs).unwrap();
        image(&whole, &blobs, &target).unwrap();
    }
}
