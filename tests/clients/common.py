"""What the client scripts share: boto3 clients whose every answer is looked through, and checks."""

import os
import re
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ACCOUNT = "123456789012"
REGION = os.environ["AWS_REGION"]

# A template is meant to hold references; nothing else is.
TEMPLATES = {"GetTemplate", "GetTemplateSummary", "ValidateTemplate"}
LOGICAL_IDS = r"(ComfyUI[A-Za-z]+|DeploymentBucket(?:Policy)?|ImageRepository)"
UNRESOLVED = re.compile(
    r"\$\{|Fn::|!Ref|!GetAtt|!Sub|\bAWS::(AccountId|Region|Partition|URLSuffix|NoValue|StackName)\b"
    rf"|\b{LOGICAL_IDS}\.[A-Za-z]+\b"
)


def unresolved(value, path=""):
    """The places in an answer that still hold an intrinsic function."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref" or str(key).startswith("Fn::"):
                yield f"{path}.{key}"
            yield from unresolved(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from unresolved(item, f"{path}[{index}]")
    elif isinstance(value, str) and UNRESOLVED.search(value):
        yield f"{path}: {value!r}"


class Answers:
    """Counts the answers that were looked through."""

    def __init__(self):
        self.looked = 0

    def look(self, parsed, model, **_):
        self.looked += 1
        if model.name in TEMPLATES:
            return
        found = list(unresolved(parsed))
        if found:
            fail(f"{model.service_model.service_name} {model.name} answers with something unresolved", *found)


ANSWERS = Answers()


def client(service, retries=True, **config):
    """A client that looks through every answer. Without retries it makes one attempt."""
    attempts = {} if retries else {"retries": {"total_max_attempts": 1}}
    made = boto3.client(service, config=Config(**attempts, **config))
    made.meta.events.register("after-call", ANSWERS.look)
    return made


def fail(*lines):
    print(*lines, sep="\n  ", file=sys.stderr)
    sys.exit(1)


def same(what, got, want):
    """Ends the script when a value is not the expected one."""
    if got != want:
        fail(f"{what} differs", f"got  {got!r}", f"want {want!r}")


def true(what, holds):
    if not holds:
        fail(f"not so: {what}")


def refused(what, call, code, kind=None, message=None, status=None):
    """Asserts that a call fails with this code, as this exception class, and returns the error."""
    try:
        call()
    except ClientError as error:
        got = error.response["Error"]
        same(f"{what}: code", got["Code"], code)
        if kind is not None:
            same(f"{what}: exception class", type(error).__name__, kind)
        if message is not None and not re.search(message, got["Message"]):
            fail(f"{what}: message", f"got  {got['Message']!r}", f"want {message!r}")
        metadata = error.response["ResponseMetadata"]
        if status is not None:
            same(f"{what}: status", metadata["HTTPStatusCode"], status)
        true(f"{what}: has a request id", metadata.get("RequestId"))
        return error
    fail(f"{what}: nothing was refused")


def done():
    """The last line, which the test reads: how many answers were looked through."""
    print(f"looked through {ANSWERS.looked} answers")
