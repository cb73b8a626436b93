//! Objects in S3: fetched, resumed, locked by being read, and streamed.

use std::sync::Mutex;

use bytes::Bytes;

use super::streaming::Reader;
use super::*;
use crate::cloud::fake::{Fake, service};
use crate::local::models::Stop;
use crate::progress::Event;

const MIB: usize = 1 << 20;
const KEY: &str = "weights/x.safetensors";
const PATH: &str = "loras/x.safetensors";

/// Does something at the first byte that came, or before any did, and remembers what was there before.
#[derive(Default)]
struct Watch {
    early: bool,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    first: Mutex<Option<u64>>,
}

impl Reporter for Watch {
    fn report(&self, event: Event) {
        let now = match event {
            Event::Begin { .. } => self.early,
            Event::Bytes { done, .. } => {
                self.first.lock().expect("first").get_or_insert(done);
                done > 0
            }
            _ => false,
        };
        if now && let Some(then) = self.then.lock().expect("then").take() {
            then();
        }
    }
}

struct Case {
    app: App,
    fake: Arc<Fake>,
}

impl Case {
    fn with(content: &[u8]) -> Self {
        let fake = Fake::with(|_| ());
        let mut app = App::new(&[entry(&format!("s3://bucket/{KEY}"), "loras/")]);
        app.objects = Some(fake.clone());
        let case = Case { app, fake };
        case.put(content);
        case
    }

    fn put(&self, content: &[u8]) {
        put(&self.fake, content);
    }

    /// What happens to the object when its first bytes have come.
    fn midway(&mut self, then: impl FnOnce(&Fake) + Send + 'static) -> Arc<Watch> {
        self.watched(false, then)
    }

    /// What happens to the object when it was looked at, and none of its bytes have come.
    fn before(&mut self, then: impl FnOnce(&Fake) + Send + 'static) -> Arc<Watch> {
        self.watched(true, then)
    }

    fn watched(&mut self, early: bool, then: impl FnOnce(&Fake) + Send + 'static) -> Arc<Watch> {
        let fake = self.fake.clone();
        let then = Mutex::new(Some(Box::new(move || then(&fake)) as Box<dyn FnOnce() + Send>));
        let watch = Arc::new(Watch { early, then, first: Mutex::default() });
        self.app.reporter = watch.clone();
        watch
    }
}

/// Stands for a checksum, which would take longer than all else here.
fn tag(content: &[u8]) -> String {
    hex::encode(&content[..8])
}

fn put(fake: &Fake, content: &[u8]) {
    fake.state().objects.insert(KEY.into(), (Bytes::copy_from_slice(content), tag(content)));
}

#[test]
fn an_object_that_goes_away_midway_is_continued_when_it_is_back() {
    let weights = content(20 * MIB, 61);
    let mut case = Case::with(&weights);
    case.midway(|fake| drop(fake.state().objects.remove(KEY)));
    let error = text(&case.app.refused());
    assert!(error.contains(&format!("there is no {KEY} in the bucket bucket")), "{error}");
    assert_eq!(case.app.left("loras"), [".x.safetensors.part", ".x.safetensors.part.json"]);

    case.put(&weights);
    let watch = case.midway(|_| ());
    case.app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(*watch.first.lock().expect("first"), Some(8 * MIB as u64), "the first piece was kept");
    assert!(case.app.read(PATH) == Some(weights.clone()));
    let locked = case.app.lock().files[PATH].clone();
    assert_eq!((locked.size, locked.sha256, locked.etag), (20 * MIB as u64, sha256(&weights), Some(tag(&weights))));
}

#[test]
fn an_object_that_is_replaced_midway_is_begun_anew_unless_it_is_locked() {
    let (old, new) = (content(20 * MIB, 62), content(20 * MIB, 63));
    let mut case = Case::with(&old);
    let other = new.clone();
    case.midway(move |fake| put(fake, &other));
    case.app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
    assert!(case.app.read(PATH) == Some(new.clone()));
    let locked = case.app.lock().files[PATH].clone();
    assert_eq!((locked.sha256, locked.etag), (sha256(&new), Some(tag(&new))), "all of it of the new one");

    std::fs::remove_file(case.app.dir.path().join("models").join(PATH)).expect("removed");
    case.midway(move |fake| put(fake, &old));
    let error = text(&case.app.refused());
    for word in [&format!("s3://bucket/{KEY}"), "comfy-deploy.lock", "--upgrade"] {
        assert!(error.contains(word), "{word} is not in {error}");
    }
    assert!(case.app.left("loras").is_empty());
    assert_eq!(case.app.lock().files[PATH].sha256, sha256(&new), "the lock is as it was");
}

/// The SDK asks again until there is an answer, and not when its bytes break off.
#[test]
fn answers_of_s3_that_break_off_are_asked_for_again() {
    let weights = content(5 * MIB, 69);
    let faults = || {
        let broken = || Error::failed("no answer").why("connection reset");
        vec![broken(), service("SlowDown", Some(503)), service("InternalError", Some(500)), broken()]
    };
    let case = Case::with(&weights);
    case.fake.state().faults.insert(format!("read {KEY}"), faults());
    case.app.fetch().unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(case.app.read(PATH), Some(weights.clone()));

    case.fake.state().faults.insert(format!("read {KEY}"), faults());
    assert!(Reader::new(&case.app, &weights).all().is_ok_and(|came| came == weights), "streamed");
    assert!(case.fake.state().faults[&format!("read {KEY}")].is_empty());

    let denied = vec![service("AccessDenied", Some(403)).kind_is(Kind::Access)];
    case.fake.state().faults.insert(format!("read {KEY}"), denied);
    std::fs::remove_dir_all(case.app.dir.path().join("models")).expect("removed");
    assert_eq!(case.app.refused().kind(), Kind::Access, "what will not change is told at once");
}

#[test]
fn an_object_that_is_streamed_is_read_once_to_lock_it() {
    let weights = content(33 * MIB + 5, 64);
    let mut case = Case::with(&weights);
    case.app.streaming = Streaming::Always;
    let done = case.app.run(async |job| lock(job, None).await).unwrap_or_else(|e| panic!("{}", text(&e)));
    assert_eq!(done.streamed, [(PATH.to_owned(), 33 * MIB as u64 + 5)]);
    let locked = case.app.lock().files[PATH].clone();
    assert_eq!((locked.sha256, locked.etag), (sha256(&weights), Some(tag(&weights))));
    assert!(!case.app.dir.path().join("models").exists());
}

#[test]
fn an_object_that_is_replaced_between_a_look_and_its_bytes_is_not_locked() {
    let (old, new) = (content(33 * MIB, 67), content(33 * MIB, 68));
    let mut case = Case::with(&old);
    case.app.streaming = Streaming::Always;
    case.before(move |fake| put(fake, &new));
    let error = text(&case.app.refused());
    assert!(error.contains("changed while it was read") && case.app.lock().files.is_empty(), "{error}");
}

/// More pieces than are read side by side, so that some are asked for after the change.
#[test]
fn an_object_that_is_replaced_while_it_is_read_to_lock_it_is_not_locked() {
    let (old, new) = (vec![1; 80 * MIB], vec![2; 80 * MIB]);
    let mut case = Case::with(&old);
    case.app.streaming = Streaming::Always;
    case.midway(move |fake| put(fake, &new));
    let error = text(&case.app.refused());
    assert!(error.contains(&format!("s3://bucket/{KEY} changed while it was read")), "{error}");
    assert!(error.contains("run the same command again") && case.app.lock().files.is_empty(), "{error}");
}

#[test]
fn ranges_of_a_locked_object_come_in_pieces_of_one_content() {
    let (old, new) = (content(5 * MIB + 7, 65), content(5 * MIB + 7, 66));
    let case = Case::with(&old);
    let reader = Reader::new(&case.app, &old);
    assert!(reader.all().is_ok_and(|came| came == old), "more than the one piece of an answer");
    assert!(reader.read(4_000_000..4_000_010, &Stop::default()).is_ok_and(|came| came == old[4_000_000..4_000_010]));
    case.put(&new);
    let unread = reader.read(1000..2000, &Stop::default()).expect_err("replaced");
    assert!(!unread.again && text(&unread.error).contains(&format!("s3://bucket/{KEY} is not what")));
    case.fake.state().objects.clear();
    let unread = Reader::new(&case.app, &old).all().expect_err("gone");
    assert!(unread.again && text(&unread.error).contains("there is no"), "{}", text(&unread.error));
}
