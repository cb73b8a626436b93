use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use crc_fast::{CrcAlgorithm, checksum};

use super::retry::wait;
use super::*;
use crate::cloud::fake::{Fake, service, sum};
use crate::cloud::{BucketState, Listed, ObjectHead, ObjectPart, Objects, OpenUpload, PartDone, Uploads, Written};
use crate::error::Kind;
use crate::progress::{Event, Reporter, Silent};

/// Parts of given bytes, which counts how many bytes live.
struct Text {
    parts: Vec<Vec<u8>>,
    live: Arc<(AtomicU64, AtomicU64)>,
    broken: Option<u32>,
    wrong: bool,
}

impl Text {
    fn new(parts: &[&str]) -> Self {
        let parts = parts.iter().map(|p| p.as_bytes().to_vec()).collect();
        Text { parts, live: Arc::default(), broken: None, wrong: false }
    }
}

/// Bytes that are counted as long as anybody holds them.
struct Counted(Vec<u8>, Arc<(AtomicU64, AtomicU64)>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.0.fetch_sub(self.0.len() as u64, Ordering::SeqCst);
    }
}

impl PartSource for Text {
    fn count(&self) -> u32 {
        self.parts.len() as u32
    }

    fn size(&self, number: u32) -> u64 {
        self.parts[number as usize - 1].len() as u64
    }

    fn produce(&self, number: u32) -> Result<Part> {
        if self.broken == Some(number) {
            return Err(Error::failed("a file changed"));
        }
        let bytes = self.parts[number as usize - 1].clone();
        let now = self.live.0.fetch_add(bytes.len() as u64, Ordering::SeqCst) + bytes.len() as u64;
        self.live.1.fetch_max(now, Ordering::SeqCst);
        let crc64nvme = checksum(CrcAlgorithm::Crc64Nvme, &bytes);
        Ok(Part { body: Bytes::from_owner(Counted(bytes, self.live.clone())), crc64nvme })
    }

    fn verify(&self, crc64nvme: u64) -> Result<()> {
        assert_eq!(crc64nvme, checksum(CrcAlgorithm::Crc64Nvme, &self.parts.concat()));
        if self.wrong { Err(Error::failed("not what was meant")) } else { Ok(()) }
    }
}

fn options() -> Options {
    Options { back_off: Duration::from_millis(1), attempts: 4, ..Options::default() }
}

async fn send(fake: &Arc<Fake>, source: Text) -> Result<Uploaded> {
    upload(fake.clone(), "b", "k/model.tar.gz", source, &options(), &Silent).await
}

const ABC: [&str; 3] = ["aaaa", "bbbb", "cc"];

#[tokio::test]
async fn parts_become_one_object_with_its_checksum() {
    let fake = Fake::with(|_| ());
    let uploaded = send(&fake, Text::new(&ABC)).await.unwrap();
    assert_eq!(uploaded, Uploaded { bytes: 10, crc64nvme: Some(sum(b"aaaabbbbcc")), already: false, spared: 0 });
    assert_eq!(fake.state().objects["k/model.tar.gz"].0, "aaaabbbbcc");
    assert!(fake.state().uploads.is_empty());
}

#[tokio::test]
async fn one_part_is_one_request() {
    let fake = Fake::with(|s| drop(s.faults.insert("put k/model.tar.gz".into(), vec![service("SlowDown", Some(503))])));
    let uploaded = send(&fake, Text::new(&["abc"])).await.unwrap();
    assert_eq!(uploaded, Uploaded { bytes: 3, crc64nvme: Some(sum(b"abc")), already: false, spared: 0 });
    assert_eq!(fake.state().calls, ["head", "put k/model.tar.gz", "put k/model.tar.gz"]);
}

#[tokio::test]
async fn what_is_there_is_not_sent_and_what_should_not_be_there_is_an_error() {
    let fake = Fake::with(|_| ());
    send(&fake, Text::new(&ABC)).await.unwrap();
    fake.state().calls.clear();
    let again = send(&fake, Text::new(&ABC)).await.unwrap();
    assert!(again.already);
    assert_eq!(again.crc64nvme, Some(sum(b"aaaabbbbcc")));
    assert_eq!(fake.state().calls, ["head"]);
    let e = send(&fake, Text::new(&["longer, and other"])).await.unwrap_err();
    assert!(e.to_string().contains("other content") && e.hint().is_some(), "{e}");
}

#[tokio::test]
async fn transient_failures_are_tried_again() {
    let fake = Fake::with(|s| {
        let slow = || service("SlowDown", Some(503));
        s.faults.insert("part 2".into(), vec![slow(), Error::failed("no answer"), service("BadDigest", Some(400))]);
        s.faults.insert("begin".into(), vec![service("InternalError", Some(500))]);
        s.faults.insert("complete".into(), vec![service("RequestTimeout", Some(400))]);
    });
    assert!(!send(&fake, Text::new(&ABC)).await.unwrap().already);
    assert_eq!(fake.sent(), ["part 1", "part 2", "part 2", "part 2", "part 2", "part 3"]);
}

#[tokio::test]
async fn a_lasting_failure_keeps_the_finished_parts_and_the_next_run_continues() {
    let denied = || service("AccessDenied", Some(403)).kind_is(Kind::Access);
    let fake = Fake::with(|s| drop(s.faults.insert("part 3".into(), vec![denied()])));
    let one_by_one = Options { parallel: 1, ..options() };
    let e = upload(fake.clone(), "b", "k", Text::new(&ABC), &one_by_one, &Silent).await.unwrap_err();
    assert_eq!((e.kind(), e.hint().is_some()), (Kind::Access, true));
    assert_eq!(fake.state().uploads.len(), 1, "nothing is aborted");
    assert_eq!(fake.sent(), ["part 1", "part 2", "part 3"], "a refusal is not tried again");

    fake.state().calls.clear();
    let uploaded = upload(fake.clone(), "b", "k", Text::new(&ABC), &one_by_one, &Silent).await.unwrap();
    assert_eq!(fake.sent(), ["part 3"]);
    assert!(!uploaded.already && fake.state().uploads.is_empty());
    assert_eq!(fake.state().begun, 1, "the same upload");
}

#[tokio::test]
async fn parts_of_other_content_or_size_are_sent_again_and_other_leftovers_go() {
    let part = |text: &'static str| (Bytes::from(text), sum(text.as_bytes()));
    let fake = Fake::with(|s| {
        let key = "k/model.tar.gz".to_owned();
        s.uploads.insert("few".into(), (key.clone(), BTreeMap::from([(1, part("aaaa"))])));
        s.uploads.insert(
            "most".into(),
            (key, BTreeMap::from([(1, part("aaaa")), (2, part("bbXb")), (3, part("c")), (9, part("beyond"))])),
        );
        s.uploads.insert("other".into(), ("k/model.tar.gz.sig".into(), BTreeMap::new()));
    });
    send(&fake, Text::new(&ABC)).await.unwrap();
    assert_eq!(fake.sent(), ["part 2", "part 3"]);
    assert_eq!(fake.state().objects["k/model.tar.gz"].0, "aaaabbbbcc");
    assert_eq!(fake.state().uploads.keys().collect::<Vec<_>>(), ["other"], "an upload of another key is not ours");
}

#[tokio::test]
async fn content_that_changes_aborts_the_upload() {
    for source in [Text { broken: Some(2), ..Text::new(&ABC) }, Text { wrong: true, ..Text::new(&ABC) }] {
        let fake = Fake::with(|_| ());
        let e = send(&fake, source).await.unwrap_err();
        assert!(e.to_string().contains("changed") || e.to_string().contains("not what"), "{e}");
        assert!(fake.state().uploads.is_empty() && fake.state().objects.is_empty());
        assert!(!fake.state().calls.contains(&"complete".into()));
    }
}

#[tokio::test]
async fn somebody_who_was_faster_is_success_and_leaves_nothing_half_made() {
    let fake = Fake::with(|s| s.race = Some(("k/model.tar.gz".into(), "aaaabbbbcc".into())));
    assert!(send(&fake, Text::new(&ABC)).await.unwrap().already);
    assert!(fake.state().uploads.is_empty(), "our parts are not billed for ever");

    let fake = Fake::with(|s| s.race = Some(("k/model.tar.gz".into(), "other".into())));
    assert!(send(&fake, Text::new(&ABC)).await.unwrap_err().to_string().contains("other content"));
}

#[tokio::test]
async fn a_lost_answer_of_complete_is_not_an_upload_twice() {
    let fake = Fake::with(|s| drop(s.faults.insert("answer of complete".into(), vec![Error::failed("no answer")])));
    let uploaded = send(&fake, Text::new(&ABC)).await.unwrap();
    assert_eq!((uploaded.bytes, uploaded.already), (10, false), "we sent it");
    assert_eq!(fake.sent().len(), 3);
    assert_eq!(fake.state().begun, 1);
}

#[tokio::test]
async fn an_upload_that_is_gone_is_begun_anew_but_not_for_ever() {
    let gone = || service("NoSuchUpload", Some(404));
    let conflict = service("ConditionalRequestConflict", Some(409));
    let fake = Fake::with(|s| {
        s.faults.insert("part 1".into(), vec![gone()]);
        s.faults.insert("complete".into(), vec![conflict]);
    });
    assert!(!send(&fake, Text::new(&ABC)).await.unwrap().already);

    let fake = Fake::with(|s| drop(s.faults.insert("part 1".into(), vec![gone(), gone(), gone(), gone()])));
    let e = send(&fake, Text::new(&ABC)).await.unwrap_err();
    assert!(e.to_string().contains("disappeared 3 times"), "{e}");
}

/// Another run that sends the same object has sent a part of it again.
#[tokio::test]
async fn parts_that_another_run_has_overwritten_are_looked_at_again() {
    let overwritten = vec![service("InvalidPart", Some(400))];
    let fake = Fake::with(|s| drop(s.faults.insert("complete".into(), overwritten)));
    let uploaded = send(&fake, Text::new(&ABC)).await.unwrap();
    assert_eq!((uploaded.bytes, uploaded.already, uploaded.spared), (10, false, 10));
    assert_eq!((fake.sent().len(), fake.state().begun), (3, 1), "what is there and right is not sent again");
}

#[tokio::test]
async fn what_was_begun_before_the_key_was_chosen_is_not_kept() {
    let kms =
        |key: &str| Options { put: PutOptions { kms_key_arn: Some(key.into()), ..PutOptions::default() }, ..options() };
    // What the upload of the earlier run is encrypted with, and whether it is kept.
    for (with, kept) in [(Some("AES256"), false), (Some("key/1"), false), (Some("key/2"), true), (None, true)] {
        let fake = Fake::with(|s| {
            let parts = BTreeMap::from([(1, ("aaaa".into(), sum(b"aaaa")))]);
            s.uploads.insert("old".into(), ("k".into(), parts));
            s.encrypted.extend(with.map(|with| ("old".to_owned(), with.to_owned())));
        });
        let uploaded = upload(fake.clone(), "b", "k", Text::new(&ABC), &kms("key/2"), &Silent).await.unwrap();
        assert_eq!(uploaded.spared, if kept { 4 } else { 0 }, "{with:?}");
        let state = fake.state();
        assert_eq!(state.encrypted.get("k").map(String::as_str), with.map(|_| "key/2"), "{with:?}");
        assert!(state.objects["k"].0 == "aaaabbbbcc" && state.uploads.is_empty());
    }
}

#[derive(Default)]
struct Most(AtomicU64);

impl Reporter for Most {
    fn report(&self, event: Event) {
        if let Event::Bytes { done, .. } = event {
            self.0.fetch_max(done, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn progress_reaches_the_total_and_no_more_even_when_begun_anew() {
    let fake = Fake::with(|s| drop(s.faults.insert("part 3".into(), vec![service("NoSuchUpload", Some(404))])));
    let most = Most::default();
    upload(fake, "b", "k", Text::new(&ABC), &Options { parallel: 1, ..options() }, &most).await.unwrap();
    assert_eq!(most.0.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn files_come_first_and_the_manifest_last() {
    let files = || {
        [("p/files/a", Text::new(&["a"])), ("p/files/empty", Text::new(&[""])), ("p/files/b/c", Text::new(&ABC))]
            .into_iter()
            .map(|(key, source)| FileUpload { key: key.into(), source: Box::new(source) })
            .collect::<Vec<_>>()
    };
    let last = || ("p/manifest.json", Bytes::from("{}"));
    let denied = service("AccessDenied", Some(403));
    let fake = Fake::with(|s| drop(s.faults.insert("put p/files/a".into(), vec![denied])));
    assert!(upload_files(fake.clone(), "b", files(), last(), &options(), &Silent).await.is_err());
    assert!(!fake.state().objects.contains_key("p/manifest.json"), "not complete, and does not say so");

    let done = upload_files(fake.clone(), "b", files(), last(), &options(), &Silent).await.unwrap();
    assert_eq!((done.bytes, done.already), (11, false));
    assert_eq!(fake.state().objects.len(), 4);
    assert_eq!(fake.state().calls.last().unwrap(), "put p/manifest.json");

    fake.state().calls.clear();
    assert!(upload_files(fake.clone(), "b", files(), last(), &options(), &Silent).await.unwrap().already);
    assert_eq!(fake.state().calls, ["head"]);
}

#[test]
fn parts_are_as_large_as_they_must_be_and_fit_into_memory() {
    assert_eq!(part_size(0).unwrap(), 16 * MIB);
    assert_eq!(part_size(160_000 * MIB).unwrap(), 16 * MIB);
    assert_eq!(part_size(160_000 * MIB + 1).unwrap(), 17 * MIB);
    let defaults = Options::default();
    for total in [1, 300 * MIB, 20 << 30, 512 << 30, MEMORY * PARTS_MAX] {
        let size = part_size(total).unwrap();
        assert!(total.div_ceil(size) <= PARTS_MAX && size.is_multiple_of(MIB));
        let parallel = (defaults.memory / size).min(defaults.parallel as u64);
        assert!(parallel >= 1 && parallel * size <= 128 * MIB, "{parallel} parts of {size}");
    }
    let e = part_size(MEMORY * PARTS_MAX + 1).unwrap_err();
    assert!(e.to_string().contains("1250 GiB"), "{e}");
}

#[test]
fn checksums_are_written_as_s3_writes_them() {
    // The check value of CRC-64/NVME, big-endian in base64.
    assert_eq!(sum(b"123456789"), "rosUhgp5mIg=");
}

#[test]
fn only_what_may_pass_is_tried_again() {
    for (code, status, again) in [
        ("SlowDown", Some(503), true),
        ("Whatever", Some(500), true),
        ("Whatever", Some(429), true),
        ("RequestTimeout", Some(400), true),
        ("XAmzContentSHA256Mismatch", Some(400), true),
        ("RequestTimeTooSkewed", Some(403), true),
        ("DispatchFailure", None, true),
        ("AccessDenied", Some(403), false),
        ("NoSuchBucket", Some(404), false),
        ("InvalidPart", Some(400), false),
    ] {
        assert_eq!(service(code, status).is_transient(), again, "{code}");
    }
    assert!(!service("ExpiredToken", None).kind_is(Kind::Access).is_transient());
    assert!(!Error::new(Kind::Interrupted, "stopped").is_transient());
}

#[test]
fn waits_double_up_to_a_limit_and_are_never_none() {
    let step = Duration::from_millis(250);
    assert_eq!(wait(step, 1, 1.0), step);
    assert_eq!(wait(step, 3, 1.0), step * 4);
    assert_eq!(wait(step, 3, 0.0), step * 2);
    assert_eq!(wait(step, 60, 1.0), Duration::from_secs(20));
}

/// Three parts, of which the second is copied from `old`, and a companion.
struct Mixed {
    parts: [&'static str; 3],
    etag: String,
    /// Whether other bytes would be as good.
    open: bool,
}

impl PartSource for Mixed {
    fn count(&self) -> u32 {
        3
    }
    fn size(&self, number: u32) -> u64 {
        self.parts[number as usize - 1].len() as u64
    }
    fn produce(&self, number: u32) -> Result<Part> {
        assert_ne!(number, 2, "it is copied");
        let body = Bytes::from(self.parts[number as usize - 1]);
        Ok(Part { crc64nvme: checksum(CrcAlgorithm::Crc64Nvme, &body), body })
    }
    fn copy(&self, number: u32) -> Option<(CopySource, Range<u64>)> {
        let source = CopySource { key: "old".into(), etag: self.etag.clone(), version_id: None };
        (number == 2).then_some((source, 2..6))
    }
    fn copies(&self) -> bool {
        true
    }
    fn fixed(&self) -> bool {
        !self.open
    }
    fn whole(&self) -> Result<Option<Source>> {
        Ok(Some(Arc::new(Text::new(&self.parts))))
    }
    fn companion(&self) -> Result<Option<Companion>> {
        Ok(Some(Companion { key: "k/index.json".into(), body: Bytes::from_static(b"{}") }))
    }
    fn verify(&self, crc64nvme: u64) -> Result<()> {
        let right = checksum(CrcAlgorithm::Crc64Nvme, self.parts.concat().as_bytes());
        if crc64nvme == right { Ok(()) } else { Err(Error::failed("it is not what it should be")) }
    }
}

fn mixed(old: &'static str) -> (Arc<Fake>, Mixed) {
    let fake = Fake::with(|s| drop(s.objects.insert("old".into(), (Bytes::from(old), sum(old.as_bytes())))));
    (fake, Mixed { parts: ABC, etag: format!("\"{}\"", sum(old.as_bytes())), open: false })
}

#[tokio::test]
async fn what_is_there_is_copied_and_the_companion_is_there_before_the_object() {
    let (fake, source) = mixed("xxbbbbxx");
    let uploaded = upload(fake.clone(), "b", "k/model.tar.gz", source, &options(), &Silent).await.unwrap();
    assert_eq!((uploaded.bytes, uploaded.spared), (10, 4));
    assert_eq!(fake.state().objects["k/model.tar.gz"].0, "aaaabbbbcc");
    assert_eq!(fake.sent(), ["part 1", "part 3"]);
    let calls = fake.state().calls.clone();
    let at = |name: &str| calls.iter().position(|c| c == name).unwrap();
    assert!(at("put k/index.json") < at("complete"));
}

/// Two runs make other bytes for one key at the same time: what describes the object that is there stays, or nothing does.
#[tokio::test]
async fn of_two_runs_at_a_time_no_companion_stays_that_does_not_fit() {
    let index = |fake: &Fake| fake.state().objects.get("k/index.json").map(|(body, _)| body.clone());
    // The other one was faster, and ours is what was written last.
    let (fake, source) = mixed("xxbbbbxx");
    fake.state().race = Some(("k/model.tar.gz".into(), "smaller".into()));
    let open = Mixed { open: true, ..source };
    let uploaded = upload(fake.clone(), "b", "k/model.tar.gz", open, &options(), &Silent).await.unwrap();
    assert!(uploaded.already);
    assert_eq!(index(&fake), None);
    // We were faster, and the other one's is what was written last.
    let (fake, source) = mixed("xxbbbbxx");
    fake.state().race = Some(("k/index.json".into(), "the other one's".into()));
    let open = Mixed { open: true, ..source };
    upload(fake.clone(), "b", "k/model.tar.gz", open, &options(), &Silent).await.unwrap();
    assert_eq!(index(&fake).as_deref(), Some(b"{}".as_slice()));
}

#[tokio::test]
async fn when_nothing_can_be_copied_the_whole_is_sent_and_said_so() {
    let change: [fn(&mut Mixed, &Fake); 4] = [
        |_, fake| drop(fake.state().objects.remove("old")),
        |source, _| source.etag = "\"another\"".into(),
        |_, fake| drop(fake.state().objects.insert("old".into(), ("xxbbXbxx".into(), sum(b"xxbbbbxx")))),
        |_, fake| drop(fake.state().faults.insert("copy 2".into(), vec![service("AccessDenied", Some(403))])),
    ];
    for change in change {
        let (fake, mut source) = mixed("xxbbbbxx");
        change(&mut source, &fake);
        let said = Said::default();
        let uploaded = upload(fake.clone(), "b", "k/model.tar.gz", source, &options(), &said).await.unwrap();
        assert_eq!(fake.state().objects["k/model.tar.gz"].0, "aaaabbbbcc");
        assert!(uploaded.spared < 10 && fake.state().uploads.is_empty());
        let said = said.0.into_inner().unwrap();
        assert!(said.iter().any(|line| line.contains("sent as a whole")), "{said:?}");
    }
}

#[tokio::test]
async fn a_copy_that_is_slow_to_come_is_tried_again() {
    let (fake, source) = mixed("xxbbbbxx");
    fake.state().faults.insert("copy 2".into(), vec![service("SlowDown", Some(503)), service("InternalError", None)]);
    let uploaded = upload(fake.clone(), "b", "k/model.tar.gz", source, &options(), &Silent).await.unwrap();
    assert_eq!(uploaded.spared, 4);
}

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Reporter for Said {
    fn report(&self, event: Event) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

mod many;
