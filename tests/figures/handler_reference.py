"""The reference for tests/figures/handler: the same function as one writes it in Python, with boto3.

It does what comfy-handler does for a buffered Function URL, and no more: reads the event, fills the workflow, asks the
endpoint once, returns the picture in base64 with the seed. At the end is the loop that Lambda's own Python runtime is,
reduced to the standard library's HTTP client, which starts faster than the real one.
"""

import base64
import http.client
import json
import os
import random

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT_NAME = os.environ["ENDPOINT_NAME"]
DIRECTORY = os.path.join(os.environ["LAMBDA_TASK_ROOT"], "workflows")
WORKFLOWS = {}
for name in os.listdir(DIRECTORY):
    with open(os.path.join(DIRECTORY, name), encoding="utf-8") as file:
        WORKFLOWS[name] = file.read()

runtime = boto3.client(
    "sagemaker-runtime", config=Config(connect_timeout=3, read_timeout=65, retries={"total_max_attempts": 1})
)


def reply(status, headers, body, encoded=False):
    return {"statusCode": status, "headers": headers, "body": body, "isBase64Encoded": encoded}


def problem(status, code, message):
    error = {"error": {"code": code, "message": message, "details": None}}
    return reply(status, {"Content-Type": "application/json"}, json.dumps(error))


def fill(node, positive, negative, seed):
    inputs = node["inputs"]
    for name, value in inputs.items():
        if isinstance(value, str):
            value = value.replace("POSITIVE_PROMT_PLACEHOLDER", positive)
            value = value.replace("POSITIVE_PROMPT_PLACEHOLDER", positive)
            inputs[name] = value.replace("NEGATIVE_PROMPT_PLACEHOLDER", negative)
        elif name in ("seed", "noise_seed") and isinstance(value, int):
            inputs[name] = seed


def handler(event, _context):
    try:
        body = event["body"]
        if event.get("isBase64Encoded"):
            body = base64.b64decode(body)
        request = json.loads(body)
        positive = request["positive_prompt"]
        negative = request.get("negative_prompt", "")
        seed = int(request.get("seed", random.getrandbits(53)))
        workflow = json.loads(WORKFLOWS[request.get("prompt_file", "workflow_api.json")])
    except (KeyError, TypeError, ValueError) as error:
        return problem(400, "invalid_request", str(error))
    for node in workflow.values():
        fill(node, positive, negative, seed)
    try:
        answer = runtime.invoke_endpoint(
            EndpointName=ENDPOINT_NAME, ContentType="application/json", Accept="*/*", Body=json.dumps(workflow)
        )
        picture = answer["Body"].read()
    except ClientError as error:
        return problem(424, "model_error", str(error))
    headers = {"Content-Type": answer["ContentType"], "X-Comfy-Seed": str(seed)}
    return reply(200, headers, base64.b64encode(picture).decode("ascii"), True)


def main():
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        connection.request("GET", "/2018-06-01/runtime/invocation/next")
        response = connection.getresponse()
        request_id = response.headers["Lambda-Runtime-Aws-Request-Id"]
        answer = handler(json.loads(response.read()), None)
        path = f"/2018-06-01/runtime/invocation/{request_id}/response"
        connection.request("POST", path, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        connection.getresponse().read()


main()
