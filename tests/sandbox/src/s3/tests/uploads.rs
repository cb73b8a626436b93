//! Rules of multipart uploads and conditional writes, without a protocol.

use s3s::dto::{ETag, ETagCondition};

use super::*;
use crate::s3::checksums::{Algorithm, Hasher};
use crate::s3::multipart::{self, Completion};
use crate::s3::objects;
use crate::s3::state::{Extent, Upload, UploadedPart, Version};

const MIB: u64 = 1024 * 1024;

/// A part of `size` zeros, without a file.
fn part(size: u64, algorithm: Algorithm) -> UploadedPart {
    let mut hasher = Hasher::new(true, &[algorithm]);
    hasher.update(&vec![0; size as usize]);
    let mut sums = hasher.finish();
    let extents = vec![Extent { file: objects::new_id(), offset: 0, len: size }];
    let checksum = sums.sums.remove(&algorithm).expect("asked for");
    UploadedPart { etag: sums.md5, size, modified: 1, checksum, extents }
}

fn upload(algorithm: Option<&str>, kind: Option<&str>, sizes: &[u64]) -> (World, Completion) {
    let mut world = World::default();
    call(&mut world, &ctx("us-east-1"), "CreateBucket", &json!({"Bucket": "bucket"})).expect("made");
    let (algorithm, full_object) = multipart::plan(algorithm, kind).expect("allowed");
    let mut upload = Upload { key: "key".into(), algorithm, full_object, ..Default::default() };
    let mut completion = Completion::default();
    for (number, size) in (1..).zip(sizes) {
        let part = part(*size, upload.effective());
        completion.parts.push((number, format!("\"{}\"", part.etag), Some(part.checksum.clone())));
        upload.parts.insert(number, part);
    }
    world.s3.buckets.get_mut("bucket").expect("made").uploads.insert("id".into(), upload);
    (world, completion)
}

fn complete(world: &mut World, completion: &Completion) -> Result<Version, String> {
    multipart::complete(world, "bucket", "key", "id", completion, 5).map(|(v, _)| v).map_err(|e| e.code)
}

fn code<T>(result: Result<T, crate::world::ApiError>) -> Option<String> {
    result.err().map(|e| e.code)
}

#[test]
fn part_rules() {
    let (mut world, good) = upload(None, None, &[5 * MIB, 1]);
    let with = |parts: Vec<_>| Completion { parts, ..Default::default() };
    let mut reversed = good.parts.clone();
    reversed.reverse();
    assert_eq!(complete(&mut world, &with(reversed)).err().as_deref(), Some("InvalidPartOrder"));
    let mut wrong = good.parts.clone();
    wrong[1].1 = "0".repeat(32);
    assert_eq!(complete(&mut world, &with(wrong)).err().as_deref(), Some("InvalidPart"));
    let mut missing = good.parts.clone();
    missing.push((3, "0".repeat(32), None));
    assert_eq!(complete(&mut world, &with(missing)).err().as_deref(), Some("InvalidPart"));
    assert_eq!(complete(&mut world, &with(Vec::new())).err().as_deref(), Some("MalformedXML"));
    let made = complete(&mut world, &good).expect("in order");
    assert!(made.etag.ends_with("-2") && made.size == 5 * MIB + 1, "{made:?}");
    assert_eq!(complete(&mut world, &good).err().as_deref(), Some("NoSuchUpload"));

    let (mut world, small) = upload(None, None, &[5 * MIB - 1, 1]);
    assert_eq!(complete(&mut world, &small).err().as_deref(), Some("EntityTooSmall"));
    assert_eq!(code(multipart::check_number(0)).as_deref(), Some("InvalidArgument"));
    assert_eq!(code(multipart::check_number(10_001)).as_deref(), Some("InvalidArgument"));
    assert_eq!(code(multipart::check_number(10_000)), None);
}

#[test]
fn object_size() {
    let (mut world, mut completion) = upload(None, None, &[5 * MIB, 7]);
    completion.size = Some(5 * MIB);
    assert_eq!(complete(&mut world, &completion).err().as_deref(), Some("InvalidRequest"));
    completion.size = Some(5 * MIB + 7);
    assert_eq!(complete(&mut world, &completion).map(|v| v.size), Ok(5 * MIB + 7));
}

#[test]
fn checksum_type() {
    let plan = |algorithm, kind| code(multipart::plan(Some(algorithm), Some(kind)));
    assert_eq!(plan("SHA256", "FULL_OBJECT").as_deref(), Some("InvalidRequest"));
    assert_eq!(plan("CRC64NVME", "COMPOSITE").as_deref(), Some("InvalidRequest"));
    assert_eq!(plan("CRC32", "FULL_OBJECT"), None);
    assert_eq!(code(multipart::plan(None, Some("COMPOSITE"))).as_deref(), Some("InvalidRequest"));

    let (mut world, mut composite) = upload(Some("SHA256"), None, &[5 * MIB, 1]);
    let sums = |world: &World| world.s3.buckets["bucket"].uploads["id"].clone();
    let parts_of = sums(&world);
    assert_eq!(code(multipart::check_part_algorithm(&parts_of, &[])).as_deref(), Some("InvalidRequest"));
    assert_eq!(
        code(multipart::check_part_algorithm(&parts_of, &[Algorithm::Crc32])).as_deref(),
        Some("InvalidRequest")
    );
    assert_eq!(code(multipart::check_part_algorithm(&parts_of, &[Algorithm::Sha256])), None);
    let checksum = composite.parts[0].2.take();
    assert_eq!(complete(&mut world, &composite).err().as_deref(), Some("InvalidRequest"));
    composite.parts[0].2 = checksum;
    composite.kind = Some("FULL_OBJECT".into());
    assert_eq!(complete(&mut world, &composite).err().as_deref(), Some("InvalidRequest"));
    composite.kind = None;
    let made = complete(&mut world, &composite).expect("complete").checksum.expect("summed");
    assert!(made.value.ends_with("-2") && !made.full_object, "{made:?}");
}

#[test]
fn digest() {
    let (mut world, mut completion) = upload(Some("CRC64NVME"), None, &[5 * MIB, 9]);
    completion.checksums = vec![(Algorithm::Crc64Nvme, "AAAAAAAAAAA=".into())];
    assert_eq!(complete(&mut world, &completion).err().as_deref(), Some("BadDigest"));
    completion.checksums = vec![(Algorithm::Crc64Nvme, part(5 * MIB + 9, Algorithm::Crc64Nvme).checksum)];
    let made = complete(&mut world, &completion).expect("the sum of the whole");
    assert_eq!(made.checksum.map(|c| c.full_object), Some(true));
}

#[test]
fn conditional_write() {
    let (mut world, mut completion) = upload(None, None, &[1]);
    let may = |world: &World, if_match: Option<&str>, none: bool, since| {
        let if_match = if_match.map(|e| ETagCondition::ETag(ETag::Strong(e.into())));
        let none = none.then_some(ETagCondition::Any);
        objects::may_write(world, "bucket", "key", if_match.as_ref(), none.as_ref(), since)
            .err()
            .map(|e| (e.status, e.code))
    };
    let refused = |status, code: &str| Some((status, code.to_owned()));
    assert_eq!(may(&world, None, true, 0), None);
    assert_eq!(may(&world, Some("e"), false, 0), refused(404, "NoSuchKey"));
    let version = Version { etag: "e".into(), modified: 1, ..Default::default() };
    objects::put(&mut world, "bucket", "key", version).expect("put");
    assert_eq!(may(&world, None, true, 0), refused(412, "PreconditionFailed"));
    assert_eq!(may(&world, Some("e"), false, 0), None);
    assert_eq!(may(&world, Some("f"), false, 0), refused(412, "PreconditionFailed"));
    completion.if_none_match = Some(ETagCondition::Any);
    assert_eq!(complete(&mut world, &completion).err().as_deref(), Some("PreconditionFailed"));
    // The upload stays and may still be completed or aborted.
    let since = world.s3.deletions.now();
    objects::delete(&mut world, "bucket", "key", None, 2).expect("deleted");
    assert_eq!(may(&world, None, true, since), refused(409, "ConditionalRequestConflict"));
    assert_eq!(may(&world, None, true, world.s3.deletions.now()), None);
    assert!(complete(&mut world, &completion).is_ok());
}

#[test]
fn what_is_replaced_or_aborted_becomes_garbage() {
    let (mut world, completion) = upload(None, None, &[5 * MIB, 1]);
    multipart::put_part(&mut world, "bucket", "key", "id", 2, part(1, Algorithm::Crc64Nvme)).expect("stored");
    assert_eq!(world.s3.collect(i64::MAX - 100_000).len(), 1);
    complete(&mut world, &completion).expect("complete");
    // All parts are in use by the object.
    assert!(world.s3.collect(i64::MAX - 100_000).is_empty());
}
