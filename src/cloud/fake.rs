//! An S3 in memory, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};

use super::{
    BucketState, CopySource, Listed, Map, ObjectHead, ObjectPart, Objects, OpenUpload, PartDone, PutOptions, Uploads,
    Written,
};
use crate::error::{Error, Result, ServiceError};
use crate::transfer::crc64_text;

/// An S3 in memory, with the checks S3 makes.
#[derive(Default)]
pub(crate) struct Fake(Mutex<State>);

pub(crate) type Parts = BTreeMap<u32, (Bytes, String)>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, (Bytes, String)>,
    /// When they were written; 0 of the others.
    pub(crate) modified: BTreeMap<String, i64>,
    /// By upload id: the key, and the parts with their checksums.
    pub(crate) uploads: BTreeMap<String, (String, Parts)>,
    /// Operation, or operation and part (`part 2`), and the errors of its next calls.
    pub(crate) faults: BTreeMap<String, Vec<Error>>,
    /// Operations in order, parts with their numbers.
    pub(crate) calls: Vec<String>,
    pub(crate) begun: u32,
    /// When uploads began, where that is not 1970.
    pub(crate) initiated: BTreeMap<String, i64>,
    /// By upload and by key.
    pub(crate) encrypted: BTreeMap<String, String>,
    /// Bytes per second of each part.
    pub(crate) rate: Option<f64>,
    /// Whether parts have the sizes that S3 asks for.
    pub(crate) strict: bool,
    /// A key that another run creates just before it is completed here.
    pub(crate) race: Option<(String, Bytes)>,
}

pub(crate) fn service(code: &str, status: Option<u16>) -> Error {
    Error::service("failed", ServiceError { code: code.into(), status, ..Default::default() })
}

pub(crate) fn sum(bytes: &[u8]) -> String {
    crc64_text(checksum(CrcAlgorithm::Crc64Nvme, bytes))
}

impl Fake {
    pub(crate) fn with(change: impl FnOnce(&mut State)) -> Arc<Self> {
        let fake = Fake::default();
        change(&mut fake.0.lock().unwrap());
        Arc::new(fake)
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn call(&self, name: String) -> Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.state();
        state.calls.push(name.clone());
        match state.faults.get_mut(&name).and_then(Vec::pop) {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }

    pub(crate) fn sent(&self) -> Vec<String> {
        let mut sent: Vec<_> = self.state().calls.iter().filter(|c| c.starts_with("part ")).cloned().collect();
        sent.sort();
        sent
    }
}

impl State {
    fn source(&self, source: &CopySource) -> Result<Bytes> {
        let (body, crc) = self.objects.get(&source.key).ok_or_else(|| service("NoSuchKey", Some(404)))?;
        if source.etag == format!("\"{crc}\"") {
            Ok(body.clone())
        } else {
            Err(service("PreconditionFailed", Some(412)))
        }
    }
}

#[async_trait]
impl Objects for Fake {
    async fn bucket(&self, _: &str) -> Result<BucketState> {
        Ok(BucketState::Owned)
    }

    async fn bucket_tags(&self, _: &str) -> Result<Map> {
        Ok(Default::default())
    }

    async fn head(&self, _: &str, key: &str) -> Result<Option<ObjectHead>> {
        let state = self.call("head".into())?;
        let encrypted = &state.encrypted;
        Ok(state.objects.get(key).map(|(body, crc)| ObjectHead {
            size: body.len() as u64,
            crc64nvme: Some(crc.clone()),
            etag: Some(format!("\"{crc}\"")),
            version_id: None,
            encrypted_with: encrypted.get(key).cloned(),
            metadata: Default::default(),
        }))
    }

    async fn get(&self, _: &str, key: &str) -> Result<Option<Bytes>> {
        let mut state = self.state();
        match state.faults.get_mut(&format!("get {key}")).and_then(Vec::pop) {
            Some(error) => Err(error),
            None => Ok(state.objects.get(key).map(|o| o.0.clone())),
        }
    }

    async fn read(&self, _: &str, key: &str, from: u64, to: u64, if_match: Option<&str>) -> Result<Option<ObjectPart>> {
        let mut state = self.state();
        if let Some(error) = state.faults.get_mut(&format!("read {key}")).and_then(Vec::pop) {
            return Err(error);
        }
        let Some((body, crc)) = state.objects.get(key) else { return Ok(None) };
        let etag = format!("\"{crc}\"");
        if if_match.is_some_and(|wanted| wanted != etag) {
            return Err(service("PreconditionFailed", Some(412)));
        }
        let part = body.slice(from as usize..body.len().min(to as usize));
        Ok(Some(ObjectPart { body: part, size: body.len() as u64, etag: Some(etag) }))
    }

    async fn put(&self, _: &str, key: &str, body: Bytes, options: &PutOptions) -> Result<Written> {
        assert!(options.if_absent, "nothing is ever overwritten");
        let mut state = self.call(format!("put {key}"))?;
        if state.objects.contains_key(key) {
            return Ok(Written::AlreadyThere);
        }
        let crc = sum(&body);
        state.objects.insert(key.into(), (body, crc));
        Ok(Written::Created)
    }

    async fn list(&self, _: &str, prefix: &str) -> Result<Vec<Listed>> {
        let state = self.state();
        let under = state.objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let listed = |(key, (body, _)): (&String, &(Bytes, String))| {
            let modified = state.modified.get(key).copied().unwrap_or_default();
            Listed { key: key.clone(), size: body.len() as u64, modified }
        };
        Ok(under.map(listed).collect())
    }

    async fn delete(&self, _: &str, key: &str) -> Result<()> {
        self.state().objects.remove(key);
        Ok(())
    }

    async fn copy(&self, _: &str, key: &str, source: &CopySource, _: &PutOptions) -> Result<Option<String>> {
        let mut state = self.call(format!("copy {key}"))?;
        let body = state.source(source)?;
        let crc = sum(&body);
        state.objects.insert(key.into(), (body, crc.clone()));
        Ok(Some(crc))
    }
}

#[async_trait]
impl Uploads for Fake {
    async fn begin_upload(&self, _: &str, key: &str, options: &PutOptions) -> Result<String> {
        let mut state = self.call("begin".into())?;
        state.begun += 1;
        let id = format!("new-{}", state.begun);
        state.encrypted.insert(id.clone(), options.kms_key_arn.clone().unwrap_or("AES256".into()));
        state.uploads.insert(id.clone(), (key.into(), BTreeMap::new()));
        Ok(id)
    }

    async fn upload_part(&self, _: &str, _: &str, id: &str, number: u32, body: Bytes, crc: &str) -> Result<PartDone> {
        let rate = self.state().rate;
        match rate {
            Some(rate) => tokio::time::sleep(std::time::Duration::from_secs_f64(body.len() as f64 / rate)).await,
            None => tokio::task::yield_now().await,
        }
        let mut state = self.call(format!("part {number}"))?;
        assert_eq!(crc, sum(&body));
        let (_, parts) = state.uploads.get_mut(id).ok_or_else(|| service("NoSuchUpload", Some(404)))?;
        let size = body.len() as u64;
        parts.insert(number, (body, crc.into()));
        Ok(PartDone { number, etag: format!("\"{number}\""), size, crc64nvme: crc.into() })
    }

    async fn copy_part(
        &self,
        _: &str,
        _: &str,
        id: &str,
        number: u32,
        source: &CopySource,
        range: std::ops::Range<u64>,
    ) -> Result<PartDone> {
        tokio::task::yield_now().await;
        let mut state = self.call(format!("copy {number}"))?;
        let body = state.source(source)?.slice(range.start as usize..range.end as usize);
        assert!(!body.is_empty() && body.len() as u64 <= 5 << 30);
        let (_, parts) = state.uploads.get_mut(id).ok_or_else(|| service("NoSuchUpload", Some(404)))?;
        let (size, crc) = (body.len() as u64, sum(&body));
        parts.insert(number, (body, crc.clone()));
        Ok(PartDone { number, etag: format!("\"{number}\""), size, crc64nvme: crc })
    }

    async fn complete_upload(
        &self,
        _: &str,
        key: &str,
        id: &str,
        parts: &[PartDone],
        crc: &str,
        size: u64,
        if_absent: bool,
    ) -> Result<Written> {
        assert!(if_absent);
        let mut state = self.call("complete".into())?;
        if let Some((key, body)) = state.race.take() {
            let crc = sum(&body);
            state.objects.insert(key, (body, crc));
        }
        if state.objects.contains_key(key) {
            return Ok(Written::AlreadyThere);
        }
        let (_, have) = state.uploads.remove(id).ok_or_else(|| service("NoSuchUpload", Some(404)))?;
        if state.strict {
            let small = parts.iter().rev().skip(1).any(|p| have[&p.number].0.len() < 5 << 20);
            assert!(!small && parts.len() <= 10_000, "S3 would answer EntityTooSmall");
        }
        let body: Vec<u8> = parts.iter().flat_map(|p| have[&p.number].0.clone()).collect();
        assert_eq!((body.len() as u64, sum(&body).as_str()), (size, crc));
        state.objects.insert(key.into(), (body.into(), crc.into()));
        if let Some(with) = state.encrypted.remove(id) {
            state.encrypted.insert(key.into(), with);
        }
        match state.faults.get_mut("answer of complete").and_then(Vec::pop) {
            Some(error) => Err(error),
            None => Ok(Written::Created),
        }
    }

    async fn abort_upload(&self, _: &str, _: &str, id: &str) -> Result<()> {
        self.call("abort".into())?.uploads.remove(id);
        Ok(())
    }

    async fn open_uploads(&self, _: &str, prefix: &str) -> Result<Vec<OpenUpload>> {
        let state = self.state();
        let under = state.uploads.iter().filter(|(_, (key, _))| key.starts_with(prefix));
        let open = |(id, (key, _)): (&String, &(String, Parts))| OpenUpload {
            key: key.clone(),
            upload_id: id.clone(),
            initiated: state.initiated.get(id).copied().unwrap_or(0),
        };
        Ok(under.map(open).collect())
    }

    async fn parts(&self, _: &str, _: &str, id: &str) -> Result<Vec<PartDone>> {
        let state = self.call("parts".into())?;
        let (_, parts) = state.uploads.get(id).ok_or_else(|| service("NoSuchUpload", Some(404)))?;
        let done = |(&number, (body, crc)): (&u32, &(Bytes, String))| PartDone {
            number,
            etag: format!("\"{number}\""),
            size: body.len() as u64,
            crc64nvme: crc.clone(),
        };
        Ok(parts.iter().map(done).collect())
    }
}
