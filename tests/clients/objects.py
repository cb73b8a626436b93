"""S3 as boto3 and the aws command line use it: files in parts, versions, conditions, copies, owners.

Argument: a directory for files.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from common import ACCOUNT, REGION, client, done, fail, refused, same, true

BUCKET = "second-client"
SCRATCH = Path(sys.argv[1])
MIB = 1 << 20
OTHER = "210987654321"


def aws(*words):
    """Runs the command line, which is beside this interpreter."""
    command = [str(Path(sys.executable).with_name("aws")), *words]
    ran = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    if ran.returncode != 0:
        fail(" ".join(command), ran.stdout, ran.stderr)
    return ran.stdout


def files_in_parts():
    """`aws s3 cp` cuts from 8 MiB on; the last part is odd."""
    s3 = client("s3")
    content = os.urandom(MIB) * 20 + b"tail"
    (SCRATCH / "up").write_bytes(content)
    aws("s3", "cp", "--only-show-errors", str(SCRATCH / "up"), f"s3://{BUCKET}/files/big")
    aws("s3", "cp", "--only-show-errors", f"s3://{BUCKET}/files/big", str(SCRATCH / "down"))
    same("bytes", (SCRATCH / "down").read_bytes() == content, True)
    head = s3.head_object(Bucket=BUCKET, Key="files/big")
    true(f"ETag {head['ETag']} is of three parts", head["ETag"].endswith('-3"'))
    parts = s3.get_object_attributes(Bucket=BUCKET, Key="files/big", ObjectAttributes=["ObjectParts", "ObjectSize"])
    same("size", parts["ObjectSize"], len(content))
    same("parts", parts["ObjectParts"]["TotalPartsCount"], 3)
    ranged = s3.get_object(Bucket=BUCKET, Key="files/big", Range=f"bytes={20 * MIB}-")
    same("status of a range", ranged["ResponseMetadata"]["HTTPStatusCode"], 206)
    same("last bytes", ranged["Body"].read(), b"tail")
    same("content range", ranged["ContentRange"], f"bytes {20 * MIB}-{20 * MIB + 3}/{len(content)}")
    second = s3.get_object(Bucket=BUCKET, Key="files/big", PartNumber=3)
    same("parts of the object", second["PartsCount"], 3)
    same("part 3", second["Body"].read(), content[16 * MIB :])
    refused(
        "a range past the end",
        lambda: s3.get_object(Bucket=BUCKET, Key="files/big", Range=f"bytes={len(content)}-"),
        "InvalidRange",
        status=416,
    )
    listing = aws("s3", "ls", f"s3://{BUCKET}/files/")
    true(f"s3 ls shows it: {listing}", listing.split()[2:] == [str(len(content)), "big"])
    (SCRATCH / "tree").mkdir()
    for name in ["a", "b c", "d+e", "ü"]:
        (SCRATCH / "tree" / name).write_text(name)
    aws("s3", "sync", "--only-show-errors", str(SCRATCH / "tree"), f"s3://{BUCKET}/tree")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="tree/")["Contents"]]
    same("odd names", keys, ["tree/a", "tree/b c", "tree/d+e", "tree/ü"])
    same("a second sync", aws("s3", "sync", str(SCRATCH / "tree"), f"s3://{BUCKET}/tree"), "")
    same("content of ü", s3.get_object(Bucket=BUCKET, Key="tree/ü")["Body"].read(), "ü".encode())


def versions():
    s3 = client("s3")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    first, second = (s3.put_object(Bucket=BUCKET, Key="v", Body=body)["VersionId"] for body in (b"1", b"2"))
    marker = s3.delete_object(Bucket=BUCKET, Key="v")
    same("a marker", marker["DeleteMarker"], True)
    refused("a deleted key", lambda: s3.get_object(Bucket=BUCKET, Key="v"), "NoSuchKey", "NoSuchKey", status=404)
    same("the first version", s3.get_object(Bucket=BUCKET, Key="v", VersionId=first)["Body"].read(), b"1")
    listed = s3.list_object_versions(Bucket=BUCKET, Prefix="v")
    same(
        "versions, newest first",
        [(v["VersionId"], v["IsLatest"]) for v in listed["Versions"]],
        [(second, False), (first, False)],
    )
    same("markers", [(m["VersionId"], m["IsLatest"]) for m in listed["DeleteMarkers"]], [(marker["VersionId"], True)])
    refused("a bucket with versions", lambda: s3.delete_bucket(Bucket=BUCKET), "BucketNotEmpty", status=409)
    s3.delete_object(Bucket=BUCKET, Key="v", VersionId=marker["VersionId"])
    same("without the marker", s3.get_object(Bucket=BUCKET, Key="v")["Body"].read(), b"2")


def conditions():
    s3 = client("s3")
    etag = s3.put_object(Bucket=BUCKET, Key="once", Body=b"1", IfNoneMatch="*")["ETag"]
    refused(
        "a second write",
        lambda: s3.put_object(Bucket=BUCKET, Key="once", Body=b"2", IfNoneMatch="*"),
        "PreconditionFailed",
        status=412,
    )
    refused(
        "a write over another ETag",
        lambda: s3.put_object(Bucket=BUCKET, Key="once", Body=b"2", IfMatch='"0"'),
        "PreconditionFailed",
        status=412,
    )
    s3.put_object(Bucket=BUCKET, Key="once", Body=b"2", IfMatch=etag)
    refused(
        "a write over nothing",
        lambda: s3.put_object(Bucket=BUCKET, Key="never", Body=b"", IfMatch=etag),
        "NoSuchKey",
        status=404,
    )
    refused(
        "a read of what is the same",
        lambda: s3.get_object(Bucket=BUCKET, Key="once", IfNoneMatch=s3.head_object(Bucket=BUCKET, Key="once")["ETag"]),
        "304",
        status=304,
    )
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="once")["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key="once", UploadId=upload, PartNumber=1, Body=b"3")
    done_parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]}
    refused(
        "a completion over what is there",
        lambda: s3.complete_multipart_upload(
            Bucket=BUCKET, Key="once", UploadId=upload, MultipartUpload=done_parts, IfNoneMatch="*"
        ),
        "PreconditionFailed",
        status=412,
    )
    refused(
        "a completion of another size",
        lambda: s3.complete_multipart_upload(
            Bucket=BUCKET, Key="once", UploadId=upload, MultipartUpload=done_parts, MpuObjectSize=9
        ),
        "InvalidRequest",
        status=400,
    )
    s3.abort_multipart_upload(Bucket=BUCKET, Key="once", UploadId=upload)
    refused(
        "an aborted upload",
        lambda: s3.list_parts(Bucket=BUCKET, Key="once", UploadId=upload),
        "NoSuchUpload",
        "NoSuchUpload",
        status=404,
    )
    refused(
        "a wrong checksum",
        lambda: s3.put_object(Bucket=BUCKET, Key="sum", Body=b"1", ChecksumCRC64NVME="AAAAAAAAAAA="),
        "BadDigest",
        status=400,
    )


def uploads():
    """Open uploads are listed in pages; parts are copied from another object; the whole has a full-object checksum."""
    s3 = client("s3")
    names = [f"open/{n}" for n in range(5)]
    ids = {name: s3.create_multipart_upload(Bucket=BUCKET, Key=name)["UploadId"] for name in names}
    pages = list(
        s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=BUCKET, Prefix="open/", PaginationConfig={"PageSize": 2}
        )
    )
    same("pages", len(pages), 3)
    same("open uploads", {u["Key"]: u["UploadId"] for page in pages for u in page["Uploads"]}, ids)
    for name, upload in ids.items():
        s3.abort_multipart_upload(Bucket=BUCKET, Key=name, UploadId=upload)
    true("none is left", "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET))

    upload = s3.create_multipart_upload(
        Bucket=BUCKET, Key="copied", ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT"
    )["UploadId"]
    source = {"Bucket": BUCKET, "Key": "files/big"}
    parts = []
    for number, span in enumerate([f"bytes=0-{6 * MIB - 1}", f"bytes={20 * MIB}-{20 * MIB + 3}"], 1):
        result = s3.upload_part_copy(
            Bucket=BUCKET, Key="copied", UploadId=upload, PartNumber=number, CopySource=source, CopySourceRange=span
        )["CopyPartResult"]
        parts.append({"PartNumber": number, "ETag": result["ETag"], "ChecksumCRC64NVME": result["ChecksumCRC64NVME"]})
    same(
        "listed parts",
        [p["Size"] for p in s3.list_parts(Bucket=BUCKET, Key="copied", UploadId=upload)["Parts"]],
        [6 * MIB, 4],
    )
    refused(
        "a copy of another ETag",
        lambda: s3.upload_part_copy(
            Bucket=BUCKET, Key="copied", UploadId=upload, PartNumber=3, CopySource=source, CopySourceIfMatch='"0"'
        ),
        "PreconditionFailed",
        status=412,
    )
    whole = s3.complete_multipart_upload(Bucket=BUCKET, Key="copied", UploadId=upload, MultipartUpload={"Parts": parts})
    same("kind of checksum", whole["ChecksumType"], "FULL_OBJECT")
    got = s3.get_object(Bucket=BUCKET, Key="copied", ChecksumMode="ENABLED")
    same("checksum", got["ChecksumCRC64NVME"], whole["ChecksumCRC64NVME"])
    content = (SCRATCH / "up").read_bytes()
    same(
        "copied bytes",
        hashlib.sha256(got["Body"].read()).digest(),
        hashlib.sha256(content[: 6 * MIB] + b"tail").digest(),
    )
    small = s3.create_multipart_upload(Bucket=BUCKET, Key="small")["UploadId"]
    etags = [s3.upload_part(Bucket=BUCKET, Key="small", UploadId=small, PartNumber=n, Body=b"x") for n in (1, 2)]
    refused(
        "a first part under 5 MiB",
        lambda: s3.complete_multipart_upload(
            Bucket=BUCKET,
            Key="small",
            UploadId=small,
            MultipartUpload={
                "Parts": [
                    {"PartNumber": n, "ETag": e["ETag"], "ChecksumCRC32": e["ChecksumCRC32"]}
                    for n, e in enumerate(etags, 1)
                ]
            },
        ),
        "EntityTooSmall",
        status=400,
    )
    s3.abort_multipart_upload(Bucket=BUCKET, Key="small", UploadId=small)


def owners_and_places():
    s3 = client("s3")
    for what, call in [
        ("head", lambda **o: s3.head_bucket(Bucket=BUCKET, **o)),
        ("list", lambda **o: s3.list_objects_v2(Bucket=BUCKET, **o)),
        ("put", lambda **o: s3.put_object(Bucket=BUCKET, Key="mine", Body=b"1", **o)),
    ]:
        call(ExpectedBucketOwner=ACCOUNT)
        refused(
            f"{what} in somebody else's bucket",
            lambda: call(ExpectedBucketOwner=OTHER),
            "403" if what == "head" else "AccessDenied",
            status=403,
        )
    refused(
        "a name that is taken",
        lambda: s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}),
        "BucketAlreadyOwnedByYou",
        "BucketAlreadyOwnedByYou",
        status=409,
    )
    refused(
        "a bucket that is not there",
        lambda: s3.list_objects_v2(Bucket="nobody-has-this"),
        "NoSuchBucket",
        "NoSuchBucket",
        status=404,
    )
    refused("a key that is not there", lambda: s3.head_object(Bucket=BUCKET, Key="nothing"), "404", status=404)


def main():
    s3 = client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.get_waiter("bucket_exists").wait(Bucket=BUCKET)
    files_in_parts()
    conditions()
    uploads()
    versions()
    owners_and_places()
    done()


main()
