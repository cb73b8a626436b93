"""A Python server in front of ComfyUI of the usual kind: Flask in gunicorn's sync workers, one WebSocket for each.

Written to be measured against, and as plain as such servers are: every request holds a worker until its picture is
ready, /ping goes through the same workers and asks ComfyUI, and a picture is converted by Pillow.
"""

import io
import json
import os
import urllib.error
import urllib.parse
import urllib.request
import uuid

import websocket
from flask import Flask, Response, request
from PIL import Image

COMFYUI = os.environ["REFERENCE_COMFYUI"]
QUALITY = int(os.environ.get("JPEG_QUALITY", "90"))
TAKES_JPEG = ("*/*", "image/*", "image/jpeg")

app = Flask(__name__)
client_id = str(uuid.uuid4())
connection = None


def socket():
    """The worker's WebSocket, opened at its first job and kept for good."""
    global connection
    if connection is None:
        connection = websocket.WebSocket()
        connection.connect(f"ws://{COMFYUI}/ws?clientId={client_id}")
    return connection


def get(path, timeout=60):
    with urllib.request.urlopen(f"http://{COMFYUI}{path}", timeout=timeout) as answer:
        return answer.read()


def run(workflow):
    """Submits a workflow and waits for its end; its id."""
    messages = socket()
    body = json.dumps({"prompt": workflow, "client_id": client_id}).encode()
    call = urllib.request.Request(f"http://{COMFYUI}/prompt", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=60) as answer:
        prompt_id = json.load(answer)["prompt_id"]
    while True:
        message = messages.recv()
        if not isinstance(message, str):
            continue
        message = json.loads(message)
        data = message["data"]
        if message["type"] == "executing" and data["node"] is None and data.get("prompt_id") == prompt_id:
            return prompt_id


def pictures(prompt_id):
    """The files of a job, one after the other."""
    entry = json.loads(get(f"/history/{prompt_id}"))[prompt_id]
    for output in entry["outputs"].values():
        for file in output.get("images", []):
            yield get("/view?" + urllib.parse.urlencode(file))


def jpeg(png):
    with Image.open(io.BytesIO(png)) as picture:
        converted = io.BytesIO()
        picture.convert("RGB").save(converted, format="JPEG", quality=QUALITY, optimize=True)
        return converted.getvalue()


def media_type(picture):
    with Image.open(io.BytesIO(picture)) as opened:
        return Image.MIME.get(opened.format, "application/octet-stream")


@app.get("/ping")
def ping():
    try:
        get("/", timeout=5)
    except OSError:
        return Response(status=503)
    return Response(status=200)


@app.post("/invocations")
def invocations():
    prompt_id = run(json.loads(request.get_data()))
    for picture in pictures(prompt_id):
        kind = media_type(picture)
        ranges = [part.split(";")[0].strip() for part in request.headers.get("Accept", "").split(",")]
        if kind == "image/png" and any(part in TAKES_JPEG for part in ranges):
            return Response(jpeg(picture), mimetype="image/jpeg")
        return Response(picture, mimetype=kind)
    return Response(status=200, mimetype="text/plain")
