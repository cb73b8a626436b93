"""Calls a function and an endpoint that really run, with boto3, which reads the answers and signs by itself.

Arguments: the deployment package of the function, which answers what it is told, and the name of an endpoint.
"""

import base64
import json
import sys
import urllib.error
import urllib.request

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from common import REGION, client, done, fail, refused, same, true

PACKAGE, ENDPOINT = sys.argv[1:]
LAMBDA = client("lambda", retries=False)
RUNTIME = client("sagemaker-runtime", retries=False)


def invoke(event, **more):
    return LAMBDA.invoke(FunctionName="f", Payload=json.dumps(event), **more)


def post(url, body, key="sandbox", secret="sandbox", headers=None):
    """A signed request to a function URL: status, headers, body."""
    request = AWSRequest("POST", url, data=body, headers={"content-type": "application/json", **(headers or {})})
    SigV4Auth(Credentials(key, secret), "lambda", REGION).add_auth(request)
    ready = request.prepare()
    sent = urllib.request.Request(url, data=body, headers=dict(ready.headers), method="POST")
    try:
        answer = urllib.request.urlopen(sent)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers, answer.read()


def functions():
    answer = invoke({"do": "sleep"}, LogType="Tail")
    same("status", answer["StatusCode"], 200)
    same("payload", answer["Payload"].read(), b'"slept"')
    true("the tail has a REPORT line", b"\nREPORT RequestId: " in base64.b64decode(answer["LogResult"]))
    failed = invoke({"do": "error"})
    same("function error", failed["FunctionError"], "Unhandled")
    same("error", json.loads(failed["Payload"].read()), {"errorType": "Own", "errorMessage": "mine"})
    same("dry run", invoke({}, InvocationType="DryRun")["StatusCode"], 204)

    stream = LAMBDA.invoke_with_response_stream(FunctionName="f", Payload=b'{"do": "stream", "size": 4}')
    events = list(stream["EventStream"])
    payload = b"".join(e["PayloadChunk"]["Payload"] for e in events[:-1])
    head, body = payload.split(b"\0" * 8)
    same("metadata", json.loads(head)["statusCode"], 201)
    same("streamed body", body, b"pppppppp")
    same("last event", events[-1], {"InvokeComplete": {}})
    broken = list(
        LAMBDA.invoke_with_response_stream(FunctionName="f", Payload=b'{"do": "error"}')["EventStream"]
    )
    same("error code", broken[-1]["InvokeComplete"]["ErrorCode"], "Own")

    LAMBDA.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=0)
    error = refused("no concurrency", lambda: invoke({}), "TooManyRequestsException", "TooManyRequestsException", status=429)
    same("reason", error.response["Reason"], "ReservedFunctionConcurrentInvocationLimitExceeded")
    LAMBDA.delete_function_concurrency(FunctionName="f")
    refused("no such function", lambda: LAMBDA.invoke(FunctionName="g"), "ResourceNotFoundException", status=404)
    refused("not JSON", lambda: LAMBDA.invoke(FunctionName="f", Payload=b"{"), "InvalidRequestContentException", status=400)


def urls():
    url = LAMBDA.create_function_url_config(FunctionName="f", AuthType="AWS_IAM")["FunctionUrl"]
    status, headers, body = post(url + "a%20b/c?x=1&y=a%20b&x=2&%C3%A9=", b'{"k": "v"}')
    if status != 200:
        fail("a signed request was refused", status, body)
    event = json.loads(body)["event"]
    same("path", event["rawPath"], "/a b/c")
    same("query", event["queryStringParameters"], {"x": "1,2", "y": "a b", "é": ""})
    same("body", json.loads(event["body"]), {"k": "v"})
    status, headers, body = post(url, b"{}", secret="guess")
    same("wrong secret", (status, headers["x-amzn-errortype"]), (403, "InvalidSignatureException"))
    status, headers, body = post(url, b"{}", key="denied")
    same("no permission", (status, headers["x-amzn-errortype"]), (403, "AccessDeniedException"))
    LAMBDA.update_function_url_config(FunctionName="f", InvokeMode="RESPONSE_STREAM")
    status, headers, body = post(url, b'{"do": "stream", "size": 100000, "chunks": 5}')
    same("stream", (status, headers["content-type"], len(body)), (201, "image/png", 500000))


def endpoints():
    answer = RUNTIME.invoke_endpoint(
        EndpointName=ENDPOINT, Body=b"{}", ContentType="application/json", CustomAttributes="there", Accept="*/*"
    )
    same("content type", answer["ContentType"], "application/json")
    same("attributes", answer["CustomAttributes"], "back")
    same("variant", answer["InvokedProductionVariant"], "V")
    true("attributes arrive", "x-amzn-sagemaker-custom-attributes: there" in json.loads(answer["Body"].read())["head"])
    order = json.dumps({"status": 400, "text": "no"})
    error = refused(
        "an error of the model",
        lambda: RUNTIME.invoke_endpoint(EndpointName=ENDPOINT, Body=order),
        "ModelError",
        "ModelError",
        r'^Received client error \(400\) from primary with message "no"\. See https://',
        424,
    ).response
    same("original", (error["OriginalStatusCode"], error["OriginalMessage"]), (400, "no"))
    true("log stream", error["LogStreamArn"].endswith(f"log-group:/aws/sagemaker/Endpoints/{ENDPOINT}"))
    refused(
        "no such endpoint",
        lambda: RUNTIME.invoke_endpoint(EndpointName="none", Body=b"{}"),
        "ValidationError",
        "ValidationError",
        "^Endpoint none of account 123456789012 not found.$",
        400,
    )


with open(PACKAGE, "rb") as package:
    role = "arn:aws:iam::123456789012:role/f"
    LAMBDA.create_function(
        FunctionName="f", Runtime="provided.al2023", Handler="bootstrap", Role=role, Timeout=30, Code={"ZipFile": package.read()}
    )
LAMBDA.get_waiter("function_active_v2").wait(FunctionName="f")
functions()
urls()
endpoints()
done()
